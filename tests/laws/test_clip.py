"""Where a clipped surrogate pulls and where it does not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.objectives.surrogate import Clip, ClippedWeight, Linear, LogLikelihood, Surrogate

ratios = st.floats(0.05, 20.0)
advantages = st.floats(-5.0, 5.0)
bounds = st.floats(0.01, 0.9)


def evaluate(surrogate: Surrogate, ratio: float, advantage: float) -> tuple[float, float]:
    """The value, and its derivative in log π."""
    log_ratio_BT = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    value_BT = surrogate(log_ratio_BT, torch.tensor([[advantage]], dtype=torch.float64))
    slope_BT = torch.autograd.grad(value_BT.sum(), log_ratio_BT)[0]
    return value_BT.item(), slope_BT.item()


def acts(surrogate: Surrogate, ratio: float, advantage: float) -> tuple[bool, bool]:
    log_ratio_BT = torch.tensor([[math.log(ratio)]], dtype=torch.float64)
    low_BT, high_BT = surrogate.clipped(log_ratio_BT, torch.tensor([[advantage]], dtype=torch.float64))
    return bool(low_BT), bool(high_BT)


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "pull"),
    [
        (2.0, 1.5, 2.4, 0.0),
        (-2.0, 0.5, -1.6, 0.0),
        (2.0, 0.5, 1.0, 2.0 * 0.5),
        (-2.0, 1.5, -3.0, -2.0 * 1.5),
    ],
)
def test_the_four_corners(advantage, ratio, value, pull):
    """Zero gradient at two corners; A ∇w = A w ∇log π at the other two."""
    got_value, got_pull = evaluate(Clip(0.2, 0.2), ratio, advantage)
    assert got_value == pytest.approx(value, abs=1e-12)
    assert got_pull == pytest.approx(pull, abs=1e-12)
    assert acts(Clip(0.2, 0.2), ratio, advantage) == (pull == 0 and ratio < 1, pull == 0 and ratio > 1)


@given(ratios, advantages, bounds, bounds)
def test_clip_is_its_formula_and_pulls_only_where_it_says(ratio, advantage, low, high):
    value, pull = evaluate(Clip(low, high), ratio, advantage)
    ratio = math.exp(math.log(ratio))
    held = min(max(ratio, 1 - low), 1 + high)
    assert value == pytest.approx(min(ratio * advantage, held * advantage), rel=1e-12, abs=1e-300)
    clipped = any(acts(Clip(low, high), ratio, advantage))
    assert pull == (0 if clipped else pytest.approx(ratio * advantage, rel=1e-12, abs=1e-300))


@given(ratios, advantages)
def test_clip_never_exceeds_linear(ratio, advantage):
    """The minimum is a lower bound of the unclipped surrogate."""
    assert evaluate(Clip(0.2, 0.2), ratio, advantage)[0] <= evaluate(Linear(), ratio, advantage)[0] + 1e-12


def test_clip_higher_lets_rising_tokens_rise_further():
    assert evaluate(Clip(0.2, 0.2), 1.25, 1.0)[1] == 0
    assert evaluate(Clip(0.2, 0.28), 1.25, 1.0)[1] == pytest.approx(1.25)
    assert evaluate(Clip(0.2, 0.28), 1.3, 1.0)[1] == 0


@given(ratios, advantages, st.floats(1.95, 6.0))
def test_dual_clip_bounds_the_pull_of_a_large_ratio(ratio, advantage, dual):
    surrogate = Clip(0.2, 0.2, dual)
    value, pull = evaluate(surrogate, ratio, advantage)
    single = evaluate(Clip(0.2, 0.2), ratio, advantage)[0]
    assert value == pytest.approx(max(single, dual * advantage) if advantage < 0 else single, abs=1e-300)
    if advantage < 0 and ratio > dual * (1 + 1e-9):
        assert pull == 0
        assert acts(surrogate, ratio, advantage) == (False, True)


@given(ratios, advantages)
def test_a_clipped_weight_always_pulls_by_the_clipped_weight(ratio, advantage):
    """CISPO: the gradient is clip(w) A ∇log π everywhere, also where PPO's is zero."""
    _, pull = evaluate(ClippedWeight(1.0, 4.0), ratio, advantage)
    assert pull == pytest.approx(min(math.exp(math.log(ratio)), 5.0) * advantage, rel=1e-12, abs=1e-300)


@given(ratios, advantages)
def test_a_clipped_weight_says_where_it_clips(ratio, advantage):
    low, high = acts(ClippedWeight(0.2, 4.0), ratio, advantage)
    assert low == (ratio < 0.8 and advantage != 0)
    assert high == (ratio > 5.0 and advantage != 0)


def test_a_bound_of_one_below_is_no_bound():
    for advantage in (-1.0, 1.0):
        assert acts(ClippedWeight(1.0, 4.0), 1e-9, advantage) == (False, False)


@given(
    ratios,
    advantages,
    st.sampled_from([Clip(0.2, 0.28), Clip(0.1, 0.1, dual=3.0), Linear(), LogLikelihood(), ClippedWeight()]),
)
def test_a_slope_that_is_written_out_is_autograds(ratio, advantage, surrogate):
    log_ratio_BT = torch.tensor([[math.log(ratio), 0.0]], dtype=torch.float64)
    advantage_BT = torch.tensor([[advantage, advantage]], dtype=torch.float64)
    wanted_BT = Surrogate.slope(surrogate, log_ratio_BT, advantage_BT)
    assert torch.allclose(surrogate.slope(log_ratio_BT, advantage_BT), wanted_BT, rtol=1e-12, atol=1e-14)
