"""Suffixes in order, and substrings that occur again, against sorting and counting by hand."""

from __future__ import annotations

import importlib.util
from array import array
from collections import Counter
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.native import compiled

FOLDER = lineal.tokenizers.core.__path__[0]


def as_python(name: str) -> ModuleType:
    """A core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{FOLDER}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["compiled", "python"])
def core(request) -> ModuleType:
    found = (
        compiled("lineal.tokenizers.core.suffixes") if request.param == "compiled" else as_python("suffixes")
    )
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


def laid(words: list[str]) -> tuple[array[int], array[int]]:
    """Words as codes with a zero behind each, and the places of their characters."""
    codes = array("i", "".join(word + "\0" for word in words).encode("utf-32-le"))
    return codes, array("i", [at for at, code in enumerate(codes) if code])


def ordered(core: ModuleType, codes: array[int], order: array[int], limit: int) -> array[int]:
    core.sort(codes, order, limit, array("q", bytes(8 * 3 * 64 * (limit + 2))))
    return order


def suffix(codes: array[int], at: int, limit: int) -> tuple[int, ...]:
    """What stands at a place, up to the word's end, of which one zero is part."""
    found = list(codes[at : at + limit])
    return tuple(found[: found.index(0) + 1] if 0 in found else found)


words_of = st.lists(st.text(st.sampled_from("aab▁é"), min_size=1, max_size=14), min_size=1, max_size=12)


@given(words=words_of, limit=st.integers(2, 9))
def test_suffixes_are_sorted_up_to_a_limit(core, words, limit) -> None:
    codes, order = laid(words)
    found = ordered(core, codes, order[:], limit)
    assert sorted(found) == list(order)
    keys = [suffix(codes, at, limit) for at in found]
    assert keys == sorted(keys)
    shared = array("i", bytes(4 * (len(order) + 1)))
    core.common(codes, found, shared, limit)
    for at in range(1, len(found)):
        one, two = keys[at - 1], keys[at]
        same = next(
            (n for n, (x, y) in enumerate(zip(one, two)) if x != y or x == 0), min(len(one), len(two))
        )
        assert shared[at] == same


@pytest.mark.parametrize("word", ["a" * 3000, "ab" * 1500, "abcdefghij" * 300])
def test_what_repeats_all_over_is_sorted_too(core, word) -> None:
    codes, order = laid([word, word[1:]])
    keys = [suffix(codes, at, 17) for at in ordered(core, codes, order, 17)]
    assert keys == sorted(keys)


@given(
    words=st.dictionaries(
        st.text(st.sampled_from("abc"), min_size=1, max_size=9), st.integers(1, 4), min_size=1, max_size=9
    )
)
@pytest.mark.parametrize("limit", [4, 10])
def test_repeats_are_those_that_counting_finds(core, words, limit) -> None:
    codes, order = laid(list(words))
    order = ordered(core, codes, order, limit)
    shared = array("i", bytes(4 * (len(order) + 1)))
    core.common(codes, order, shared, limit)
    often = array("q", [count for word, count in words.items() for _ in (*word, 0)])
    weights = array("q", [0])
    for at in order:
        weights.append(weights[-1] + often[at])
    out = array("q", bytes(64 * len(order) + 64))
    count = core.repeats(order, shared, weights, codes, limit, out)
    text = "".join(map(chr, codes))
    found = {}
    for first, end, length, times in zip(*(out[k : 4 * count : 4] for k in range(4))):
        spelled = {text[at : at + length] for at in order[first:end]}
        assert len(spelled) == 1
        found[spelled.pop()] = times
    assert len(found) == count
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for start in range(len(word)):
            for end in range(start + 1, len(word) + 1):
                counts[word[start:end]] += times
    expected = {
        piece: times
        for piece, times in counts.items()
        if times > 1 and 1 < len(piece) < limit and all(counts[piece + more] < times for more in "abc")
    }
    assert found == expected


def test_pieces_are_laid_out_by_their_places(core) -> None:
    order = array("i", [2, 0, 1])
    found = array("q", [0, 2, 3, 9, 1, 3, 2, 9, 0, 3, 5, 9])
    pieces = array("i", [7, -1, 8])
    counts = array("i", bytes(16))
    core.tally(order, found, pieces, counts)
    assert list(counts) == [2, 1, 2, 0]
    first = array("i", [0, 2, 3, 5])
    lengths, tokens = bytearray(5), array("i", bytes(20))
    core.edges(order, found, pieces, first, lengths, tokens)
    assert list(tokens) == [7, 8, 8, 7, 8] and list(lengths) == [3, 5, 5, 3, 5]
    assert list(first) == [2, 3, 5, 5]
