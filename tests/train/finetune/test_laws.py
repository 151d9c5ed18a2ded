"""Laws of fine-tuning's inputs and figures: nothing lost, nothing read twice, and what counting or scikit-learn gives."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lineal.train.finetune.answers import LONGEST, answers, best_span, span_targets
from lineal.train.finetune.inputs import (
    ClassMarks,
    Framed,
    Framing,
    Marks,
    decisions,
    lay_out,
    micro_batches,
    sequences,
)
from lineal.train.finetune.scores import BINS, agreement, scores

FRAMINGS = st.sampled_from([Marks(900, 901, 902), ClassMarks(900, 902)])
IDS = st.lists(st.integers(1, 99), max_size=25)


def inside(sequence: Framed) -> list[int]:
    """A sequence without the tokens around its texts."""
    return [token for token in sequence.ids if token < 900]


@given(
    st.lists(st.lists(st.integers(1, 99), max_size=9), min_size=1, max_size=12), st.integers(3, 14), FRAMINGS
)
def test_every_word_is_read_once_and_in_order(words: list[list[int]], context: int, marks: Framing) -> None:
    found = sequences("tagging", words, marks, context)
    room = context - marks.added(False)
    assert all(len(sequence) <= context for sequence in found)
    assert decisions("tagging", found) == len(words)
    kept = [word[:room] or [marks.filler] for word in words]
    assert [t for s in found for t in s.ids[1:-1]] == [token for word in kept for token in word]
    read = [sequence.ids[place] for sequence in found for place in sequence.read]
    assert read == [word[-1 if marks.last_piece else 0] for word in kept]
    assert all(a < b for sequence in found for a, b in pairwise(sequence.read))


@given(IDS, st.lists(st.integers(1, 99), min_size=1, max_size=60), st.integers(8, 24), FRAMINGS)
def test_windows_hold_all_of_a_context_and_say_where(
    question: list[int], context: list[int], length: int, marks: Framing
) -> None:
    found = sequences("span", [question, context], marks, length)
    seen: set[int] = set()
    for window in found:
        assert len(window) <= length and window.read[0] == 0
        places = window.read[1:]
        # What stands at a place that is read is the piece of the context that it says.
        assert [window.ids[p] for p in places] == context[window.skipped : window.skipped + len(places)]
        seen |= set(range(window.skipped, window.skipped + len(places)))
    assert seen == set(range(len(context)))
    # Two neighbours in a window of at least three pieces share a half, so that a short answer is whole in one of them.
    assert all(b.skipped - a.skipped <= max(1, len(a.read[1:]) // 2 + 1) for a, b in pairwise(found))


@given(IDS, st.lists(IDS, min_size=2, max_size=3), st.integers(5, 30), FRAMINGS)
def test_choices_are_cut_only_where_they_must_be(
    before: list[int], choices: list[list[int]], context: int, marks: Framing
) -> None:
    room = context - marks.added(True)
    for sequence, choice in zip(
        sequences("choice", [before, *choices], marks, context), choices, strict=True
    ):
        both = inside(sequence)
        assert len(both) == min(room, len(before) + len(choice))
        if len(before) + len(choice) <= room:
            assert both == before + choice
        # The end of what the choice continues, and the beginning of the choice.
        size = len([t for t in sequence.ids[: sequence.second] if t < 900])
        assert before[len(before) - size :] == both[:size] and choice[: len(both) - size] == both[size:]


@given(st.lists(st.lists(IDS, min_size=1, max_size=3), min_size=1, max_size=8), st.integers(1, 80))
def test_groups_hold_every_row_once_within_their_budget(rows: list[list[list[int]]], budget: int) -> None:
    groups = micro_batches(rows, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(rows)))
    for group in groups:
        widest = max(len(part) for i in group for part in rows[i])
        assert len(group) == 1 or widest * sum(len(rows[i]) for i in group) <= budget
    sizes = [max(map(len, rows[i])) for group in groups for i in group]
    assert sizes == sorted(sizes)


@given(st.lists(IDS.filter(bool), min_size=1, max_size=5), FRAMINGS)
def test_a_rectangle_holds_its_sequences(rows: list[list[int]], marks: Framing) -> None:
    framed = [marks.enclose(row, row[:2]) for row in rows]
    inputs = lay_out([[sequence] for sequence in framed])
    for i, sequence in enumerate(framed):
        assert inputs.token_NT[i][inputs.mask_NT[i]].tolist() == sequence.ids
        assert inputs.token_NT[i][~inputs.mask_NT[i]].sum() == 0
        second = [k >= sequence.second for k in range(len(sequence))]
        assert inputs.segment_NT[i][inputs.mask_NT[i]].bool().tolist() == second
        assert inputs.last_N[i] == len(sequence) - 1
    assert not inputs.segment_NT[~inputs.mask_NT].any()


@given(st.data(), st.integers(1, 3), st.integers(1, 45))
def test_the_best_stretch_is_the_best_of_all(data: st.DataObject, windows: int, length: int) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10_000)))
    row = [Framed([0] * (length + 2), 1, (0, *range(2, length + 2)), 3 * i) for i in range(windows)]
    score_MT = torch.randn(2 * windows, length + 2, generator=generator)
    best = max(
        (score_MT[2 * w, a + 2].item() + score_MT[2 * w + 1, b + 2].item(), w, a, b)
        for w in range(windows) for a in range(length) for b in range(a, min(length, a + LONGEST))
    )  # fmt: skip
    first, last, sure = best_span(row, score_MT)
    value, window, begin, end = best
    assert (first, last) == (begin + 3 * window, end + 3 * window)
    chance_2T = score_MT.view(windows, 2, -1)[window].softmax(-1)
    assert sure == pytest.approx((chance_2T[0, begin + 2] * chance_2T[1, end + 2]).item(), rel=1e-4)
    assert math.isfinite(value)


def test_a_window_without_context_has_no_answer() -> None:
    row = [Framed([1, 2], 2, (0,), 0), Framed([1, 2, 3], 2, (0, 2), 4)]
    assert best_span(row, torch.zeros(4, 3))[:2] == (4, 4)
    assert best_span(row[:1], torch.zeros(2, 3)) == (0, 0, 0.0)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=25), st.data())
def test_an_answer_is_found_in_every_window_that_holds_it(sizes: list[int], data: st.DataObject) -> None:
    places, at = [], 0
    for size in sizes:
        places.append((at, at + size))
        at += size + 1
    first = data.draw(st.integers(0, len(sizes) - 1))
    last = data.draw(st.integers(first, len(sizes) - 1))
    answer = (places[first][0], places[last][1])
    row = sequences("span", [[7, 7], list(range(1, 1 + len(sizes)))], ClassMarks(900, 902), 12)
    targets = span_targets(row, places, answer)
    for window, (begin, end) in zip(row, zip(targets[::2], targets[1::2], strict=True), strict=True):
        pieces = window.ids[begin : end + 1] if begin else []
        held = range(window.skipped, window.skipped + len(window.read) - 1)
        whole = first in held and last in held
        assert pieces == (list(range(1 + first, 2 + last)) if whole else [])


@given(st.text("aAn the.,!", max_size=12), st.text("aAn the.,!", max_size=12))
def test_answers_are_compared_both_ways_alike(one: str, other: str) -> None:
    forth, back = answers([one], [(other,)]), answers([other], [(one,)])
    assert forth == back and 0 <= forth.exact <= forth.f1 <= 1
    assert answers([one], [(one,)]).f1 == 1
    assert answers([one], [(other, one)]).exact == 1


@given(st.data(), st.integers(2, 5), st.integers(1, 60))
def test_scores_are_scikit_learn_s(data: st.DataObject, classes: int, rows: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10_000)))
    probability_NC = (3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)).softmax(-1)
    target_N = torch.randint(classes, (rows,), generator=generator)
    names, said_N = [f"c{i}" for i in range(classes)], probability_NC.argmax(-1)
    found = scores(probability_NC, target_N, names)
    labels = list(range(classes))
    each = metrics.precision_recall_fscore_support(target_N, said_N, labels=labels, zero_division=0)
    for i, part in enumerate(found.classes):
        wanted = [column[i] for column in each]
        assert [part.precision, part.recall, part.f1, part.support] == pytest.approx(wanted)
    assert found.macro_f1 == pytest.approx(each[2].mean())
    assert found.loss == pytest.approx(metrics.log_loss(target_N, probability_NC.numpy(), labels=labels))
    matrix = metrics.confusion_matrix(target_N, said_N, labels=labels)
    assert [list(row) for row in found.confusion_CC] == matrix.tolist()
    assert found.accuracy == pytest.approx(metrics.accuracy_score(target_N, said_N))
    # Calibration, bin by bin, from its definition.
    confidence_N = probability_NC.amax(-1)
    error = 0.0
    for b in range(BINS):
        inside_N = (confidence_N >= b / BINS) & ((confidence_N < (b + 1) / BINS) | (b == BINS - 1))
        if inside_N.any():
            right_N = (said_N == target_N)[inside_N].double()
            error += (
                inside_N.sum().item() / rows * (right_N.mean() - confidence_N[inside_N].mean()).abs().item()
            )
    assert found.calibration_error == pytest.approx(error, abs=1e-9)
    assert sum(n for _, _, n in found.bins) == rows


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30))
def test_agreement_is_scipy_s_ties_included(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    one, other = (torch.tensor(part, dtype=torch.float64) for part in zip(*pairs, strict=True))
    assume(one.std() > 0 and other.std() > 0)
    found = agreement(one, other)
    assert found.pearson == pytest.approx(stats.pearsonr(one, other).statistic, abs=1e-9)
    assert found.spearman == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-9)
    assert found.squared_error == pytest.approx((one - other).square().mean().item())


def test_scores_that_are_all_the_same_agree_with_nothing() -> None:
    found = agreement(torch.ones(4), torch.arange(4.0))
    assert math.isnan(found.pearson) and math.isnan(found.spearman)
