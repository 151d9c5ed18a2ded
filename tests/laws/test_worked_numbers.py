"""The worked numbers of policy gradients: small cases that anyone can check by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lineal.environments.shaping import SoftOverlong
from lineal.objectives.advantage import GroupMean
from lineal.objectives.algorithm import AlgorithmState
from lineal.objectives.preference import bradley_terry, preference_loss
from lineal.objectives.surrogate import Clip, Linear
from lineal.types import Rollout


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def test_importance_sampling():
    """p = (.5, .5), q = (.8, .2) on x in {1, 3}: weights .625 and 2.5."""
    log_weight = torch.log(row(0.5, 0.5)) - torch.log(row(0.8, 0.2))
    assert torch.allclose(log_weight.exp(), row(0.625, 2.5), rtol=0, atol=1e-12)
    weighted = Linear()(log_weight, row(1, 3))
    assert (row(0.8, 0.2) * weighted).sum().item() == pytest.approx(2.0, abs=1e-12)
    sample = weighted[0, [0, 0, 0, 1]]
    assert sample.mean().item() == pytest.approx(2.34375, abs=1e-12)
    weights = log_weight.exp()[0, [0, 0, 0, 1]]
    assert (sample.sum() / weights.sum()).item() == pytest.approx(2.142857, abs=1e-6)


@pytest.mark.parametrize(
    ("advantage", "ratio", "value"), [(2, 0.5, 1.0), (2, 1.5, 2.4), (-2, 0.5, -1.6), (-2, 1.5, -3.0)]
)
def test_ppo_clip(advantage, ratio, value):
    assert Clip(0.2, 0.2)(row(math.log(ratio)), row(advantage)).item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("rewards", "spread"), [((10, 1), 4.5), ((10, -10), 10.0)])
def test_baselines(rewards, spread):
    """Taking off the mean turns (10, 1) into ±4.5 and (10, -10) into ±10."""
    mask_BT = torch.ones(2, 1, dtype=torch.bool)
    rollout = Rollout(
        action_BT=torch.zeros(2, 1, dtype=torch.int64),
        mask_BT=mask_BT,
        reward_BT=row(*rewards).T,
        behaviour_logp_BT=torch.zeros(2, 1, dtype=torch.float64),
        group_B=torch.zeros(2, dtype=torch.int64),
        terminated_BT=mask_BT,
        truncated_BT=~mask_BT,
        segment_BT=torch.zeros(2, 1, dtype=torch.int64),
    )
    assert GroupMean()(rollout, AlgorithmState())[:, 0].tolist() == [spread, -spread]


def test_soft_overlong_penalty():
    """0 up to L - c, then (L - c - |y|) / c, -1 beyond L  (DAPO, eq. 13)."""
    penalty = SoftOverlong(limit=100, buffer=20)
    assert [penalty(n) for n in (1, 80, 85, 90, 100, 101)] == [0, 0, -0.25, -0.5, -1, -1]


def test_bradley_terry():
    """p_i / (p_i + p_j) with p = exp(sum r)."""
    first, second = (
        torch.tensor([1.0, 0.5], dtype=torch.float64),
        torch.tensor([-0.5, 0.5], dtype=torch.float64),
    )
    odds_first, odds_second = first.exp(), second.exp()
    assert torch.allclose(
        bradley_terry(first, second), odds_first / (odds_first + odds_second), rtol=0, atol=1e-12
    )
    assert bradley_terry(first, second)[1].item() == 0.5
    equal = preference_loss(second, second, preference=torch.full((2,), 0.5, dtype=torch.float64))
    assert equal.item() == pytest.approx(math.log(2), abs=1e-12)
