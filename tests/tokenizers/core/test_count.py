"""The table of pieces: compiled, as Python, and as a dict, all the same."""

from __future__ import annotations

import importlib.util
from array import array
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal import native
from lineal.tokenizers.piece_table import DictTable, FlatTable, spans_of

FILE = f"{lineal.tokenizers.core.__path__[0]}/count.py"
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=3),
        st.sampled_from([b"a" * 7, b"a" * 8, b"a" * 9, b"a" * 40, b"b" + b"a" * 39, b"\0" * 8]),
    )
)


def as_python() -> ModuleType:
    """The core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location("count_as_python", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["compiled", "python"])
def core(request) -> ModuleType:
    found = native.compiled("lineal.tokenizers.core.count") if request.param == "compiled" else as_python()
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


def joined(pieces: list[bytes]) -> tuple[bytes, array]:
    """Pieces as data and spans."""
    ends, at = [], 0
    for piece in pieces:
        at += len(piece)
        ends.append(at)
    return b"".join(pieces), spans_of(ends)


def test_the_tables_agree(core) -> None:
    @given(PIECES, st.lists(st.integers(0, 1 << 40), min_size=1), st.booleans())
    def check(pieces: list[bytes], numbers: list[int], weighs: bool) -> None:
        data, spans = joined(pieces)
        weights = array("q", [numbers[at % len(numbers)] for at in range(len(pieces))] if weighs else [])
        plain, flat = DictTable(), FlatTable(core, pieces=1)
        for _ in range(2):
            plain.add(data, spans, weights)
            flat.add(data, spans, weights)
            assert flat.flat() == plain.flat()
        assert len(flat) == len(plain)

    check()


def test_the_rarest_go(core) -> None:
    @given(PIECES, st.integers(0, 3), st.integers(0, 3))
    def check(pieces: list[bytes], floor: int, ties: int) -> None:
        data, spans = joined(pieces)
        plain, flat = DictTable(), FlatTable(core, pieces=2)
        for table in (plain, flat):
            table.add(data, spans)
        assert flat.keep(floor, ties) == plain.keep(floor, ties)
        assert flat.flat() == plain.flat()
        # What was dropped can be seen again.
        for table in (plain, flat):
            table.add(data, spans)
        assert flat.flat() == plain.flat()

    check()


def test_pieces_with_one_key_are_told_apart(core) -> None:
    # Every long piece gets the key of any other when there is no factor to mix them; here nearly all land on few slots.
    pieces = [bytes([65 + at % 26]) * (8 + at // 26) for at in range(2000)]
    data, spans = joined(pieces)
    flat = FlatTable(core, pieces=1)
    flat.add(data, spans)
    assert len(flat) == len(set(pieces)) == 2000
    assert set(flat.flat()[2]) == {1}


def test_overlapping_and_unordered_pieces(core) -> None:
    flat = FlatTable(core)
    flat.add(b"abcabc", array("i", [3, 6, 0, 3, 2, 2, 1, 5]))
    assert flat.flat() == (b"abcbcab", array("q", [3, 7]), array("q", [2, 1]))


def test_spans_of_pieces_in_a_row() -> None:
    assert spans_of([2, 2, 5]) == array("i", [0, 2, 2, 2, 2, 5])
    assert spans_of([]) == array("i")
