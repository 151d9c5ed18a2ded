"""Counting pieces: the sums, where they may be split up, what is dropped, what is on the disk, and bad files."""

from __future__ import annotations

import gzip
import pickle
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.tokenizers.corpus import counting, reading
from lineal.tokenizers.corpus.counting import PieceCounts, count_files, count_texts, merge_counts
from lineal.tokenizers.text.normalise import Lowercase, SpaceInFront
from lineal.tokenizers.text.split import Gpt2, SymbolSplit, Whitespace, Whole

TEXT = "The cat's on the mat.\n\n  It isn't the bat's mat,  is it?\nÉté, 日本 \u3000 12\n"
PIECES = st.dictionaries(st.binary(min_size=1, max_size=12), st.integers(0, 1 << 40), max_size=40)


@pytest.fixture(params=["compiled", "python"])
def table(request, monkeypatch) -> None:
    """Both tables."""
    if request.param == "python":
        monkeypatch.setattr(counting, "table_core", lambda: None)
    elif counting.table_core() is None:
        pytest.skip("nothing was compiled at install")


def plainly(texts: Iterable[str], splitter) -> Counter[bytes]:
    """Counts without any of this."""
    found: Counter[bytes] = Counter()
    for data in (text.encode() for text in texts):
        spans = splitter.spans(data)
        found.update(data[start:end] for start, end in zip(spans[::2], spans[1::2]))
    return found


@pytest.mark.usefixtures("table")
class TestPieceCounts:
    @given(PIECES, PIECES)
    def test_sums(self, first: dict[bytes, int], second: dict[bytes, int]) -> None:
        found = PieceCounts(first)
        assert dict(found.items()) == first and list(found.items()) == list(first.items())
        found.merge(PieceCounts(second))
        expected = {piece: first.get(piece, 0) + second.get(piece, 0) for piece in {**first, **second}}
        assert dict(found.items()) == expected
        assert len(found) == len(expected) and found.total == sum(expected.values())
        assert merge_counts([PieceCounts(second), PieceCounts(first)]) == found

    @given(PIECES)
    def test_flat(self, counts: dict[bytes, int]) -> None:
        data, ends, numbers = PieceCounts(counts).flat()
        assert ends.typecode == numbers.typecode == "q"
        assert [data[start:end] for start, end in zip([0, *ends], ends)] == list(counts)
        assert list(numbers) == list(counts.values())

    @given(PIECES)
    def test_sent_to_another_process(self, counts: dict[bytes, int]) -> None:
        sent = PieceCounts(counts, cap=1000)
        sent.dropped = 3
        found = pickle.loads(pickle.dumps(sent))
        assert (list(found.items()), found.cap, found.dropped) == (list(counts.items()), 1000, 3)

    def test_counts_of_more_than_32_bits(self) -> None:
        found = PieceCounts({b"a": 1 << 40})
        found.merge(found)
        assert dict(found.items()) == {b"a": 1 << 41}

    def test_the_rarest_go_when_there_are_too_many(self) -> None:
        found = PieceCounts(cap=4)
        for text in ("aaa", "bb", "ccccc", "d"):
            found.add(text.encode(), array("i", [at for k in range(len(text)) for at in (k, k + 1)]))
        assert found.dropped == 0 and len(found) == 4
        found.add(b"e", array("i", [0, 1]))
        assert dict(found.items()) == {b"a": 3, b"c": 5}
        assert found.dropped == 4
        found.prune(0)
        assert len(found) == 0 and found.dropped == 12

    def test_of_equally_rare_the_first_stay(self) -> None:
        found = PieceCounts({b"long piece": 1, b"b": 1, b"c": 2, b"d": 1})
        found.prune(3)
        assert list(found.items()) == [(b"long piece", 1), (b"b", 1), (b"c", 2)]
        found.add(b"bx", array("i", [0, 1, 1, 2]))
        assert list(found.items()) == [(b"long piece", 1), (b"b", 2), (b"c", 2), (b"x", 1)]

    def test_texts(self) -> None:
        texts = TEXT.splitlines(True)
        found = count_texts(texts, None, Gpt2())
        assert dict(found.items()) == plainly(texts, Gpt2())
        lower = count_texts(texts, Lowercase(), Gpt2(prefix_space=True))
        spaced = [SpaceInFront()(text.lower()) for text in texts]
        assert dict(lower.items()) == plainly(spaced, Gpt2())
        with pytest.raises(DataError, match="Text 1 has a lone surrogate at character 2"):
            count_texts(["fine", "no\ud800"], None, Gpt2())

    def test_saved_and_loaded(self, tmp_path) -> None:
        found = PieceCounts({b"a": 1, b"\xff\x00": 1 << 50}, cap=7)
        found.dropped = 5
        found.save(tmp_path / "counts")
        again = PieceCounts.load(tmp_path / "counts")
        assert (list(again.items()), again.cap, again.dropped) == (list(found.items()), 7, 5)
        assert [path.name for path in tmp_path.iterdir()] == ["counts"]


def test_damaged_counts(tmp_path) -> None:
    path = tmp_path / "counts"
    PieceCounts({b"ab": 1, b"c": 2}).save(path)
    good = path.read_bytes()
    wrong = [good[:at] for at in range(len(good))]
    wrong += [good + b"x", good.replace(b'"pieces": 2', b'"pieces": 3'), good.replace(b": null", b": true")]
    wrong += [good.replace(b'"dropped": 0', b'"dropped": -1'), good.replace(b'"bytes"', b'"bites"')]
    ends = good.index(b"\n", 20) + 1
    wrong.append(good[:ends] + array("q", [3, 3, 1, 2]).tobytes() + b"abc")
    wrong.append(good[:ends] + array("q", [2, 3, 1, -2]).tobytes() + b"abc")
    for content in wrong:
        path.write_bytes(content)
        with pytest.raises(DataError, match="holds no counts"):
            PieceCounts.load(path)
    with pytest.raises(DataError, match="can't be read"):
        PieceCounts.load(tmp_path)
    with pytest.raises(DataError, match="can't be written"):
        PieceCounts().save(tmp_path / "none" / "counts")


def test_what_cannot_be(tmp_path) -> None:
    with pytest.raises(UsageError, match="cap of 1"):
        PieceCounts(cap=1)
    with pytest.raises(UsageError, match="occurs -1 times"):
        PieceCounts({b"a": -1})
    with pytest.raises(UsageError, match="list of files"):
        count_files("text.txt", None, Gpt2())
    with pytest.raises(UsageError, match="0 workers"):
        count_files([], None, Gpt2(), workers=0)
    with pytest.raises(DataError, match="empty list"):
        count_files([], None, Gpt2())
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"no text in .*empty.txt"):
        count_files([tmp_path / "empty.txt"], None, Gpt2())


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    "splitter", [Gpt2(), Whitespace(), SymbolSplit("t"), Gpt2(prefix_space=True), Whole()]
)
@pytest.mark.parametrize("block", [5, 1 << 20])
def test_lines_of_files_are_texts(splitter, block: int, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", block)
    (tmp_path / "one.txt").write_text(TEXT + "no end", encoding="utf-8")
    with gzip.open(tmp_path / "two.txt.gz", "wt", encoding="utf-8") as file:
        file.write(TEXT * 3)
    paths = [tmp_path / "one.txt", tmp_path / "two.txt.gz"]
    lines = [*(TEXT * 4).splitlines(True), "no end"]
    seen: list[tuple[int, int]] = []
    found = count_files(paths, None, splitter, progress=lambda done, total: seen.append((done, total)))
    assert found == count_texts(lines, None, splitter)
    assert seen == sorted(seen) and seen[-1] == (seen[0][1], sum(path.stat().st_size for path in paths))
    lower = count_files(paths, Lowercase(), splitter)
    assert lower == count_texts(lines, Lowercase(), splitter)


def test_files_are_cut_as_hugging_faces_trainer_cuts_them(tmp_path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    # A vocabulary that may hold everything ends with each piece that occurs twice or more as a token.
    other = tokenizers.Tokenizer(tokenizers.models.BPE())
    other.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=10_000, min_frequency=1, show_progress=False)
    other.train([str(path)], trainer)
    pieces = {piece.decode() for piece, _ in count_files([path], None, Gpt2()).items()}
    mapped = {
        "".join(part for part, _ in other.pre_tokenizer.pre_tokenize_str(piece)): piece for piece in pieces
    }
    assert set(mapped) <= set(other.get_vocab())
    whole = other.pre_tokenizer.pre_tokenize_str(TEXT)
    assert {part for part, _ in whole} != set(mapped)


def test_a_bad_byte_is_named(tmp_path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"fine\n" * 3 + b"not \xff fine\n")
    with pytest.raises(DataError, match=r"bad.txt:4: byte 0xff is no UTF-8 .*convert"):
        count_files([path], None, Gpt2())
    with pytest.raises(DataError, match=r"bad.txt:4"):
        count_files([path], Lowercase(), Gpt2())
    path.write_bytes(b"a\n\xe6\x97")
    with pytest.raises(DataError, match=r"bad.txt:2: byte 0xe6"):
        count_files([path], None, Gpt2())


def test_one_unreadable_file_among_many(tmp_path) -> None:
    good = tmp_path / "good.txt"
    good.write_text("text")
    with pytest.raises(DataError, match=r"absent.txt can't be read"):
        count_files([good, tmp_path / "absent.txt"], None, Gpt2())


def test_a_huge_line_is_counted_in_parts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 1000)
    monkeypatch.setattr(reading, "LONGEST_LINE", 5000)
    line = "It's one, long; line -- 123 of words " * 2000
    path = tmp_path / "line.txt"
    path.write_text(line)
    assert count_files([path], None, Gpt2()) == count_texts([line], None, Gpt2())


@pytest.mark.serial
def test_processes_count_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "PART", 40_000)
    paths = [tmp_path / name for name in ("one.txt", "two.txt")]
    paths[0].write_text(TEXT * 2000, encoding="utf-8")
    paths[1].write_text("another\n")
    alone = count_files(paths, None, Gpt2())
    shared = count_files(paths, None, Gpt2(), workers=2)
    assert list(shared.items()) == list(alone.items())
    Path(paths[1]).write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"two.txt:1"):
        count_files(paths, None, Gpt2(), workers=2)
