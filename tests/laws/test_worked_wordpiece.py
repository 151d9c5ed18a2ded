"""The worked numbers of WordPiece: small cases that anyone can check by hand."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest

from lineal.tokenizers.wordpiece import train_wordpiece
from lineal.tokenizers.wordpiece_train import Vocabulary, likelihood

HUGS = {b"hug": 10, b"pug": 5, b"pun": 12, b"bun": 4, b"hugs": 5}


def test_scores_of_the_first_merge():
    """count(ab) / (count(a) count(b)): g+s has 5 / (20 · 5) = .05, the others 1/36 or less."""
    vocabulary = Vocabulary(HUGS, [], b"##")
    pairs: Counter[tuple[bytes, bytes]] = Counter()
    symbols: Counter[bytes] = Counter()
    for word, count in vocabulary.words:
        names = [vocabulary.tokens[symbol] for symbol in word]
        for name in names:
            symbols[name] += count
        for pair in pairwise(names):
            pairs[pair] += count
    scores = {pair: likelihood(pairs[pair], symbols[pair[0]], symbols[pair[1]]) for pair in pairs}
    assert scores.pop((b"##g", b"##s")) == Fraction(5, 100)
    assert max(scores.values()) == Fraction(1, 36)


def test_the_first_merges():
    """g+s first; then 1/36 for hu, pu, bu and none for u+gs (5 / (36 · 5)): ties go to the more frequent pair, p+u (17)."""
    model = train_wordpiece(HUGS, 15, score="likelihood", special=["[UNK]"])
    assert list(model.tokens[12:]) == [b"##gs", b"pu", b"hu"]


@pytest.mark.parametrize(
    ("word", "tokens"), [(b"hugs", [b"hu", b"##gs"]), (b"bug", [b"b", b"##u", b"##g"]), (b"bum", [b"[UNK]"])]
)
def test_cutting(word: bytes, tokens: list[bytes]):
    """The longest match from the left; a word with a part that is unknown is unknown."""
    model = train_wordpiece(HUGS, 15, score="likelihood", special=["[UNK]"])
    assert [model.tokens[token] for token, _, _ in model.segment(word)] == tokens
