"""Reading pairs: what is aligned, what is left out under which name, and what is said of files that do not fit."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from lineal.errors import DataError, UsageError
from lineal.train.translation.options import PairOptions
from lineal.train.translation.pairs import (
    Pairs,
    copy_task,
    held_out,
    read_aligned,
    read_columns,
    read_corpus,
    said,
    without_empty,
)


def files(folder: Path, source: str, target: str) -> tuple[str, str]:
    """Two files with these texts."""
    paths = folder / "a.en", folder / "a.de"
    for path, text in zip(paths, (source, target), strict=True):
        path.write_bytes(text.encode())
    return str(paths[0]), str(paths[1])


def test_lines_are_paired_as_they_are(tmp_path: Path) -> None:
    pairs = read_aligned(*files(tmp_path, "one\ntwo \r\n\nfour", "eins\nzwei\ndrei\nvier\n"))
    assert pairs.sources == ["one", "two", "", "four"] and pairs.targets == ["eins", "zwei", "drei", "vier"]


def test_line_ends_of_unicode_end_no_line(tmp_path: Path) -> None:
    """U+2028 and form feeds inside a line would shift everything behind them."""
    pairs = read_aligned(*files(tmp_path, "a\u2028b\nc\x0cd\n", "x\ny\n"))
    assert pairs.sources == ["a\u2028b", "c\x0cd"]


def test_gzip_is_read_as_it_is(tmp_path: Path) -> None:
    source, target = files(tmp_path, "one\n", "eins\n")
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(Path(source).read_bytes()))
    assert read_aligned(f"{source}.gz", target).sources == ["one"]


@pytest.mark.parametrize(
    ("source", "target", "place"),
    [
        ("a\nb\nc\n", "x\ny\n", "a.en:3: 'c'"),
        ("a\n", "x\ny\nz\n", "a.de:2: 'y'"),
        ("a\nb", "x", "a.en:2: 'b'"),
    ],
)
def test_unequal_files_name_both_counts_and_the_first_odd_line(
    source: str, target: str, place: str, tmp_path: Path
) -> None:
    one, other = files(tmp_path, source, target)
    with pytest.raises(DataError) as caught:
        read_aligned(one, other)
    counts = [len(text.split("\n")) - text.endswith("\n") for text in (source, target)]
    assert f"a.en has {counts[0]} lines" in str(caught.value) and f"a.de {counts[1]}:" in str(caught.value)
    assert place in str(caught.value)


def test_a_line_that_is_no_text_is_named_or_counted(tmp_path: Path) -> None:
    one, other = files(tmp_path, "a\nb\n", "x\ny\n")
    Path(other).write_bytes(b"x\n\xff\n")
    with pytest.raises(DataError, match=r"a\.de:2:1: byte 0xff is not UTF-8.*--on-bad-row skip"):
        read_aligned(one, other)
    pairs = read_aligned(one, other, "skip")
    assert pairs.sources == ["a"] and pairs.dropped == {"unreadable": 1}


def test_columns(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("one\teins\ntwo\tzwei\n")
    assert read_columns(str(path)) == Pairs(["one", "two"], ["eins", "zwei"], str(path))
    path.write_text("one\teins\ntwo zwei\na\tb\tc\n")
    with pytest.raises(DataError, match=r"pairs\.tsv:2:1: 0 tabs; a line is source<TAB>target"):
        read_columns(str(path))
    assert read_columns(str(path), "skip").dropped == {"unreadable": 2}
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"source": "one", "target": "eins"}\n')
    assert read_columns(str(rows)).targets == ["eins"]
    rows.write_text('{"source": "one", "german": "eins"}\n')
    with pytest.raises(DataError, match=r"no field 'target'"):
        read_columns(str(rows))


def test_empty_sides_are_left_out_and_counted() -> None:
    pairs = without_empty(Pairs(["a", "", "c", ""], ["x", "y", "", ""], "here"))
    assert pairs.sources == ["a"] and pairs.dropped == {"empty": 3}
    assert said({**pairs.dropped, "ratio": 0, "too long": 1200}) == "3 empty, 1,200 too long"
    with pytest.raises(DataError, match=r"here: none of its 2 pairs can be used \(2 empty\)"):
        without_empty(Pairs(["", "b"], ["x", ""], "here"))


def test_held_out_pairs_follow_the_seed_and_share_no_source() -> None:
    pairs = Pairs([f"s{i // 2}" for i in range(200)], [f"t{i}" for i in range(200)], "here")
    train, valid = held_out(pairs, 0.1, seed=1)
    assert not set(train.sources) & set(valid.sources) and len(valid) == 20 and len(train) < 181
    assert held_out(pairs, 0.1, seed=1)[1] == valid and held_out(pairs, 0.1, seed=2)[1] != valid


def test_the_copy_task_is_new_in_validation_mostly() -> None:
    task = copy_task(0)
    assert task.train.sources == task.train.targets and len(task.train) == 8000 and len(task.valid) == 100
    assert {len(s.split()) for s in task.train.sources} == set(range(3, 11))
    assert len(set(task.valid.sources) - set(task.train.sources)) > 60
    assert copy_task(1).train.sources != task.train.sources


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"source_file": "a"}, "--source-file and --target-file belong together"),
        ({"pairs": "a", "source_file": "b", "target_file": "c"}, "give one of them"),
        ({"pairs": "a", "valid_target": "b"}, "--valid-source and --valid-target"),
        ({"test_source": "a", "test_target": "b"}, "without training files"),
    ],
)
def test_files_that_do_not_go_together(given: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_corpus(replace(PairOptions(), **given), 0)  # type: ignore[arg-type]


def test_validation_and_test_files_are_read_whole(tmp_path: Path) -> None:
    one, other = files(tmp_path, "a\n\nc\n", "x\ny\nz\n")
    options = PairOptions(source_file=one, target_file=other, valid_source=one, valid_target=other)
    corpus = read_corpus(options, 0)
    assert len(corpus.train) == 2 and len(corpus.valid) == 3 and corpus.test is corpus.valid


def test_real_pairs(data: Path) -> None:
    folder = data / "multi30k"
    pairs = read_aligned(str(folder / "train.en.gz"), str(folder / "train.de.gz"))
    assert len(pairs) == 29000 and pairs.sources[0].startswith("Two young, White males")
