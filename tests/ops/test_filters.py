"""Filters against their formulas, worked numbers, and transformers' logits processors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.ops import filters

SEEDS = st.integers(0, 10_000)


def logits(seed: int, rows: int = 3, vocabulary: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)


def ids(seed: int, rows: int = 3, length: int = 9, vocabulary: int = 11) -> Tensor:
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


def counts(token_BT: Tensor, vocabulary: int = 11) -> Tensor:
    return torch.nn.functional.one_hot(token_BT, vocabulary).sum(1)


def kept(logits_BV: Tensor) -> Tensor:
    return logits_BV > -math.inf


@given(SEEDS, st.floats(0.1, 5))
def test_temperature_divides(seed: int, value: float) -> None:
    assert torch.equal(filters.temperature(logits(seed), value), logits(seed) / value)


def test_temperature_zero_keeps_the_most_probable_token_only() -> None:
    logits_BV = torch.tensor([[1.0, 5.0, 5.0, -1.0], [2.0, 0.0, 1.0, 0.0]])
    assert kept(filters.temperature(logits_BV, 0)).tolist() == [
        [False, True, False, False],
        [True] + [False] * 3,
    ]


@given(SEEDS, st.integers(1, 12))
def test_top_k_keeps_the_k_largest(seed: int, k: int) -> None:
    logits_BV = logits(seed)
    result = filters.top_k(logits_BV, k)
    assert kept(result).sum(-1).tolist() == [min(k, 11)] * 3
    for row, cut in zip(logits_BV, result, strict=True):
        assert set(cut[kept(cut)].tolist()) == set(row.topk(min(k, 11)).values.tolist())


def test_top_k_keeps_ties_with_the_last_one() -> None:
    assert kept(filters.top_k(torch.tensor([[3.0, 2.0, 2.0, 1.0]]), 2)).tolist() == [
        [True, True, True, False]
    ]


@pytest.mark.parametrize(
    ("probabilities", "p", "expected"),
    [
        ((0.70, 0.20, 0.04, 0.01, 0.05), 0.93, 3),
        ((0.70, 0.20, 0.04, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01), 0.93, 3),
        ((0.30, 0.29, 0.07, 0.05, 0.03, 0.26), 0.93, 5),
        ((0.5, 0.3, 0.2), 0.5, 1),
        ((0.5, 0.3, 0.2), 0.8, 2),
        ((0.7, 0.2, 0.1), 0.9, 2),
        ((0.5, 0.3, 0.2), 1e-9, 1),
        ((0.5, 0.3, 0.2), 1.0, 3),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(probabilities, p, expected) -> None:
    result = filters.top_p(torch.tensor([probabilities], dtype=torch.float64).log(), p)
    assert kept(result).sum() == expected
    if expected == 3 and len(probabilities) > 4 and probabilities[4] < 0.04:
        assert kept(result)[0, :3].all()


@given(SEEDS, st.floats(0.01, 0.999))
def test_top_p_is_minimal_and_sufficient(seed: int, p: float) -> None:
    logits_BV = logits(seed)
    probability_BV = logits_BV.softmax(-1)
    mask_BV = kept(filters.top_p(logits_BV, p))
    for probability, mask in zip(probability_BV, mask_BV, strict=True):
        assert probability[mask].sum() >= p - 1e-9
        assert probability[mask].sum() - probability[mask].min() < p
        assert not mask.all() or probability[mask].min() > 0
        if not mask.all():
            assert probability[~mask].max() <= probability[mask].min()


def test_top_p_takes_equal_probabilities_in_order_of_their_ids() -> None:
    assert kept(filters.top_p(torch.zeros(1, 4), 0.5)).tolist() == [[True, True, False, False]]


@given(SEEDS, st.floats(0.001, 1))
def test_min_p_compares_with_the_most_probable(seed: int, p: float) -> None:
    probability_BV = logits(seed).softmax(-1)
    ratio_BV = probability_BV / probability_BV.amax(-1, keepdim=True)
    mask_BV = kept(filters.min_p(logits(seed), p))
    assert mask_BV[ratio_BV >= p * (1 + 1e-9)].all()
    assert not mask_BV[ratio_BV < p * (1 - 1e-9)].any()


def test_repetition_divides_once_per_occurrence() -> None:
    logits_BV = torch.tensor([[4.0, -4.0, 1.0]])
    result = filters.repetition(logits_BV, torch.tensor([[2, 1, 0]]), 2.0)
    assert result.tolist() == [[1.0, -2.0, 1.0]]


def test_huggingface_repetition_lowers_both_signs_once() -> None:
    seen = torch.tensor([[True, True, False]])
    assert filters.repetition_huggingface(torch.tensor([[4.0, -4.0, 1.0]]), seen, 2.0).tolist() == [
        [2.0, -8.0, 1.0]
    ]


def test_frequency_counts_and_presence_does_not() -> None:
    logits_BV, count_BV = torch.tensor([[4.0, -4.0, 1.0]]), torch.tensor([[3, 1, 0]])
    assert filters.frequency(logits_BV, count_BV, 0.5).tolist() == [[2.5, -4.5, 1.0]]
    assert filters.presence(logits_BV, count_BV, 0.5).tolist() == [[3.5, -4.5, 1.0]]


def test_counting_penalties_are_as_exact_as_the_logits() -> None:
    logits_BV, count_BV = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[3]], dtype=torch.int32)
    assert filters.frequency(logits_BV, count_BV, 0.4).item() == 0.3 - 0.4 * 3
    assert filters.presence(logits_BV, count_BV, 0.4).item() == 0.3 - 0.4
    assert filters.repetition(logits_BV, count_BV, 1.3).item() == pytest.approx(0.3 / 1.3**3, abs=1e-16)


@given(SEEDS)
def test_values_that_turn_a_filter_off_change_nothing(seed: int) -> None:
    x, n = logits(seed), counts(ids(seed))
    for result in (
        filters.temperature(x, 1.0),
        filters.top_k(x, 0),
        filters.top_p(x, 1.0),
        filters.min_p(x, 0.0),
        filters.repetition(x, n, 1.0),
        filters.repetition_huggingface(x, n > 0, 1.0),
        filters.frequency(x, n, 0.0),
        filters.presence(x, n, 0.0),
    ):
        assert torch.equal(result, x)


@given(SEEDS, st.integers(1, 4), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_blocked_ngrams_are_those_that_occurred(seed: int, n: int, lengths: list[int]) -> None:
    history_BT = ids(seed, vocabulary=3)
    result = filters.no_repeat_ngram(logits(seed, vocabulary=4), history_BT, torch.tensor(lengths), n)
    for row, length in enumerate(lengths):
        past = history_BT[row, :length].tolist()
        grams = {tuple(past[i : i + n]) for i in range(length - n + 1)}
        tail = tuple(past[length - n + 1 :]) if n > 1 else ()
        banned = {token for token in range(4) if length >= n - 1 and (*tail, token) in grams}
        assert {v for v in range(4) if not kept(result)[row, v]} == banned


def test_a_row_in_which_all_is_blocked_stays_as_it_was() -> None:
    x = logits(0, 1, 2)
    assert torch.equal(filters.no_repeat_ngram(x, torch.tensor([[0, 1, 0]]), torch.tensor([3]), 1), x)


def test_what_lies_beyond_a_rows_length_is_not_read() -> None:
    x, history_BT = logits(0, 1), torch.tensor([[1, 2, 1, 2, 5, 99_999]])
    result = filters.no_repeat_ngram(x, history_BT, torch.tensor([3]), 2)
    assert (~kept(result)).nonzero()[:, 1].tolist() == [2]


@pytest.fixture(scope="module")
def peers():
    """transformers' processors, by the call that should equal them."""
    transformers = pytest.importorskip("transformers")
    process = transformers.generation.logits_process
    return {
        "temperature": (process.TemperatureLogitsWarper(0.7), lambda i, x: filters.temperature(x, 0.7)),
        "top_k": (process.TopKLogitsWarper(4), lambda i, x: filters.top_k(x, 4)),
        "top_p": (process.TopPLogitsWarper(0.8), lambda i, x: filters.top_p(x, 0.8)),
        "min_p": (process.MinPLogitsWarper(0.1), lambda i, x: filters.min_p(x, 0.1)),
        "repetition": (
            process.RepetitionPenaltyLogitsProcessor(1.7),
            lambda i, x: filters.repetition_huggingface(x, counts(i) > 0, 1.7),
        ),
        "ngram": (
            process.NoRepeatNGramLogitsProcessor(2),
            lambda i, x: filters.no_repeat_ngram(x, i, torch.full((len(i),), i.shape[1]), 2),
        ),
    }


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "min_p", "repetition", "ngram"])
def test_it_is_what_transformers_computes(peers, name: str) -> None:
    theirs, ours = peers[name]
    for seed in range(40):
        x, token_BT = logits(seed).float(), ids(seed, vocabulary=5)
        torch.testing.assert_close(ours(token_BT, x), theirs(token_BT, x.clone()))
