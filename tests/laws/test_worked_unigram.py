"""The worked numbers of Unigram: hug 10, pug 5, pun 12, bun 4, hugs 5, and the 15 substrings counted in them."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from lineal.tokenizers.unigram import Unigram
from lineal.tokenizers.unigram_train import best_cut, loss

WORDS = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}


def candidates() -> dict[str, int]:
    """How often each substring occurs that is less than a whole word somewhere."""
    counts: Counter[str] = Counter()
    parts = set()
    for word, count in WORDS.items():
        for start in range(len(word)):
            for end in range(start + 1, len(word) + 1):
                counts[word[start:end]] += count
                parts |= {word[start:end]} - {word}
    return {part: counts[part] for part in parts}


COUNTS = candidates()
PIECES = {part: math.log(count / 210) for part, count in COUNTS.items()}


def probability(*parts: str) -> float:
    return math.exp(sum(PIECES[part] for part in parts))


def test_fifteen_substrings_and_their_total() -> None:
    assert len(COUNTS) == 15 and sum(COUNTS.values()) == 210
    assert not {"pug", "pun", "bun", "hugs"} & COUNTS.keys()
    assert COUNTS["u"] == 36 and COUNTS["ug"] == 20 and COUNTS["hug"] == 15 and COUNTS["ugs"] == 5


@pytest.mark.parametrize(
    ("parts", "value"),
    [
        (("hug",), 0.071428),
        (("pu", "g"), 0.007710),
        (("pu", "n"), 0.006168),
        (("bu", "n"), 0.001451),
        (("hug", "s"), 0.001701),
        (("h", "u", "g"), 0.001166),
        (("hu", "g"), 0.006803),
    ],
)
def test_probabilities_of_cuts(parts, value) -> None:
    assert probability(*parts) == pytest.approx(value, abs=1e-6)
    word = "".join(parts)
    if parts not in (("h", "u", "g"), ("hu", "g")):
        assert math.exp(best_cut(word, PIECES)[1]) == pytest.approx(probability(*parts), rel=1e-12)


def test_the_corpus_loss_and_what_removing_a_piece_adds() -> None:
    whole = loss(WORDS, PIECES)
    assert whole == pytest.approx(169.8, abs=0.05)
    for piece, added in (("pu", 0.0), ("hug", 23.5)):
        # The total stays 210: the other pieces keep their probabilities.
        left = {part: score for part, score in PIECES.items() if part != piece}
        assert loss(WORDS, left) - whole == pytest.approx(added, abs=0.05)


def test_all_best_cuts_but_hug_s_are_ties_and_the_longest_last_piece_wins() -> None:
    ordered = list(PIECES)
    model = Unigram([(part.encode(), PIECES[part]) for part in ordered])
    expected = {
        "hug": ["hug"],
        "pug": ["p", "ug"],
        "pun": ["p", "un"],
        "bun": ["b", "un"],
        "hugs": ["hu", "gs"],
    }
    for word in expected:
        first, second = model.n_best(word.encode(), 2)
        assert (first[1] - second[1] < 1e-6) == (word != "hug")
        assert best_cut(word, PIECES)[1] == pytest.approx(first[1], abs=1e-5)
    # In single precision, as the model adds, every one of these is an exact tie or falls the same way.
    assert {word: best_cut(word, PIECES)[0] for word in ("hug", "pug", "pun", "bun")} == {
        word: expected[word] for word in ("hug", "pug", "pun", "bun")
    }
    assert [ordered[token] for token, _, _ in model.segment(b"pug")] == expected["pug"]
