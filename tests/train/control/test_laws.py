"""Laws that a library of control is judged by and that no other test states."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.models.control import ControlConfig, ControlPolicy
from lineal.objectives.advantage import GAE
from lineal.objectives.algorithm import AlgorithmState, initial_state, update_state
from lineal.objectives.policy import named
from lineal.train.control.natural import ACTOR, fisher_product
from lineal.types import Rollout


def endless(steps: int, value: float, reward: float, cuts: list[int], *, terminated: bool = False) -> Rollout:
    """One row of a world that pays the same for ever, cut off here and there by a time limit."""
    cut_BT = torch.zeros(1, steps, dtype=torch.bool)
    cut_BT[0, cuts] = True
    never_BT, all_BT = torch.zeros_like(cut_BT), torch.full((1, steps), value, dtype=torch.float64)
    segment_BT = torch.cat([torch.zeros(1, 1, dtype=torch.int64), cut_BT.long().cumsum(1)[:, :-1]], 1)
    return Rollout(
        action_BT=torch.zeros(1, steps, dtype=torch.int64),
        mask_BT=torch.ones_like(cut_BT),
        reward_BT=torch.full((1, steps), reward, dtype=torch.float64),
        behaviour_logp_BT=torch.zeros(1, steps, dtype=torch.float64),
        group_B=torch.zeros(1, dtype=torch.int64),
        value_BT=all_BT,
        next_value_BT=all_BT,
        terminated_BT=cut_BT if terminated else never_BT,
        truncated_BT=never_BT if terminated else cut_BT,
        segment_BT=segment_BT,
    )


@given(
    st.floats(0.1, 0.99),
    st.floats(0, 1),
    st.floats(-5, 5),
    st.lists(st.integers(0, 19), max_size=5, unique=True),
)
def test_where_a_constant_reward_is_only_cut_off_its_value_is_r_over_1_minus_discount(
    discount: float, decay: float, reward: float, cuts: list[int]
) -> None:
    part, value = GAE(discount=discount, trace_decay=decay, whiten="off"), reward / (1 - discount)
    advantage_BT = part(endless(20, value, reward, cuts), AlgorithmState())
    assert float(advantage_BT.abs().max()) <= 1e-9 * max(1.0, abs(value))
    if cuts and abs(reward) > 0.1:
        over_BT = part(endless(20, value, reward, cuts, terminated=True), AlgorithmState())
        assert float(over_BT[0, cuts[0]]) == pytest.approx(reward - value, rel=1e-9), "an end is no cut"


def test_a_critic_fitted_to_its_own_targets_finds_that_value() -> None:
    part, value = GAE(discount=0.9, trace_decay=0.5, whiten="off"), 0.0
    for _ in range(200):
        value += float(part(endless(20, value, 1.0, [4, 11]), AlgorithmState()).mean())
    assert value == pytest.approx(10.0, rel=1e-6)


@pytest.mark.parametrize("start", [1e-3, 0.4, 1.0, 77.0, 1e4])
def test_the_adaptive_penalty_finds_its_target_on_a_quadratic(start: float) -> None:
    """max_x g x - beta x²/2 with KL = x²/2: the KL is (g / beta)²/2. A doubling quarters it, so it ends within a factor of 4."""
    algorithm = named("ppo-kl")
    (penalty,) = algorithm.penalty
    target, slope = penalty.target, 0.7  # type: ignore[attr-defined]
    state = AlgorithmState(beta=start)
    reached = []
    for _ in range(60):
        assert state.beta is not None
        kl = (slope / state.beta) ** 2 / 2
        reached.append(kl)
        state = update_state(algorithm, state, {"kl": kl})
    assert initial_state(algorithm).beta is not None
    assert all(target / 4 < kl < 4 * target for kl in reached[30:])
    assert math.exp(np.mean(np.log(reached[30:]))) == pytest.approx(target, rel=1.0)


def test_fisher_products_of_parts_add_up_and_masked_steps_have_none() -> None:
    """So a product of some of the steps, drawn at random, is right on average."""
    policy = ControlPolicy(ControlConfig(3, reals=2, hidden=(6,)), 1, torch.float64)
    inputs, weight_N = torch.randn(12, 3, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    v_P = torch.randn(policy.moving, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def product(rows: torch.Tensor | slice, weights_N: torch.Tensor) -> torch.Tensor:
        return fisher_product(policy, policy.read(inputs[rows], ACTOR), weights_N)(v_P)

    whole = product(slice(None), weight_N)
    order = torch.randperm(12)
    parts = [product(part, weight_N[part]) for part in order.split(5)]
    assert torch.allclose(torch.stack(parts).sum(0), whole, rtol=1e-12)
    masked_N = torch.where(torch.arange(12) < 7, weight_N, 0.0)
    assert torch.allclose(product(slice(None), masked_N), product(slice(0, 7), weight_N[:7]), rtol=1e-12)
