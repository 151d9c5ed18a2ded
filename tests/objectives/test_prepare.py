from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lineal.errors import UsageError
from lineal.objectives.advantage import GAE
from lineal.objectives.algorithm import Adam, AlgorithmState, complete, correct, override, prepare, split
from lineal.objectives.penalty import ReferenceKL
from lineal.objectives.policy import ALGORITHMS, VARIANTS
from lineal.objectives.reduction import PerBudget
from lineal.ops.masked import masked_mean

STATE = AlgorithmState()
grpo, ppo, dapo = ALGORITHMS["grpo"], ALGORITHMS["ppo"], ALGORITHMS["dapo"]


@pytest.fixture
def rollout(make_rollout):
    rewards = [float(i % 3) for i in range(12)]
    made = make_rollout(rewards, [i // 2 for i in range(12)])
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(made.reward_BT.shape, generator=generator, dtype=torch.float64)
    return replace(made, value_BT=value, old_logp_BT=-value.abs(), reference_logp_BT=-value.abs() - 0.5)


def test_the_whole_rollout_is_one_batch(rollout):
    batch = prepare(grpo, rollout, STATE)
    assert torch.equal(batch.row_B, torch.arange(12))
    assert batch.weight_BT.sum().item() == pytest.approx(1)
    assert batch.step_weight_BT.sum().item() == pytest.approx(1)
    assert batch.return_BT is None
    assert split(grpo, batch)[0].row_B.tolist() == list(range(12))


def test_numbers_are_in_the_rewards_dtype(rollout):
    single = replace(rollout, reward_BT=rollout.reward_BT.float(), value_BT=rollout.value_BT.float())
    for algorithm in (grpo, ppo, ALGORITHMS["rloo"], ALGORITHMS["reinforce"]):
        batch = prepare(algorithm, single, STATE)
        assert (
            batch.advantage_BT.dtype == batch.weight_BT.dtype == batch.step_weight_BT.dtype == torch.float32
        )


def test_complete_fills_in_the_budget_once():
    open_one = ALGORITHMS["dr-grpo"]
    assert complete(open_one, 64).reduction == PerBudget(64)
    assert complete(complete(open_one, 64), 32).reduction == PerBudget(64)
    assert complete(grpo, 64) is grpo


def test_minibatches_are_a_function_of_seed_and_epoch(rollout):
    batch = prepare(dapo, rollout, STATE)
    algorithm = replace(dapo, step=Adam(minibatches=3))

    def rows(seed: int, epoch: int) -> list[list[int]]:
        return [part.row_B.tolist() for part in split(algorithm, batch, seed, epoch)]

    assert rows(1, 0) == rows(1, 0)
    assert rows(1, 0) != rows(1, 1)
    assert rows(1, 0) != rows(2, 0)
    assert [len(part) for part in rows(1, 0)] == [4, 4, 4]
    for part in rows(3, 1):
        assert {row ^ 1 for row in part} == set(part)


def test_more_minibatches_than_groups_gives_one_group_each(rollout):
    parts = split(dapo, prepare(dapo, rollout, STATE))
    assert [part.row_B.shape[0] for part in parts] == [2] * 6
    assert all(part.weight_BT.sum().item() == pytest.approx(1) for part in parts)


def test_unequal_cuts_lose_nothing(rollout):
    parts = split(replace(dapo, step=Adam(minibatches=4)), prepare(dapo, rollout, STATE), seed=5)
    assert sorted(row for part in parts for row in part.row_B.tolist()) == list(range(12))


def test_whitening_per_minibatch(rollout):
    algorithm = replace(ppo, advantage=GAE(whiten="minibatch"), step=Adam(minibatches=3))
    batch = prepare(algorithm, rollout, STATE)
    assert torch.equal(batch.advantage_BT, algorithm.advantage.raw(rollout, STATE))
    for part in split(algorithm, batch, seed=1):
        assert masked_mean(part.advantage_BT, part.mask_BT).abs() < 1e-12
    one = replace(algorithm, step=Adam())
    assert masked_mean(split(one, batch)[0].advantage_BT, batch.mask_BT).abs() < 1e-12


def test_kl_in_the_reward(rollout):
    algorithm = replace(ALGORITHMS["rloo"], penalty=(ReferenceKL(0.1, "k1", place="reward"),))
    plain = prepare(ALGORITHMS["rloo"], rollout, STATE)
    shaped = prepare(algorithm, rollout, STATE)
    # Each token costs .1 x .5, so a completion costs .05 per token, compared with its group's other one.
    length_B = rollout.mask_BT.sum(1).double()
    other_B = length_B.view(-1, 2).flip(1).flatten()
    wanted = plain.advantage_BT[:, 0] - 0.05 * (length_B - other_B)
    assert torch.allclose(shaped.advantage_BT[:, 0], wanted)
    with pytest.raises(UsageError, match="Score it with the policy and with the reference"):
        prepare(algorithm, replace(rollout, reference_logp_BT=None), STATE)


def test_reward_scaling_divides_by_the_deviation_of_all_returns_so_far(rollout):
    algorithm = replace(ppo, advantage=GAE(discount=1.0, trace_decay=1.0, whiten="off", scale_reward=True))
    plain = override(algorithm, reward_scaling=False)
    rollout = replace(rollout, value_BT=torch.zeros_like(rollout.reward_BT))
    returns = prepare(plain, rollout, STATE).advantage_BT[rollout.mask_BT]
    scaled = prepare(algorithm, rollout, STATE).advantage_BT[rollout.mask_BT]
    assert torch.allclose(scaled, returns / returns.std(correction=0))
    seen = AlgorithmState(return_sum=0.0, return_square=4e6, return_count=1e6)
    later = prepare(algorithm, rollout, seen).advantage_BT[rollout.mask_BT]
    assert torch.allclose(later, returns / 2, rtol=1e-3)


def test_constant_returns_are_not_blown_up(make_rollout):
    rollout = make_rollout([1.0, 1.0], [0, 1])
    rollout = replace(rollout, value_BT=torch.zeros_like(rollout.reward_BT))
    algorithm = replace(ppo, advantage=GAE(trace_decay=1.0, whiten="off", scale_reward=True))
    assert prepare(algorithm, rollout, STATE).advantage_BT.max() == 1


@pytest.mark.parametrize("name", ["grpo", "gspo", "dapo", "rloo", "dr-grpo-formula"])
def test_several_episodes_in_a_row_are_refused_where_completions_are_compared(rollout, name):
    algorithm = (ALGORITHMS | VARIANTS)[name]
    several = replace(rollout, segment_BT=torch.arange(4).expand(12, 4).contiguous())
    with pytest.raises(UsageError, match="several episodes in a row"):
        prepare(algorithm, several, STATE)
    for fine in ("reinforce", "ppo", "ppo-kl", "trpo"):
        prepare(ALGORITHMS[fine], several, STATE)


def test_segments_of_padding_do_not_count_as_episodes(rollout):
    several = replace(rollout, segment_BT=torch.where(rollout.mask_BT, 0, 5))
    prepare(grpo, several, STATE)


def test_minibatches_of_steps_are_refused_where_rows_must_stay_whole(rollout):
    for algorithm in (dapo, VARIANTS["ppo-sum"]):
        with pytest.raises(UsageError, match="minibatches of steps have none"):
            split(algorithm, prepare(algorithm, rollout, STATE), by_step=True)


def test_rows_are_cut_in_every_field(rollout):
    batch = prepare(ppo, rollout, STATE)
    part = batch.rows(torch.tensor([3, 0]), width=3)
    for name, value in vars(part).items():
        if name.endswith("_BT"):
            assert torch.equal(value, getattr(batch, name)[[3, 0], :3]), name
    assert part.row_B.tolist() == [3, 0]
    assert part.group_B.tolist() == [1, 0]
    assert batch.rows(torch.tensor([1])).mask_BT.shape == (1, 4)


class TestOutsideSampler:
    """Samples of μ, corrected towards the policy that trains."""

    def test_weights_are_capped_ratios(self, rollout):
        batch = prepare(grpo, rollout, STATE)
        behaviour_BT = rollout.old_logp_BT + torch.linspace(-2, 2, 48, dtype=torch.float64).view(12, 4)
        corrected = correct(batch, behaviour_BT, cap=1.5)
        weight_BT = (rollout.old_logp_BT - behaviour_BT).exp().clamp(max=1.5)
        wanted_BT = torch.where(rollout.mask_BT, batch.advantage_BT * weight_BT, 0.0)
        assert torch.allclose(corrected.advantage_BT, wanted_BT)
        assert torch.equal(corrected.weight_BT, batch.weight_BT)

    def test_the_sampler_s_own_policy_needs_no_correction(self, rollout):
        batch = prepare(grpo, rollout, STATE)
        assert torch.equal(correct(batch, rollout.old_logp_BT).advantage_BT, batch.advantage_BT)

    def test_of_one_step_it_is_exact_without_a_cap(self, make_rollout):
        """E_μ[π_old/μ · A] = E_old[A]: bandits with three arms, drawn by μ = (.5, .3, .2)."""
        mu, old = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6]))
        rollout = make_rollout([1.0, 5.0, -2.0], [0, 1, 2], lengths=[1, 1, 1], width=1)
        rollout = replace(rollout, old_logp_BT=old.log()[:, None])
        batch = prepare(ALGORITHMS["reinforce"], rollout, STATE)
        corrected = correct(batch, mu.log()[:, None], cap=1e9)
        assert (mu * corrected.advantage_BT[:, 0]).sum().item() == pytest.approx(
            (old * torch.tensor([1, 5, -2])).sum()
        )

    def test_what_is_missing_is_named(self, rollout):
        batch = prepare(grpo, rollout, STATE)
        with pytest.raises(UsageError, match="old_logp_BT"):
            correct(replace(batch, old_logp_BT=None), rollout.old_logp_BT)
        with pytest.raises(UsageError, match="cap is 0"):
            correct(batch, rollout.old_logp_BT, cap=0.0)
