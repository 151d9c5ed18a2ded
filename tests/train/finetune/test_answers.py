"""Answers as stretches: where they are in windows of a context, the best stretch, and SQuAD's scores."""

from __future__ import annotations

import pytest
import torch

from lineal.train.finetune.answers import LONGEST, answers, best_span, span_targets
from lineal.train.finetune.inputs import ClassMarks, decisions, sequences

MARKS = ClassMarks(cls=101, sep=102)


def test_a_context_that_fits_is_one_window() -> None:
    (window,) = sequences("span", [[1, 2], [3, 4, 5]], MARKS, 20)
    assert window.ids == [101, 1, 2, 102, 3, 4, 5, 102]
    assert (window.second, window.read, window.skipped) == (4, (0, 4, 5, 6), 0)
    assert decisions("span", [window]) == 2


def test_a_long_context_goes_on_in_windows_that_share_a_half() -> None:
    windows = sequences("span", [[1], list(range(10, 20))], MARKS, 8)
    assert [window.skipped for window in windows] == [0, 2, 4, 6]
    for window in windows:
        assert len(window) <= 8
        assert window.ids[window.read[1] :][:-1] == list(range(10 + window.skipped, 14 + window.skipped))


def test_an_answer_is_at_its_tokens_in_the_windows_that_hold_all_of_it() -> None:
    windows = sequences("span", [[1], list(range(10, 20))], MARKS, 8)
    # Ten pieces of two characters each; the answer is pieces 5 and 6.
    places = [(2 * i, 2 * i + 2) for i in range(10)]
    found = span_targets(windows, places, (10, 14))
    assert found == [0, 0, 0, 0, 4, 5, 0, 0]
    assert span_targets(windows[:2], places, (10, 12)) == [0, 0, 6, 6]
    # Part of a piece is that piece.
    assert span_targets(windows[1:2], places, (5, 8)) == [3, 4]
    assert span_targets(windows[1:2], places, (20, 24)) == [0, 0]


def test_the_best_stretch_begins_before_it_ends_and_is_in_the_context() -> None:
    windows = sequences("span", [[1], list(range(10, 16))], MARKS, 8)
    assert [w.skipped for w in windows] == [0, 2]
    score_MT = torch.full((4, 8), -5.0)
    score_MT[2, 4], score_MT[3, 5] = 3.0, 4.0
    # An end before its beginning, and "not here", are larger and do not count.
    score_MT[3, 3], score_MT[2, 0], score_MT[3, 0] = 9.0, 9.0, 9.0
    first, last, certainty = best_span(windows, score_MT)
    assert (first, last) == (3, 4)
    expected = (score_MT[2].softmax(0)[4] * score_MT[3].softmax(0)[5]).item()
    assert certainty == pytest.approx(expected, rel=1e-5)


def test_an_answer_has_at_most_so_many_pieces() -> None:
    (window,) = sequences("span", [[1], [5] * 80], MARKS, 100)
    score_MT = torch.zeros(2, len(window))
    score_MT[0, 3], score_MT[1, 3 + LONGEST] = 5.0, 5.0
    first, last, _ = best_span([window], score_MT)
    assert last - first < LONGEST


@pytest.mark.parametrize(
    ("found", "gold", "exact", "f1"),
    [
        ("The Cat!", ["cat"], 1.0, 1.0),
        ("a black cat", ["cat", "black dog"], 0.0, 2 / 3),
        ("dog", ["cat"], 0.0, 0.0),
        ("", ["cat"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
    ],
)
def test_scores_are_squads(found: str, gold: list[str], exact: float, f1: float) -> None:
    said = answers([found], [gold])
    assert (said.exact, said.f1) == (exact, pytest.approx(f1))
    assert said.metrics() == {"eval/exact": exact, "eval/f1": pytest.approx(f1)}


def test_words_go_on_in_the_next_sequence_and_each_is_read_once() -> None:
    words = [[1], [2, 3], [], [4, 5, 6, 7, 8, 9], [10]]
    first, second, third = sequences("tagging", words, MARKS, 7)
    assert (first.ids, first.read) == ([101, 1, 2, 3, 102, 102], (1, 2, 4))
    assert (second.ids, second.read) == ([101, 4, 5, 6, 7, 8, 102], (1,))
    assert (third.ids, third.read) == ([101, 10, 102], (1,))
    assert decisions("tagging", [first, second, third]) == 5
