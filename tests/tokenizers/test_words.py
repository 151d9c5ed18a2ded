"""Word level: a list of words, trained by frequency."""

from __future__ import annotations

from array import array
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.tokenizers import matching
from lineal.tokenizers.corpus.counting import PieceCounts, count_texts
from lineal.tokenizers.text.split import Whitespace
from lineal.tokenizers.words import WordLevel, train_words

WORDS = st.text("ab語é", max_size=6).map(str.encode)


def spans(pieces: list[bytes]) -> tuple[bytes, array[int]]:
    """Pieces one behind the other, as a splitter gives them."""
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return b"".join(pieces), array("i", [at for pair in pairwise(ends) for at in pair])


@given(st.lists(WORDS, max_size=10), st.lists(WORDS))
def test_the_core_is_the_rule(tokens: list[bytes], words: list[bytes]):
    model = WordLevel([b"?", *tokens], unknown=0)
    expected = [token for word in words for token, _, _ in model.segment(word)]
    assert model.encode(*spans(words)) == expected
    assert all(model.tokens[token] == word for token, word in zip(expected, filter(None, words)) if token)


@pytest.mark.parametrize("core", [True, False])
def test_without_an_unknown_token_a_strange_word_is_named(core: bool, monkeypatch: pytest.MonkeyPatch):
    if not core:
        monkeypatch.setattr(matching, "matching_core", lambda: None)
    model = WordLevel([b"a", b"bb"], unknown=None)
    assert model.encode(*spans([b"bb", b"a", b""])) == [1, 0]
    with pytest.raises(DataError, match="'ab' is not in the vocabulary"):
        model.encode(*spans([b"a", b"ab"]))


def test_a_piece_is_all_of_a_word():
    model = WordLevel([b"[UNK]", b"a", b"ab", b"#" * 9], unknown=0)
    assert model.encode(*spans([b"a", b"ab", b"aab", b"aba", b"#" * 9, b"#" * 10])) == [1, 2, 0, 0, 3, 0]
    assert model.segment(b"ab") == [(2, 0, 2)]
    assert model.encode(*spans([b"a" * 1_000_000])) == [0]


def test_the_most_frequent_words_first_and_equals_in_order():
    counts = {b"pear": 3, b"fig": 5, b"apple": 3, "é".encode(): 3, b"": 9, b"rare": 1}
    model = train_words(counts, 100, min_frequency=2)
    assert model.tokens == (b"[UNK]", b"fig", b"apple", b"pear", "é".encode())
    assert model.unknown == 0
    assert train_words(PieceCounts(counts), 3) == WordLevel([b"[UNK]", b"fig", b"apple"], unknown=0)
    assert train_words(counts, 3, special=["<pad>", "<unk>"], unknown="<unk>").unknown == 1
    assert train_words(counts, 1, special=[], unknown=None) == WordLevel([b"fig"], unknown=None)


def test_a_word_that_is_special_is_there_once():
    assert train_words({b"<s>": 5, b"a": 1}, 9, special=["<s>", "[UNK]"]).tokens == (b"<s>", b"[UNK]", b"a")


def test_like_the_library(data: Path):
    library = pytest.importorskip("tokenizers")
    path = data / "tinyshakespeare" / "input.txt"
    other = library.Tokenizer(library.models.WordLevel(unk_token="[UNK]"))
    other.pre_tokenizer = library.pre_tokenizers.Whitespace()
    trainer = library.trainers.WordLevelTrainer(
        vocab_size=3000, special_tokens=["[UNK]"], show_progress=False
    )
    other.train([str(path)], trainer)
    text = path.read_text()
    model = train_words(count_texts(text.splitlines(keepends=True), None, Whitespace(), None), 3000)
    vocabulary = sorted(other.get_vocab().items(), key=lambda item: item[1])
    assert [token.encode() for token, _ in vocabulary] == list(model.tokens)
    raw = text[:50_000].encode()
    assert model.encode(raw, Whitespace().spans(raw)) == other.encode(text[:50_000]).ids


def test_progress():
    seen: list[tuple[int, int]] = []
    train_words({b"a": 1}, 9, progress=lambda *at: seen.append(at))
    assert seen == [(2, 9)]


def test_what_cannot_be():
    with pytest.raises(UsageError, match="no id of its 1 tokens"):
        WordLevel([b"a"], unknown=1)
    with pytest.raises(UsageError, match="leaves no room beside 2 special tokens: give at least 3"):
        train_words({b"a": 1}, 2, special=["[PAD]", "[UNK]"])
    with pytest.raises(UsageError, match="is not among the special tokens"):
        train_words({b"a": 1}, 9, special=["[PAD]"])
    for counts in ({}, {b"a": 1}):
        with pytest.raises(DataError, match="No piece was counted"):
            train_words(counts, 9, min_frequency=2)
