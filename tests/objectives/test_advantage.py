from __future__ import annotations

import statistics as stats
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.objectives.advantage import GAE, FullReturn, GroupMean, GroupNormalised, RewardToGo
from lineal.objectives.algorithm import AlgorithmState, Critic
from lineal.objectives.baseline import Learned, LeaveOneOut, NoBaseline, RunningMean, mean_return
from lineal.ops.masked import masked_mean, masked_var

STATE = AlgorithmState()
rewards_and_groups = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 3)), min_size=2, max_size=12)


def first(advantage_BT):
    """The advantage of each completion, after checking that its steps agree."""
    return advantage_BT[:, 0].tolist()


@given(pairs=rewards_and_groups)
def test_group_advantages_are_their_formulas(make_rollout, pairs):
    rewards, groups = [r for r, _ in pairs], [g for _, g in pairs]
    rollout = make_rollout(rewards, groups)
    found = {
        "mean": first(GroupMean()(rollout, STATE)),
        "sample": first(GroupNormalised()(rollout, STATE)),
        "population": first(GroupNormalised(ddof=0, eps=1e-6)(rollout, STATE)),
        "others": first(FullReturn(LeaveOneOut())(rollout, STATE)),
    }
    for i, (reward, group) in enumerate(pairs):
        peers = [r for r, g in pairs if g == group]
        centred = reward - stats.fmean(peers)
        others = [r for j, (r, g) in enumerate(pairs) if g == group and j != i]
        assert found["mean"][i] == pytest.approx(centred, abs=1e-9)
        assert found["others"][i] == pytest.approx(reward - stats.fmean(others) if others else 0.0, abs=1e-9)
        if len(set(peers)) == 1:
            assert found["sample"][i] == found["population"][i] == 0
        elif stats.stdev(peers) > 1e-3:
            assert found["sample"][i] == pytest.approx(
                centred / (stats.stdev(peers) + 1e-4), rel=1e-9, abs=1e-9
            )
            assert found["population"][i] == pytest.approx(
                centred / (stats.pstdev(peers) + 1e-6), rel=1e-9, abs=1e-9
            )


@pytest.mark.parametrize("advantage", [GroupMean(), GroupNormalised(), FullReturn(LeaveOneOut())])
def test_group_advantages_stand_at_every_counted_step_and_nowhere_else(make_rollout, advantage):
    rollout = make_rollout([1.0, 0.0, 0.5, 0.25], [0, 0, 1, 1])
    found = advantage(rollout, STATE)
    assert found[~rollout.mask_BT].abs().sum() == 0
    for row, mask in zip(found, rollout.mask_BT):
        assert row[mask].unique().numel() == 1


@pytest.mark.parametrize("advantage", [GroupMean(), GroupNormalised(), FullReturn(LeaveOneOut())])
def test_a_completion_without_counted_tokens_is_no_member_of_its_group(make_rollout, advantage):
    """Dropped for a failing reward, say: the others must not be compared with it."""
    with_absent = make_rollout([1.0, 0.0, 9.0, 0.5], [0, 0, 0, 0], lengths=[2, 2, 0, 3])
    without = make_rollout([1.0, 0.0, 0.5], [0, 0, 0], lengths=[2, 2, 3])
    found = advantage(with_absent, STATE)
    assert torch.allclose(found[[0, 1, 3]], advantage(without, STATE))
    assert found[2].abs().sum() == 0


def test_leave_one_out_alone_in_its_group_pulls_nowhere(make_rollout):
    assert first(FullReturn(LeaveOneOut())(make_rollout([3.0, 1.0, 2.0], [0, 1, 1]), STATE)) == [0, -1, 1]


def test_reward_to_go_and_full_return(make_rollout):
    rollout = make_rollout([0.0], [0], lengths=[3], width=3)
    rollout = replace(rollout, reward_BT=torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64))
    assert RewardToGo()(rollout, STATE).tolist() == [[7, 6, 4]]
    assert RewardToGo(discount=0.5)(rollout, STATE).tolist() == [[3, 4, 4]]
    assert FullReturn()(rollout, STATE).tolist() == [[7, 7, 7]]
    assert FullReturn(discount=0.5)(rollout, STATE).tolist() == [[3, 3, 3]]


def test_running_mean_comes_from_the_state(make_rollout):
    rollout = make_rollout([3.0, 1.0], [0, 1])
    seen = AlgorithmState(baseline_sum=6.0, baseline_count=4.0)
    assert first(RewardToGo(RunningMean())(rollout, seen)) == [1.5, -0.5]
    assert first(RewardToGo(RunningMean())(rollout, STATE)) == [3.0, 1.0]
    assert mean_return(RewardToGo().returns(rollout), rollout) == (4.0, 2.0)


def test_learned_baseline_and_gae_read_the_critic(make_rollout):
    rollout = make_rollout([2.0], [0], lengths=[2], width=2)
    with pytest.raises(UsageError, match="value_BT"):
        RewardToGo(Learned())(rollout, STATE)
    with pytest.raises(UsageError, match="value_BT"):
        GAE()(rollout, STATE)
    rollout = replace(rollout, value_BT=torch.tensor([[0.5, 1.0]], dtype=torch.float64))
    assert RewardToGo(Learned())(rollout, STATE).tolist() == [[1.5, 1.0]]
    assert GAE(discount=1.0, trace_decay=1.0, whiten="off")(rollout, STATE).tolist() == [[1.5, 1.0]]
    assert GAE(discount=0.5, trace_decay=0.0, whiten="off")(rollout, STATE).tolist() == [[0.0, 1.0]]


def test_a_capped_text_does_not_bootstrap_and_a_truncated_environment_does(make_rollout):
    """A text's outcome reward is in, so nothing comes after the cap; an environment would have gone on."""
    advantage = GAE(discount=1.0, trace_decay=1.0, whiten="off")
    text = make_rollout([2.0], [0], lengths=[2], width=2)
    value = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    capped = replace(text, value_BT=value, terminated_BT=~text.mask_BT, truncated_BT=text.terminated_BT)
    assert advantage(capped, STATE).tolist() == [[1.5, 1.0]]
    after = torch.tensor([[1.0, 7.0]], dtype=torch.float64)
    environment = replace(capped, next_value_BT=after)
    assert advantage(environment, STATE).tolist() == [[8.5, 8.0]]
    terminated = replace(replace(text, value_BT=value), next_value_BT=after)
    assert advantage(terminated, STATE).tolist() == [[1.5, 1.0]]


def test_whitening_over_the_rollout(make_rollout):
    rollout = make_rollout([1.0, 0.0, 2.0, -1.0], [0, 1, 2, 3])
    rollout = replace(rollout, value_BT=torch.zeros_like(rollout.reward_BT))
    white = GAE()(rollout, STATE)
    assert masked_mean(white, rollout.mask_BT).abs() < 1e-12
    assert masked_var(white, rollout.mask_BT).item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(GAE(whiten="minibatch")(rollout, STATE), GAE().raw(rollout, STATE))


def test_settings_are_checked():
    for make, match in (
        (lambda: GAE(whiten="batch"), "rollout"),
        (lambda: GAE(discount=1.1), "discount is 1.1"),
        (lambda: GAE(trace_decay=-0.1), "trace_decay"),
        (lambda: GroupNormalised(ddof=2), "ddof"),
        (lambda: RunningMean(decay=1.5), "decay"),
        (lambda: GroupMean().with_critic(Critic()), "no critic"),
    ):
        with pytest.raises(UsageError, match=match):
            make()


def test_parts_with_a_critic_can_be_given_another():
    critic = Critic(clip=0.2)
    assert GAE().with_critic(critic).critic_part == critic
    assert RewardToGo(Learned()).with_critic(critic).critic_part == critic
    assert FullReturn(Learned()).with_critic(critic).critic_part == critic
    assert RewardToGo(NoBaseline()).critic_part is None


def test_returns_are_refused_where_there_is_no_baseline(make_rollout):
    with pytest.raises(UsageError, match="FullReturn or RewardToGo"):
        GroupMean().returns(make_rollout([1.0], [0]))
