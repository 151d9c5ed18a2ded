"""Who stands near whom: the sparse counts are those of two loops, windows stop at documents, ratios are quotients."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy")

from lineal.errors import DataError, LinealError
from lineal.representations import cooccurrence as module
from lineal.representations.cooccurrence import (
    DIRECTIONS,
    WEIGHTINGS,
    cooccurrence,
    probabilities,
    probability_ratios,
)

WEIGHT = {
    "uniform": lambda d, window: 1.0,
    "harmonic": lambda d, window: 1 / d,
    "linear": lambda d, window: (window - d + 1) / window,
}


def by_loops(documents: list[list[str]], window: int, direction: str, weighting: str) -> Counter:
    """X by its definition."""
    found: Counter = Counter()
    for words in documents:
        for i, word in enumerate(words):
            for j, other in enumerate(words):
                side = "left" if j < i else "right"
                if i != j and abs(i - j) <= window and direction in ("both", side):
                    found[word, other] += WEIGHT[weighting](abs(i - j), window)
    return found


@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=8), max_size=5),
    st.integers(1, 10),
    st.sampled_from(DIRECTIONS),
    st.sampled_from(WEIGHTINGS),
)
def test_counts_are_those_of_two_loops(
    documents: list[list[str]], window: int, direction: str, weighting: str
) -> None:
    if not any(documents):
        return
    made = cooccurrence(documents, window, direction=direction, weighting=weighting)
    expected = by_loops(documents, window, direction, weighting)
    for one in made.words:
        for other in made.words:
            assert made.count(one, other) == pytest.approx(expected[one, other], abs=1e-12)
    if direction == "both":
        assert abs(made.matrix - made.matrix.T).max() < 1e-12


def test_blocks_change_nothing(monkeypatch) -> None:
    documents = [list("abcab"), list("cabba"), []]
    whole = cooccurrence(documents, 3).matrix.toarray()
    monkeypatch.setattr(module, "BLOCK", 2)
    np.testing.assert_array_equal(cooccurrence(documents, 3).matrix.toarray(), whole)


def test_rare_and_foreign_words_keep_their_places() -> None:
    documents = [["a", "rare", "b"], ["a", "b"]]
    limited = cooccurrence(documents, 1, min_count=2)
    assert limited.words == ["a", "b"] and limited.count("a", "b") == 1
    assert cooccurrence(documents, 1, vocabulary=["b", "a"]).matrix.toarray().tolist() == [[0, 1], [1, 0]]


def test_probabilities_sum_to_one_or_are_zero() -> None:
    made = cooccurrence([["a", "b", "c"], ["alone"]], 1)
    assert probabilities(made).sum(axis=1).tolist() == [1, 1, 1, 0]
    assert made.probability("a", "alone") == 0


def test_ratios_are_quotients_of_probabilities() -> None:
    documents = [["ice", "solid"], ["ice", "water"], ["steam", "gas"], ["steam", "water"], ["ice", "water"]]
    made = probability_ratios(
        cooccurrence(documents, 1), "ice", "steam", ["solid", "gas", "water", "fashion"]
    )
    assert made["water"] == (2 / 3, 1 / 2, pytest.approx(4 / 3))
    assert made["solid"][2] == math.inf and made["gas"] == (0, 0.5, 0)
    assert math.isnan(made["fashion"][2])
    with pytest.raises(DataError, match="no word 'fog'"):
        probability_ratios(cooccurrence(documents, 1), "ice", "fog", [])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"window": 0}, "window of 0"),
        ({"direction": "up"}, "direction='up'"),
        ({"weighting": "none"}, "weighting='none'"),
        ({"min_count": 9}, "No word occurs 9 times"),
    ],
)
def test_what_cannot_be_is_refused(how: dict, message: str) -> None:
    with pytest.raises(LinealError, match=message):
        cooccurrence([["a", "b"]], **how)
    with pytest.raises(LinealError, match="cut it into words"):
        cooccurrence(["a b"])


def test_a_window_longer_than_every_document_is_no_matter() -> None:
    assert cooccurrence([["a", "b"], ["c"]], 1000).count("a", "b") == 1
