"""Tagged sentences from files, and errors with their lines."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from lineal.errors import DataError, UsageError
from lineal.train.tagging.conll import read_conll, read_tagging
from lineal.train.tagging.options import TagOptions

UNIVERSAL = """# sent_id = 1
1\tIt\tit\tPRON\t_
2-3\tdon't\t_\t_\t_
2\tdo\tdo\tAUX\t_
3\tn't\tnot\tPART\t_
3.1\tgo\t_\tVERB\t_

1\t#\t#\tSYM\t_
"""
NAMES = "-DOCSTART- O\n\nAda I-PER\nof O\nYork I-LOC\n\nYes O\n"


def test_universal_dependencies(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu"
    path.write_text(UNIVERSAL)
    first, second = read_conll(path, 1, 3)
    assert first.words == ("It", "do", "n't") and first.tags == ("PRON", "AUX", "PART")
    assert second.words == ("#",) and second.place.endswith(":8") and first.place.endswith(":2")
    with gzip.open(tmp_path / "a.conllu.gz", "wt") as file:
        file.write(UNIVERSAL)
    assert read_conll(tmp_path / "a.conllu.gz", 1, 3)[0].tags == first.tags


def test_names(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(NAMES)
    first, second = read_conll(path, 0, -1)
    assert (first.words, first.tags, second.words) == (
        ("Ada", "of", "York"),
        ("I-PER", "O", "I-LOC"),
        ("Yes",),
    )


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("Ada I-PER\nof\n", (0, 2), "a.txt:1"),
        ("Ada\tI-PER\n\tO\n", (0, 1), "a.txt:2: the word is empty"),
        ("\n\n", (0, -1), "no sentence"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, columns: tuple[int, int], said: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_conll(path, *columns)


def options_for(tmp_path: Path, train: str, held: str | None = None) -> TagOptions:
    """Options for files of these texts."""
    (tmp_path / "train.txt").write_text(train)
    if held is not None:
        (tmp_path / "held.txt").write_text(held)
    return TagOptions(
        data=str(tmp_path / "train.txt"), eval_data=None if held is None else str(tmp_path / "held.txt")
    )


def test_a_part_is_held_out_always_the_same(tmp_path: Path) -> None:
    options = options_for(tmp_path, "\n".join(f"w{i} {'AB'[i % 2]}\n" for i in range(20)))
    task = read_tagging(options)
    assert (len(task.train), len(task.held), task.tags) == (16, 4, ("A", "B"))
    assert read_tagging(options) == task
    assert len(read_tagging(replace(options, limit=5)).train) == 5


@pytest.mark.parametrize(
    ("train", "held", "spans", "said"),
    [
        ("a A\nb B\n", "c C\n", False, "'C' is in no sentence"),
        ("a A\nb A\n", "a A\n", False, "nothing to tell"),
        ("a A\nb O\n", "a A\n", True, "no tag of spans"),
        ("a A\nb B\n", None, False, "0 to evaluate on"),
    ],
)
def test_a_task_that_cannot_be_is_refused(
    tmp_path: Path, train: str, held: str | None, spans: bool, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_tagging(replace(options_for(tmp_path, train, held), spans=spans))


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": "elmo"},
        {"features": "static"},
        {"features": "static", "model": "m", "vectors": "v"},
        {"held_out": 1.0},
    ],
)
def test_features_need_their_model(wrong: dict) -> None:
    with pytest.raises(UsageError):
        TagOptions(**wrong)
