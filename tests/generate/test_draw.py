"""The integer inverse of the cumulative distribution, against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.generate import draw as module
from lineal.generate.draw import BLOCK, draw, greedy, temper
from lineal.generate.random import BITS, keys, uniform_int


def logp(seed: int, rows: int, vocabulary: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)).log_softmax(-1)


def obvious(logp_V: Tensor, uniform: int) -> int:
    weights = [round(Fraction(p) * 2**BITS) for p in logp_V.exp().tolist()]
    point, edge = min(uniform, sum(weights) - 1), 0
    for token, weight in enumerate(weights):
        edge += weight
        if edge > point:
            return token
    raise AssertionError("unreachable")


@given(
    st.integers(0, 10_000), st.integers(1, 40), st.lists(st.integers(0, 2**BITS - 1), min_size=1, max_size=5)
)
def test_it_is_the_obvious_search(seed: int, vocabulary: int, points: list[int]) -> None:
    logp_BV = logp(seed, len(points), vocabulary)
    expected = [obvious(row, point) for row, point in zip(logp_BV, points, strict=True)]
    assert draw(logp_BV, torch.tensor(points)).tolist() == expected


@pytest.mark.parametrize("vocabulary", [4 * BLOCK + 1, 5 * BLOCK, 9 * BLOCK - 3])
def test_two_levels_find_what_one_finds(vocabulary: int) -> None:
    logp_BV = logp(0, 24, vocabulary)
    uniform_B = uniform_int(keys([(0, 0, i) for i in range(24)]), torch.tensor(0))
    uniform_B[0], uniform_B[1] = 0, 2**BITS - 1
    edge_BV = logp_BV.exp().mul(2**BITS).round().long().cumsum(-1)
    assert draw(logp_BV, uniform_B).tolist() == module._search(edge_BV, uniform_B).tolist()


def test_large_batches_are_drawn_in_parts(monkeypatch) -> None:
    logp_BV, uniform_B = logp(1, 7, 12), uniform_int(keys([(0, 0, i) for i in range(7)]), torch.tensor(0))
    whole = draw(logp_BV, uniform_B)
    monkeypatch.setattr(module, "_ELEMENTS", 30)
    assert torch.equal(draw(logp_BV, uniform_B), whole)


def test_every_point_falls_to_the_token_whose_interval_holds_it() -> None:
    logp_BV = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log().expand(8, 4)
    eighths = torch.arange(8) * 2 ** (BITS - 3)
    assert draw(logp_BV, eighths).tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    assert draw(logp_BV, eighths + 2 ** (BITS - 3) - 1).tolist() == [0, 0, 0, 0, 1, 1, 2, 3]


def test_forbidden_tokens_are_never_drawn_not_even_at_the_ends() -> None:
    logp_BV = torch.tensor([[float("-inf"), 0.5, 0.5, float("-inf")]], dtype=torch.float64)
    logp_BV = logp_BV.where(logp_BV == float("-inf"), torch.tensor(0.5).double().log())
    assert draw(logp_BV, torch.tensor([0])).tolist() == [1]
    assert draw(logp_BV, torch.tensor([2**BITS - 1])).tolist() == [2]


def test_frequencies_are_the_probabilities() -> None:
    probability_V, rows = logp(5, 1, 9, 1.0).exp()[0], 40_000
    uniform_B = uniform_int(keys([(3, 0, i) for i in range(rows)]), torch.tensor(0))
    drawn = torch.bincount(draw(probability_V.log().expand(rows, 9), uniform_B), minlength=9)
    # Chi-squared with 8 degrees of freedom: mean 8, standard deviation 4.
    assert ((drawn - rows * probability_V) ** 2 / (rows * probability_V)).sum() < 8 + 5 * 4


def test_a_flat_distribution_over_150_000_tokens_gives_each_its_width() -> None:
    vocabulary = 150_000
    flat_BV = torch.full((1, vocabulary), 1 / vocabulary, dtype=torch.float64).log()
    middle = [int((token + 0.5) / vocabulary * 2**BITS) for token in (0, 1, 77_777, 149_998, 149_999)]
    found = [draw(flat_BV, torch.tensor([point])).item() for point in middle]
    assert found == [0, 1, 77_777, 149_998, 149_999]


def test_nan_gives_some_token_and_no_crash() -> None:
    token = draw(torch.full((2, 5), float("nan"), dtype=torch.float64), torch.tensor([0, 2**BITS - 1]))
    assert ((token >= 0) & (token < 5)).all()


def test_greedy_and_temper() -> None:
    logits_BV = torch.tensor([[1.0, 3.0, 2.0]])
    assert greedy(logits_BV).tolist() == [1]
    half = (logits_BV.double() / 0.5).log_softmax(-1)
    torch.testing.assert_close(temper(logits_BV, 0.5), half, rtol=0, atol=1e-15)
    assert temper(logits_BV.bfloat16(), 1.0).dtype == torch.float64
    assert torch.equal(temper(logits_BV, 0), temper(logits_BV, 1))
