from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.objectives.algorithm import AlgorithmState, Critic, prepare, summarise, value_loss
from lineal.objectives.policy import ALGORITHMS
from lineal.objectives.value import squared_error
from lineal.types import Scores

numbers = st.floats(-4, 4)


@given(numbers, numbers, numbers, st.floats(0.01, 2))
def test_the_clipped_error_is_the_larger_of_two(value, target, old, clip):
    tensors = [torch.tensor([[x]], dtype=torch.float64) for x in (value, target, old)]
    held = old + min(max(value - old, -clip), clip)
    plain = squared_error(*tensors, clip=0.0).item()
    assert plain == pytest.approx((value - target) ** 2)
    clipped = squared_error(*tensors, clip=clip).item()
    assert clipped == pytest.approx(max((value - target) ** 2, (held - target) ** 2))
    assert clipped >= plain


def test_the_loss_is_a_mean_over_counted_steps_and_its_gradient_too(make_rollout):
    ppo = ALGORITHMS["ppo"]
    rollout = make_rollout([1.0, 0.0], [0, 1], lengths=[3, 1], width=4)
    rollout = replace(rollout, value_BT=torch.full_like(rollout.reward_BT, 0.25))
    batch = prepare(ppo, rollout, AlgorithmState())
    assert batch.return_BT is not None
    value_BT = torch.zeros_like(rollout.reward_BT).requires_grad_()
    scores = Scores(torch.zeros_like(rollout.reward_BT), value_BT=value_BT)
    loss, sums = value_loss(Critic(), scores, batch)
    wanted = batch.return_BT[rollout.mask_BT].square().mean()
    assert loss.item() == pytest.approx(wanted.item())
    loss.backward()
    assert value_BT.grad is not None
    assert torch.allclose(value_BT.grad, -2 * batch.return_BT * rollout.mask_BT / 4)
    means = summarise(sums)
    assert means["value_loss"] == pytest.approx(wanted.item())


def test_returns_are_advantage_plus_value_before_whitening(make_rollout):
    ppo = ALGORITHMS["ppo"]
    rollout = make_rollout([1.0, 0.0, 3.0], [0, 1, 2])
    rollout = replace(rollout, value_BT=torch.rand(rollout.reward_BT.shape, dtype=torch.float64))
    batch = prepare(ppo, rollout, AlgorithmState())
    raw = ppo.advantage.raw(rollout, AlgorithmState())
    assert rollout.value_BT is not None
    assert batch.return_BT is not None
    assert torch.allclose(batch.return_BT[rollout.mask_BT], (raw + rollout.value_BT)[rollout.mask_BT])
    assert not torch.allclose(batch.advantage_BT, raw)


def test_explained_variance():
    """1 for a perfect critic, 0 for one that knows only the mean."""
    base = {"value_steps": 4.0, "return": 10.0, "return_square": 30.0, "value_loss": 0.0}
    assert summarise(base | {"residual": 0.0, "residual_square": 0.0})["explained_variance"] == 1
    assert summarise(base | {"residual": 0.0, "residual_square": 5.0})["explained_variance"] == pytest.approx(
        0
    )
    constant = base | {"return": 8.0, "return_square": 16.0, "residual": 0.0, "residual_square": 0.0}
    assert str(summarise(constant)["explained_variance"]) == "nan"


def test_what_is_missing_is_named(make_rollout):
    batch = prepare(ALGORITHMS["grpo"], make_rollout([1.0, 0.0], [0, 0]), AlgorithmState())
    with pytest.raises(UsageError, match="value_BT"):
        value_loss(Critic(), Scores(batch.advantage_BT, value_BT=batch.advantage_BT), batch)


def test_critic_settings_are_checked():
    with pytest.raises(UsageError, match="'head' or 'separate'"):
        Critic(kind="tail")
    with pytest.raises(UsageError, match="value_clip"):
        Critic(clip=-0.1)
