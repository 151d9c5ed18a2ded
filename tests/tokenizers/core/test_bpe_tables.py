"""The hash tables of a BPE vocabulary: what they hold, compiled and run as Python."""

from __future__ import annotations

import importlib.util
import random
from array import array
from collections.abc import Sequence
from itertools import accumulate
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.native import compiled
from lineal.tokenizers.bpe import TABLES

FILE = f"{lineal.tokenizers.core.__path__[0]}/bpe_tables.py"


def as_python() -> ModuleType:
    """The core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location("bpe_tables_as_python", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["compiled", "python"])
def core(request) -> ModuleType:
    found = compiled(TABLES) if request.param == "compiled" else as_python()
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


def tables(core: ModuleType, tokens: Sequence[bytes], hidden: Sequence[int] = (), **how: Any) -> Any:
    """Tables of tokens; hidden: those that text never gives."""
    ends = memoryview(array("q", accumulate(map(len, tokens))))
    marks = bytes(i in hidden for i in range(len(tokens)))
    affixes = (how.get("prefix", b""), how.get("suffix", b""))
    return core.Tables(b"".join(tokens), ends, marks, affixes, how.get("characters", False))


def pairs(found: Any) -> dict[tuple[int, int], tuple[int, int]]:
    """The table of pairs as left, right: rank, result."""
    flat = [*found.arrays()[2]]
    return {
        (key >> 32, key & 0xFFFFFFFF): (value >> 32, value & 0xFFFFFFFF)
        for key, value in zip(flat[::2], flat[1::2])
        if key >= 0
    }


def known(found: Any) -> list[int]:
    return sorted(token for token in found.arrays()[0] if token >= 0)


def merged(core: ModuleType, tokens: Sequence[bytes], merges: Sequence[tuple[int, int]], **how: Any) -> Any:
    found = tables(core, tokens, **how)
    flat = memoryview(array("i", [part for pair in merges for part in pair]))
    return found, found.merges(flat)


TOKENS = [b"a", b"b", b"c", b"ab", b"abc", b"bc"]


def test_merges_have_their_rank_and_result(core) -> None:
    found, (wrong, problem) = merged(core, TOKENS, [(0, 1), (3, 2), (1, 2)])
    assert (wrong, problem) == (-1, 0)
    assert pairs(found) == {(0, 1): (0, 3), (3, 2): (1, 4), (1, 2): (2, 5)}


@pytest.mark.parametrize(
    "merges,expected",
    [
        ([(0, 6)], (0, 1)),
        ([(0, 1), (-1, 0)], (1, 1)),
        ([(0, 1), (1, 0)], (1, 2)),
        ([(0, 1), (1, 2), (0, 1)], (2, 4)),
    ],
)
def test_the_first_merge_that_cannot_be_is_told(core, merges, expected) -> None:
    assert merged(core, TOKENS, merges)[1] == expected


def test_a_prefix_goes_when_tokens_join(core) -> None:
    tokens = [b"a", b"##b", b"ab", b"##bb", b"##"]
    found, told = merged(core, tokens, [(0, 1), (1, 1)], prefix=b"##")
    assert told == (-1, 0)
    assert pairs(found) == {(0, 1): (0, 2), (1, 1): (1, 3)}
    assert merged(core, tokens, [(0, 4)], prefix=b"##")[1] == (0, 3)


def test_by_rank_any_two_tokens_merge_that_make_one(core) -> None:
    found = tables(core, TOKENS)
    found.ranks()
    expected = {(0, 1): (3, 3), (3, 2): (4, 4), (0, 5): (4, 4), (1, 2): (5, 5)}
    assert pairs(found) == expected
    hidden = tables(core, TOKENS, hidden=[5])
    hidden.ranks()
    assert pairs(hidden) == {pair: made for pair, made in expected.items() if 5 not in (*pair, *made)}


@given(st.lists(st.text("ab", max_size=5).map(str.encode), min_size=1, max_size=40))
def test_by_rank_says_what_the_bytes_say(core, tokens) -> None:
    first = {token: i for i, token in reversed([*enumerate(tokens)]) if token}
    found = tables(core, tokens)
    found.ranks()
    expected = {
        (first[left], first[right]): (first[left + right],) * 2
        for left in first
        for right in first
        if left + right in first
    }
    assert pairs(found) == expected
    assert known(found) == sorted(first.values())


def test_of_two_tokens_with_the_same_bytes_the_first_counts(core) -> None:
    assert known(tables(core, [b"a", b"", b"a", b"b"])) == [0, 3]
    assert known(tables(core, [b"a", b"", b"a", b"b"], hidden=[0])) == [2, 3]


def symbols(found: Any) -> dict[tuple[int, bytes], int]:
    """The tokens that are one symbol: way, bytes: id."""
    single = [*found.arrays()[1]]
    one = {(i // 256, bytes([i % 256])): token for i, token in enumerate(single) if token >= 0}
    more = {
        (left & 3, right.to_bytes(4, "big").lstrip(b"\0")): token
        for (left, right), (_, token) in pairs(found).items()
        if left >> 30
    }
    return one | more


def test_symbols_are_bytes_or_characters(core) -> None:
    tokens = [b"a", "é".encode(), "日".encode(), "😀".encode(), b"ab", b"\xe6\x97", b"\xff", "éa".encode()]
    found, _ = merged(core, tokens, [])
    assert symbols(found) == {(0, b"a"): 0, (0, b"\xff"): 6}
    found, _ = merged(core, tokens, [], characters=True)
    # Bytes that a piece broke off from their character are a symbol too.
    expected = {(0, token): i for i, token in enumerate(tokens[:4])} | {(0, b"\xe6\x97"): 5, (0, b"\xff"): 6}
    assert symbols(found) == expected


def test_symbols_have_a_prefix_a_suffix_or_both(core) -> None:
    tokens = [b"a", b"##a", b"a__", b"##a__", "##é".encode(), b"##ab", b"##", b"#a", b"a_"]
    found, _ = merged(core, tokens, [], characters=True, prefix=b"##", suffix=b"__")
    expected = {(0, b"a"): 0, (1, b"a"): 1, (2, b"a"): 2, (3, b"a"): 3, (1, "é".encode()): 4}
    assert symbols(found) == expected


def test_many_tokens_fill_their_tables(core) -> None:
    draw = random.Random(0)
    letters = [bytes([97 + i]) for i in range(20)]
    tokens = letters + [left + right for left in letters for right in letters]
    merges = [(i, j) for i in range(20) for j in range(20)]
    draw.shuffle(merges)
    found, told = merged(core, tokens, merges)
    assert told == (-1, 0)
    assert pairs(found) == {(i, j): (rank, 20 + 20 * i + j) for rank, (i, j) in enumerate(merges)}
