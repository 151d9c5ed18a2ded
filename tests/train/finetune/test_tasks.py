"""Labelled rows: what is read, and that whatever is wrong with them is named with its file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lineal.errors import DataError
from lineal.train.finetune.options import TaskOptions
from lineal.train.finetune.tasks import read_task

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as JSONL and gives the file's name."""

    def rows(*found: dict, name: str = "d.jsonl") -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in found))
        return str(tmp_path / name)

    return rows


def plain(count: int) -> list[dict]:
    return [{"text": f"text {i}", "label": ("no", "yes")[i % 2]} for i in range(count)]


def test_classes_are_numbered_by_name_and_part_is_held_out(write: Write) -> None:
    task = read_task(TaskOptions(data=write(*plain(20)), held_out=0.25))
    assert (task.labels, len(task.train), len(task.held), task.outputs) == (("no", "yes"), 15, 5, 2)
    assert all(row.target == int(row.texts[0].split()[1]) % 2 for row in task.train + task.held)
    again = read_task(TaskOptions(data=write(*plain(20)), held_out=0.25))
    assert again == task
    assert len(read_task(TaskOptions(data=write(*plain(20)), limit=4)).train) == 4


def test_columns_of_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("a\tb\tjudged\n" + "".join(f"one {i}\ttwo\t{'NY'[i % 2]}\n" for i in range(10)))
    options = TaskOptions(task="pair", data=str(path), text_field="a", second_field="b", label_field="judged")
    task = read_task(options)
    assert task.train[0].texts[1] == "two" and task.labels == ("N", "Y")
    assert task.train[0].place.startswith(str(path))


def test_choices_stand_in_a_list_or_in_columns(write: Write) -> None:
    rows = [{"text": "c", "choices": ["x", "y", "z"], "label": i % 3} for i in range(10)]
    task = read_task(TaskOptions(task="choice", data=write(*rows)))
    assert (
        task.train[0].texts == ("c", "x", "y", "z") and task.labels == ("0", "1", "2") and task.outputs == 1
    )
    rows = [{"text": "c", "A": "x", "B": "y", "label": "1"} for _ in range(10)]
    task = read_task(TaskOptions(task="choice", data=write(*rows), choices_field=("A", "B")))
    assert task.train[0].texts == ("c", "x", "y") and task.train[0].target == 1


def test_scores_are_numbers(write: Write) -> None:
    rows = [{"text": "t", "label": i} for i in range(10)]
    task = read_task(TaskOptions(target="score", data=write(*rows), eval_data=write(*rows)))
    assert task.labels == () and task.outputs == 1
    assert (task.mean, task.spread) == (4.5, pytest.approx(8.25**0.5))


@pytest.mark.parametrize(
    ("row", "options", "text"),
    [
        ({"label": "yes"}, {}, "there is no field 'text'"),
        ({"txt": "a", "label": "yes"}, {}, "did you mean --text-field txt?"),
        ({"text": "  ", "label": "yes"}, {}, "'text' is empty"),
        ({"text": 3, "label": "yes"}, {}, "'text' is a int, not text"),
        ({"text": "a"}, {}, "there is no field 'label'"),
        ({"text": "a", "label": None}, {}, "the label 'label' is missing"),
        ({"text": "a", "label": " "}, {}, "the label 'label' is missing"),
        ({"text": "a", "label": "maybe"}, {"target": "score"}, "'maybe' is no number"),
        ({"text": "a", "label": "0"}, {"task": "choice"}, "there is no field 'choices'"),
        ({"text": "a", "label": "0", "choices": ["x"]}, {"task": "choice"}, "at least two texts"),
        ({"text": "a", "label": "0"}, {"task": "pair"}, "there is no field 'second'"),
    ],
)
def test_a_bad_row_is_named_with_its_line(write: Write, row: dict, options: dict, text: str) -> None:
    good = {"text": "a", "second": "b", "choices": ["x", "y"], "label": "1"}
    path = write(good, good, row)
    with pytest.raises(DataError, match=r"d\.jsonl:3") as caught:
        read_task(TaskOptions(data=path, held_out=0.4, **options))
    assert text in str(caught.value)


def test_a_bad_row_can_be_left_out(write: Write) -> None:
    path = write(*plain(8), {"text": "", "label": "yes"})
    task = read_task(TaskOptions(data=path, on_bad_row="skip"))
    assert len(task.train) + len(task.held) == 8


def test_one_class_and_unknown_classes_are_refused(write: Write) -> None:
    same = [{"text": "a", "label": "yes"}] * 20
    with pytest.raises(DataError, match="with one class there is nothing to tell"):
        read_task(TaskOptions(data=write(*same)))
    held = write({"text": "a", "label": "perhaps"}, name="held.jsonl")
    with pytest.raises(DataError, match=r"held.jsonl:1: the label 'perhaps' is in no row to train on"):
        read_task(TaskOptions(data=write(*plain(8)), eval_data=held))
    with pytest.raises(DataError, match="is --label-field label the right column"):
        read_task(TaskOptions(data=write(*({"text": "a", "label": f"{i}.5"} for i in range(60)))))


def test_choices_must_fit_their_labels(write: Write) -> None:
    rows = [{"text": "c", "choices": ["x", "y"], "label": 1}] * 4
    with pytest.raises(DataError, match="'2' is no choice"):
        read_task(TaskOptions(task="choice", data=write({**rows[0], "label": 2}, *rows), held_out=0.3))
    with pytest.raises(DataError, match="3 choices"):
        read_task(
            TaskOptions(task="choice", data=write(*rows, {**rows[0], "choices": list("xyz")}), held_out=0.3)
        )
