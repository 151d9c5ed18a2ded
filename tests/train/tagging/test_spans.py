"""Spans in both ways of writing them, and their scores worked out."""

from __future__ import annotations

import pytest

from lineal.train.tagging.spans import span_scores, spans_of


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("I-A I-A O I-B", [("A", 0, 2), ("B", 3, 4)]),
        ("B-A I-A B-A", [("A", 0, 2), ("A", 2, 3)]),
        ("I-A B-A I-A I-B", [("A", 0, 1), ("A", 1, 3), ("B", 3, 4)]),
        ("I-A I-B I-B O", [("A", 0, 1), ("B", 1, 3)]),
        ("O O", []),
        ("I-X-Y I-X-Y", [("X-Y", 0, 2)]),
    ],
)
def test_spans(tags: str, wanted: list) -> None:
    assert spans_of(tags.split()) == wanted


def test_scores_worked_out() -> None:
    right = [["B-A", "I-A", "O", "B-B"], ["O", "O"]]
    told = [["B-A", "I-A", "O", "B-A"], ["B-B", "O"]]
    found = span_scores(told, right)
    assert (found.precision, found.recall, found.support) == (pytest.approx(1 / 3), 0.5, 2)
    assert found.f1 == pytest.approx(2 * (1 / 3) * 0.5 / (1 / 3 + 0.5))
    assert span_scores([["O"]], [["O"]]).f1 == 0.0
