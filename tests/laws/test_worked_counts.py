"""Worked numbers of counts: the four sentences, and who stands beside whom."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from lineal.representations.cooccurrence import cooccurrence, probabilities
from lineal.representations.counts import BagOfWords
from lineal.representations.tfidf import Tfidf

SENTENCES = [
    "this is the first document",
    "this document is the second document",
    "this is the third one",
    "is this the first document",
]
SEEN = ["this", "is", "the", "first", "document", "second", "third", "one"]


def test_bag_of_words_in_first_seen_order() -> None:
    bag = BagOfWords(order="seen")
    rows = bag.fit_transform(SENTENCES).toarray().tolist()
    assert bag.get_feature_names_out().tolist() == SEEN
    assert rows == [
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 2, 1, 0, 0],
        [1, 1, 1, 0, 0, 0, 1, 1],
        [1, 1, 1, 1, 1, 0, 0, 0],
    ]


def test_tfidf_of_the_textbook() -> None:
    rows = Tfidf(form="textbook", order="seen").fit_transform(SENTENCES).toarray()
    first, document, second, third = 0.138629, 0.057536, 0.231049, 0.277259
    expected = np.zeros((4, 8))
    expected[[0, 3], 3] = first
    expected[[0, 3], 4] = document
    expected[1, 4], expected[1, 5] = 0.095894, second
    expected[2, 6] = expected[2, 7] = third
    np.testing.assert_allclose(rows, expected, atol=5e-7)
    assert (rows[:, :3] == 0).all()


def test_two_weights_from_their_definition() -> None:
    rows = Tfidf(form="textbook", order="seen").fit_transform(SENTENCES).toarray()
    assert rows[0, 3] == pytest.approx(1 / 5 * np.log(4 / 2), abs=1e-15)
    assert rows[1, 4] == pytest.approx(2 / 6 * np.log(4 / 3), abs=1e-15)


def test_pizza_given_is() -> None:
    documents = [["Pizza", "is", "the", "best"], ["Margherita", "is", "my", "favorite"]]
    counts = cooccurrence(documents, window=1)
    assert counts.probability("Pizza", "is") == 1 / 4
    # best and Margherita stand side by side only if documents are run together.
    assert counts.count("best", "Margherita") == 0
    p_VV = probabilities(counts)
    np.testing.assert_allclose(p_VV.sum(axis=1), 1, atol=1e-15)
    assert p_VV[counts.row("is"), counts.row("Pizza")] == 1 / 4
