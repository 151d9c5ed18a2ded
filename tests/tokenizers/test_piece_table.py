"""The two tables of pieces: what they hold after any sequence of changes, how they grow, and pieces that can't be."""

from __future__ import annotations

import random
from array import array
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal import native
from lineal.errors import DataError, UsageError
from lineal.tokenizers.corpus import counting
from lineal.tokenizers.corpus.counting import PieceCounts
from lineal.tokenizers.piece_table import DictTable, FlatTable, spans_of

EDGES = [b"\0" * size for size in range(1, 18)] + [b"\xff" * size for size in range(1, 18)]
"""Pieces that differ in nothing but their length, around those at which the key changes."""


@pytest.fixture
def core() -> ModuleType:
    found = native.compiled("lineal.tokenizers.core.count")
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


@pytest.fixture(params=["compiled", "python"])
def counts(request, monkeypatch) -> type[PieceCounts]:
    """PieceCounts on either table."""
    if request.param == "python":
        monkeypatch.setattr(counting, "table_core", lambda: None)
    elif counting.table_core() is None:
        pytest.skip("nothing was compiled at install")
    return PieceCounts


def laid(pieces: list[bytes]) -> tuple[bytes, array[int]]:
    """Pieces behind each other and their spans."""
    ends, at = [], 0
    for piece in pieces:
        at += len(piece)
        ends.append(at)
    return b"".join(pieces), spans_of(ends)


CHANGES = st.lists(
    st.one_of(
        st.lists(st.one_of(st.sampled_from(EDGES), st.binary(max_size=9))),
        st.tuples(st.integers(0, 2), st.integers(0, 4)),
    ),
    max_size=8,
)


def test_any_sequence_of_additions_and_removals(core) -> None:
    @given(CHANGES)
    def check(changes) -> None:
        plain, flat = DictTable(), FlatTable(core, pieces=1)
        for change in changes:
            if isinstance(change, tuple):
                assert flat.keep(*change) == plain.keep(*change)
            else:
                for table in (plain, flat):
                    table.add(*laid(change))
            assert flat.flat() == plain.flat() and len(flat) == len(plain)

    check()


def test_growing_keeps_every_count(core) -> None:
    flat, draw = FlatTable(core, pieces=1), random.Random(0)
    pieces = [draw.randbytes(draw.randint(1, 20)) for _ in range(3000)] + [b"x" * 100_000]
    expected: dict[bytes, int] = {}
    for low in range(0, len(pieces), 37):
        some = pieces[low : low + 37] + pieces[:5]
        flat.add(*laid(some))
        for piece in some:
            expected[piece] = expected.get(piece, 0) + 1
    data, ends, numbers = flat.flat()
    found = [data[start:end] for start, end in zip([0, *ends], ends)]
    assert found == list(expected) and list(numbers) == list(expected.values())
    # At most half of the slots are taken, and a power of two, or the search for a free one would never end.
    slots = len(flat.slots) // 2
    assert slots >= 2 * len(flat) and slots & (slots - 1) == 0


def test_a_piece_means_the_same_wherever_it_stands(core) -> None:
    """Up to seven bytes are read as eight where there are so many, and one by one at the end of the data."""
    for size in (1, 2, 6, 7, 8, 9, 15, 16, 17):
        piece = bytes(range(65, 65 + size))
        flat = FlatTable(core)
        for behind in range(10):
            data = b"?" * behind + piece + b"!" * behind
            flat.add(data, array("i", [behind, behind + size]))
            flat.add(piece, array("i", [0, size]))
        assert flat.flat() == (piece, array("q", [size]), array("q", [20]))


def test_pieces_that_share_a_key_or_a_slot(core) -> None:
    """All but a table's last bytes the same, and long ones that differ in one byte at every place."""
    base = bytearray(b"q" * 33)
    pieces = [bytes(base)]
    for at in range(33):
        for value in (0, 1, 128, 255):
            base[at] = value
            pieces.append(bytes(base))
            base[at] = ord("q")
    flat = FlatTable(core, pieces=1)
    flat.add(*laid(pieces * 3))
    assert len(flat) == len(set(pieces)) and set(flat.flat()[2]) == {3}


@pytest.mark.parametrize(
    "spans", [[0, 4], [2, 5], [-1, 2], [-5, -1], [1 << 30, (1 << 30) + 2], [0, 2**31 - 1]]
)
def test_a_piece_outside_the_text_is_refused(counts, spans: list[int]) -> None:
    found = counts({b"ab": 1})
    with pytest.raises(DataError, match="outside the text of 3 bytes: give the spans of this text"):
        found.add(b"abc", array("i", [0, 2, *spans]))
    # It can be used on.
    found.add(b"abc", array("i", [1, 3]))
    assert dict(found.items())[b"bc"] == 1


def test_a_piece_that_ends_before_it_begins_is_none(counts) -> None:
    found = counts()
    found.add(b"abc", array("i", [2, 1, 1, 1, 0, 0, 3, 3]))
    assert len(found) == 0 and found.total == 0


@pytest.mark.parametrize("weights", [[1], [1, 2, 3]])
def test_each_piece_has_one_weight(counts, weights: list[int]) -> None:
    with pytest.raises(UsageError, match=rf"{len(weights)} weights don't go with 2 pieces"):
        counts().add(b"ab", array("i", [0, 1, 1, 2]), array("q", weights))


def test_counts_beyond_64_bits_are_refused(counts) -> None:
    for wrong in ({b"a": 1 << 63}, {b"a": (1 << 63) - 1, b"b": 1}, {b"a": 1 << 200}):
        with pytest.raises(UsageError, match="beyond 64 bits in all: count less"):
            counts(wrong)
    assert counts({b"a": (1 << 63) - 1}).total == (1 << 63) - 1


def test_more_pieces_than_are_added_at_a_time(counts, monkeypatch) -> None:
    monkeypatch.setattr(counting, "SEVERAL", 3)
    several = {bytes([65 + at]) * (1 + at % 9): at for at in range(20)}
    found = counts(several)
    assert list(found.items()) == list(several.items())
    found.merge(counts(several))
    assert dict(found.items()) == {piece: 2 * count for piece, count in several.items()}


def test_ties_at_the_cap_go_by_first_sight(counts) -> None:
    @given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 32))
    def check(numbers: list[int], most: int) -> None:
        several = {b"%d" % at: number for at, number in enumerate(numbers)}
        found = counts(several)
        found.prune(most)
        ranked = sorted(several, key=lambda piece: -several[piece])[:most]
        kept = [piece for piece in several if piece in ranked]
        assert [piece for piece, _ in found.items()] == kept
        assert found.total + found.dropped == sum(numbers)

    check()


@pytest.mark.parametrize("cap", [2, 3, 5])
def test_a_cap_is_never_passed_and_nothing_is_lost_uncounted(counts, cap: int) -> None:
    @given(st.lists(st.text("abcdefgh", max_size=6), max_size=12))
    def check(texts: list[str]) -> None:
        found = counts(cap=cap)
        for text in texts:
            found.add(text.encode(), spans_of(range(1, len(text) + 1)))
            assert len(found) <= cap
        assert found.total + found.dropped == sum(map(len, texts))

    check()
