"""Counting by shards: however the texts are parted, packed, read or handed to processes, the counts are those of one pass."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import DataError
from lineal.tokenizers.corpus import counting, reading
from lineal.tokenizers.corpus.counting import (
    MAGIC,
    PieceCounts,
    count_files,
    count_part,
    count_texts,
    merge_counts,
)
from lineal.tokenizers.corpus.reading import Part, blocks, parts_of, place_of
from lineal.tokenizers.parts import Splitter
from lineal.tokenizers.text.normalise import Lowercase
from lineal.tokenizers.text.split import BertSplit, Cl100k, Digits, Gpt2, Splits, SymbolSplit, Whole

TEXTS = st.lists(st.text("aB' 1\n\r.é日\U0001f600\u2028\0", max_size=12), max_size=8)
SPLITTERS: list[Splitter] = [
    Gpt2(),
    Cl100k(),
    BertSplit(),
    Splits((Digits(individual=True), Gpt2(prefix_space=True))),
    SymbolSplit("é"),
    Whole(),
]


def by_lines(texts: list[str], splitter: Splitter) -> Counter[bytes]:
    """Counts of the lines of texts, by the splitter alone."""
    found: Counter[bytes] = Counter()
    for text in texts:
        for line in text.split("\n")[:-1]:
            found.update(cut(splitter, line + "\n"))
        found.update(cut(splitter, text.split("\n")[-1]))
    return found


def cut(splitter: Splitter, line: str) -> list[bytes]:
    """The pieces of one text."""
    data = (splitter.before(line) if splitter.before and line else line).encode()
    spans = splitter.spans(data)
    return [data[start:end] for start, end in zip(spans[::2], spans[1::2])]


def write(folder: Path, texts: list[str], packed: int) -> list[Path]:
    """Each text in a file of its own, those that a bit of `packed` says as .gz."""
    paths = []
    for number, text in enumerate(texts):
        zipped = packed >> number & 1
        paths.append(folder / (f"{number}.txt.gz" if zipped else f"{number}.txt"))
        paths[-1].write_bytes(gzip.compress(text.encode(), 1) if zipped else text.encode())
    return paths


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_files_packed_or_not_in_blocks_of_any_size(splitter: Splitter, tmp_path, monkeypatch) -> None:
    @settings(max_examples=20)
    @given(TEXTS, st.integers(0, 255), st.integers(1, 9))
    def check(texts: list[str], packed: int, block: int) -> None:
        monkeypatch.setattr(reading, "BLOCK", block)
        paths = write(tmp_path, texts, packed)
        expected = by_lines(texts, splitter)
        if not expected:
            with pytest.raises(DataError, match="There is no text in"):
                count_files(paths, None, splitter)
            return
        assert dict(count_files(paths, None, splitter).items()) == expected

    check()


@pytest.mark.parametrize("normaliser", [None, Lowercase()], ids=str)
def test_the_map_and_the_reduce_are_one_pass(normaliser, tmp_path) -> None:
    @settings(max_examples=25)
    @given(TEXTS, st.randoms(use_true_random=False))
    def check(texts: list[str], draw: random.Random) -> None:
        whole = count_texts(texts, normaliser, Gpt2())
        bound = sorted(draw.choices(range(len(texts) + 1), k=draw.randint(0, 4)))
        shards = [texts[low:high] for low, high in zip([0, *bound], [*bound, len(texts)])]
        parts = [count_texts(shard, normaliser, Gpt2()) for shard in shards]
        assert list(merge_counts(parts).items()) == list(whole.items())
        for number, part in enumerate(parts):
            part.save(tmp_path / f"{number}.counts")
        loaded = [PieceCounts.load(tmp_path / f"{number}.counts") for number in range(len(parts))]
        draw.shuffle(loaded)
        merged = merge_counts(loaded)
        assert merged == whole and merged.total == whole.total
        # Nested reduction, as a tree of processes does it.
        middle = len(loaded) // 2
        assert merge_counts([merge_counts(loaded[:middle]), merge_counts(loaded[middle:])]) == whole

    check()


def test_a_file_parted_at_any_byte(tmp_path) -> None:
    text = "It's\n\n a 日本語 line\r\nno end\n\u2028é\n'll  go on"
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    expected = list(count_files([path], None, Gpt2()).items())
    size = len(text.encode())
    for first in range(1, size + 2):
        for second in (first, first + 1, first + 5, size):
            bounds = [0, first, max(first, second), None]
            parts = [Part(path, 0, start or 0, stop) for start, stop in pairwise(bounds)]
            assert list(merge_counts(count_part(part, None, Gpt2()) for part in parts).items()) == expected


def test_overlong_lines_in_parts_hold_everything_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 5)
    monkeypatch.setattr(reading, "LONGEST_LINE", 12)
    draw = random.Random(4)
    path = tmp_path / "text.txt"
    for size in (3, 9, 17, 40):
        monkeypatch.setattr(reading, "PART", size)
        for _ in range(25):
            content = "".join(
                draw.choices(["a", "b ", "日", "\n", "word, " * 4], [6, 4, 4, 1, 2], k=25)
            ).encode()
            path.write_bytes(content)
            parts = parts_of(path, 2)
            assert len(parts) == max(1, -(-len(content) // size) if len(content) >= 2 * size else 1)
            found = [piece for part in parts for piece in blocks(part)]
            assert b"".join(data for _, data in found) == content
            assert [at for at, _ in found] == [sum(len(d) for _, d in found[:i]) for i in range(len(found))]
            for _, data in found:
                data.decode()


@pytest.mark.serial
@pytest.mark.parametrize("cap", [None, 40])
def test_two_processes_count_as_one(tmp_path, monkeypatch, cap: int | None) -> None:
    monkeypatch.setattr(reading, "PART", 3000)
    draw = random.Random(2)
    words = ["the", " cat", "'s", "\n", " 12", "é", "日本", "\r\n", "  "]
    texts = ["".join(draw.choices(words, k=size)) for size in (4000, 10, 0, 900)]
    paths = write(tmp_path, texts, 0b1000)
    calls: list[tuple[int, int]] = []
    splitter = Splits((Digits(), Gpt2()))
    shared = count_files(
        paths, Lowercase(), splitter, workers=2, cap=cap, progress=lambda *at: calls.append(at)
    )
    alone = count_files(paths, Lowercase(), splitter, cap=cap)
    size = sum(path.stat().st_size for path in paths)
    assert calls == sorted(calls) and calls[-1] == (size, size)
    if cap is None:
        assert list(shared.items()) == list(alone.items())
    assert len(shared) <= (cap or len(shared))
    assert shared.total + shared.dropped == alone.total + alone.dropped


def test_a_bad_byte_has_its_line_however_the_file_is_read(tmp_path, monkeypatch) -> None:
    for block in (3, 7, 1 << 20):
        monkeypatch.setattr(reading, "BLOCK", block)
        for packed in (False, True):
            path = tmp_path / ("bad.txt.gz" if packed else "bad.txt")
            content = b"one\ntwo\n\nfo\xc3\xa9r\xa9\nfive\n"
            path.write_bytes(gzip.compress(content) if packed else content)
            for normaliser in (None, Lowercase()):
                with pytest.raises(DataError, match=rf"{path.name}:4: byte 0xa9 is no UTF-8 .*convert"):
                    count_files([path], normaliser, Gpt2())
    assert place_of(path, 0).endswith(":1") and place_of(path, 10**6).endswith(":6")


@pytest.mark.parametrize("name", ["", "folder", "text/inside", "absent/counts", "a\0b"])
def test_counts_cannot_be_written_there(tmp_path, monkeypatch, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("kept")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"can't be written .*: free some space or choose another"):
        PieceCounts({b"a": 1}).save(name)
    with pytest.raises(DataError, match=r"can't be read|holds no counts"):
        PieceCounts.load(name)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "text").read_text() == "kept"


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch) -> None:
    path = tmp_path / "counts"
    PieceCounts({b"old": 1}).save(path)

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(counting.os, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        PieceCounts({b"new": 1}).save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["counts"]
    assert PieceCounts.load(path) == PieceCounts({b"old": 1})


@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_are_taken_for_counts_that_are_none(content: bytes, headed: bool) -> None:
    assert PieceCounts.from_bytes(MAGIC + content if headed else content) is None


HEADS = [
    [],
    "counts",
    None,
    {"pieces": 0, "bytes": 0, "cap": None},
    {"pieces": 0, "bytes": 0, "cap": 1, "dropped": 0},
    {"pieces": 0, "bytes": 0, "cap": -4, "dropped": 0},
    {"pieces": 0.0, "bytes": 0, "cap": None, "dropped": 0},
    {"pieces": True, "bytes": 0, "cap": None, "dropped": 0},
    {"pieces": -1, "bytes": 16, "cap": None, "dropped": 0},
    {"pieces": 10**300, "bytes": 0, "cap": None, "dropped": 0},
    {"pieces": "0", "bytes": 0, "cap": None, "dropped": 0},
]


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_a_head_that_says_what_cannot_be(head) -> None:
    assert PieceCounts.from_bytes(MAGIC + json.dumps(head).encode() + b"\n") is None
    good = {"pieces": 0, "bytes": 0, "cap": None, "dropped": 0}
    assert PieceCounts.from_bytes(MAGIC + json.dumps(good).encode() + b"\n") == PieceCounts()


@given(st.dictionaries(st.binary(min_size=1, max_size=20), st.integers(0, 1 << 50)), st.integers(0, 1 << 70))
def test_what_was_saved_comes_back(counts: dict[bytes, int], dropped: int) -> None:
    sent = PieceCounts(counts)
    sent.dropped = dropped
    found = PieceCounts.from_bytes(sent.to_bytes())
    assert found is not None
    assert (list(found.items()), found.dropped, found.cap) == (list(counts.items()), dropped, None)
    assert found.to_bytes() == sent.to_bytes()


def test_the_order_of_bytes_in_a_file_is_the_same_everywhere(monkeypatch) -> None:
    counts = PieceCounts({b"ab": 258, b"c": 1})
    here = counts.to_bytes()
    ends, numbers = here[-19 - 16 : -19], here[-19:-3]
    assert ends == (2).to_bytes(8, "little") + (3).to_bytes(8, "little")
    assert numbers == (258).to_bytes(8, "little") + (1).to_bytes(8, "little") and here[-3:] == b"abc"
    monkeypatch.setattr(counting.sys, "byteorder", "big")
    # On such a machine the numbers lie the other way round in memory.
    assert counts.to_bytes()[-19:-3] == (258).to_bytes(8, "big") + (1).to_bytes(8, "big")
