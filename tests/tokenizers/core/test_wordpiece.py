"""The cores of WordPiece: compiled, as Python, and the obvious forms, all the same."""

from __future__ import annotations

import importlib.util
from array import array
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal import native
from lineal.tokenizers.matching import Matcher
from lineal.tokenizers.text import normalise
from lineal.tokenizers.text.normalise import Bert
from lineal.tokenizers.wordpiece import WordPiece
from lineal.tokenizers.wordpiece_train import Vocabulary, merge_by_core, merge_plainly

HERE = lineal.tokenizers.core.__path__[0]
WORDS = st.text("abé語", max_size=16).map(str.encode)
# Counts so near each other, and so large, that products of three go far beyond 64 bits and scores tie or nearly do.
COUNTS = st.one_of(st.integers(1, 4), st.integers(2**31, 2**31 + 3), st.sampled_from([2**33, 2**34]))
CORPORA = st.dictionaries(
    st.text("abc", min_size=1, max_size=8).map(str.encode), COUNTS, min_size=1, max_size=30
)


def viewed(function: Callable) -> Callable:
    """A function of a core run by the interpreter, which wants views of what the compiler takes as it is."""
    return lambda *given: function(
        *(memoryview(x) if isinstance(x, bytes | bytearray | array) else x for x in given)
    )


def forms(name: str) -> list[ModuleType]:
    """A core run by the interpreter, and compiled."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{HERE}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for called in ("grow", "move", "encode", "listed", "replace_characters"):
        if hasattr(module, called):
            setattr(module, called, viewed(getattr(module, called)))
    built = native.compiled(f"lineal.tokenizers.core.{name}")
    return [module, built] if built else [module]


@pytest.mark.parametrize("which", [0, 1], ids=["python", "compiled"])
def test_encoding(which: int):
    found = forms("wordpiece")[which:]
    if not found:
        pytest.skip("nothing was compiled at install")

    @given(st.lists(WORDS.map(b"##".__add__) | WORDS), st.lists(WORDS, min_size=1), st.integers(1, 16))
    def check(tokens: list[bytes], words: list[bytes], longest: int) -> None:
        model = WordPiece([b"?", *tokens], unknown=0, longest_word=longest)
        matcher = Matcher(found[0], model.tokens, b"##")
        # Few slots, so that words drive each other out of the memory.
        matcher._rooms.append((array("q", bytes(32 * 4)), array("i")))
        data, spans = b"".join(words * 2), array("i")
        for word in words * 2:
            start = spans[-1] if spans else 0
            spans.extend((start, start + len(word)))
        expected = [token for word in words * 2 for token, _, _ in model.segment(word)]
        assert matcher.encode(data, spans, longest, 0) == expected

    check()


@pytest.mark.parametrize("which", [0, 1], ids=["python", "compiled"])
def test_training_by_likelihood(which: int):
    found = forms("wordpiece_train")[which:]
    if not found:
        pytest.skip("nothing was compiled at install")

    @given(CORPORA, st.integers(8, 60), st.sampled_from([0, 2, 2**31 + 2]))
    def check(counts: dict[bytes, int], size: int, least: int) -> None:
        expected, vocabulary = Vocabulary(counts, [], b"##"), Vocabulary(counts, [], b"##")
        merge_plainly(expected, size, least)
        merge_by_core(found[0], vocabulary, size, least)
        assert vocabulary.tokens == expected.tokens

    check()


@pytest.mark.parametrize("which", [0, 1], ids=["python", "compiled"])
def test_more_pairs_than_there_is_room_for_at_first(which: int):
    found = forms("wordpiece_train")[which:]
    if not found:
        pytest.skip("nothing was compiled at install")
    counts = {
        bytes((97 + a % 26, 97 + b % 26, 97 + a * b % 23)): 1 + a * b % 7
        for a in range(40)
        for b in range(40)
    }
    expected, vocabulary = Vocabulary(counts, [], b"##"), Vocabulary(counts, [], b"##")
    merge_plainly(expected, 90, 0)
    merge_by_core(found[0], vocabulary, 90, 0)
    assert vocabulary.tokens == expected.tokens


@given(*[st.integers(0, 2**40)] * 6)
def test_products_of_three_are_compared_exactly(a: int, b: int, c: int, d: int, e: int, f: int):
    core = forms("wordpiece_train")[0]
    for x, y in (((a, b, c), (d, e, f)), ((a, b, c), (b, c, a)), ((a + 1, b, c), (b, a, c))):
        left, right = x[0] * x[1] * x[2], y[0] * y[1] * y[2]
        assert core.sign(*x, *y) == core.exactly(*x, *y) == (left > right) - (left < right)


@pytest.mark.parametrize("which", [0, 1], ids=["python", "compiled"])
def test_berts_characters(which: int, monkeypatch: pytest.MonkeyPatch):
    found = forms("bert_text")[which:]
    if not found:
        pytest.skip("nothing was compiled at install")
    monkeypatch.setattr(normalise, "_core", lambda: found[0])

    @given(st.text(), st.sampled_from([Bert(), Bert(lowercase=False), Bert(False, True, True, False)]))
    def check(text: str, bert: Bert) -> None:
        # From an empty table each time, so that pages are missing.
        fresh = Bert(bert.clean_text, bert.chinese, bert.strip_accents, bert.lowercase)
        assert fresh(text) == fresh(text) == bert.whole(text)

    check()
