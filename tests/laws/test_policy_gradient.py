"""Expected gradients, exactly: every completion (or group of them) listed with its probability, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lineal.objectives.advantage import GAE, FullReturn, GroupMean, RewardToGo
from lineal.objectives.algorithm import Adam, Algorithm, AlgorithmState, Group, complete, objective, prepare
from lineal.objectives.baseline import Baseline, Learned, LeaveOneOut, NoBaseline, RunningMean
from lineal.objectives.policy import ALGORITHMS, VARIANTS
from lineal.objectives.ratio import NoRatio, TokenRatio
from lineal.objectives.reduction import PerBudget, PlainSum
from lineal.objectives.surrogate import Clip, Linear, LogLikelihood
from lineal.ops.masked import masked_sum
from lineal.types import Scores

TOLERANCE = 1e-10


def close(a, b):
    return (a - b).abs().max() <= TOLERANCE


def plain(advantage, size=1) -> Algorithm:
    return Algorithm(Group(size), advantage, NoRatio(), LogLikelihood(), PlainSum(), (), Adam())


@pytest.mark.parametrize("advantage", [FullReturn(), RewardToGo()], ids=["full", "to-go"])
def test_expected_reinforce_gradient_is_the_exact_gradient(world, advantage):
    theta = world.theta(0)
    exact = world.exact_gradient(theta)
    assert exact.abs().max() > 1e-2
    assert close(world.gradient(plain(advantage), theta), exact)


def test_discounted_full_return_gives_the_discounted_gradient(process):
    theta = process.theta(1)
    expected = process.gradient(plain(FullReturn(discount=0.9)), theta)
    assert close(expected, process.exact_gradient(theta, discount=0.9))
    assert not close(expected, process.exact_gradient(theta))


def test_reward_to_go_drops_only_what_is_zero_on_average(process):
    """Rewards before a step cannot depend on it: their part of the gradient is 0 on average, not sample by sample."""
    theta = process.theta(2)
    before = replace(plain(FullReturn()), advantage=FullReturn())
    assert close(process.gradient(before, theta), process.gradient(plain(RewardToGo()), theta))
    rollout = process.rollout()
    full, to_go = (
        prepare(plain(a), rollout, AlgorithmState()).advantage_BT for a in (FullReturn(), RewardToGo())
    )
    assert not torch.allclose(full, to_go)


@pytest.mark.parametrize("seen", [0.0, 7.5])
def test_a_running_mean_of_earlier_batches_adds_nothing(world, seen):
    theta = world.theta(3)
    state = AlgorithmState(baseline_sum=seen * 4, baseline_count=4.0)
    for advantage in (FullReturn(RunningMean()), RewardToGo(RunningMean())):
        assert close(world.gradient(plain(advantage), theta, state=state), world.exact_gradient(theta))


@pytest.mark.parametrize(
    "advantage",
    [RewardToGo(Learned()), FullReturn(Learned()), GAE(discount=1.0, trace_decay=1.0, whiten="off")],
    ids=["to-go", "full", "gae"],
)
def test_any_value_of_the_situation_adds_nothing(world, advantage):
    """The critic may be as wrong as it likes, as long as it has not seen the action."""
    theta = world.theta(4)
    value_N = (
        torch.randn(len(world.features_NK), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        * 9
    )

    def with_values(rollout):
        index_N, _ = world.groups(1)
        return replace(rollout, value_BT=value_N[world.situation_BT[index_N]])

    assert close(world.gradient(plain(advantage), theta, change=with_values), world.exact_gradient(theta))


def test_gae_with_the_true_value_is_unbiased_at_any_trace_decay(text):
    """With V exact, E[δ_t | situation, action] is the advantage itself, so every trace decay gives ∇J."""
    theta = text.theta(6)
    probability_B = text.probability(theta).detach()
    value_N = torch.zeros(len(text.features_NK), dtype=torch.float64)
    for situation in range(len(value_N)):
        here_B = ((text.situation_BT == situation) & text.mask_BT).any(1)
        value_N[situation] = (probability_B * text.returns())[here_B].sum() / probability_B[here_B].sum()

    def with_values(rollout):
        return replace(rollout, value_BT=value_N[text.situation_BT])

    for decay in (0.0, 0.5, 0.95):
        advantage = GAE(discount=1.0, trace_decay=decay, whiten="off")
        assert close(text.gradient(plain(advantage), theta, change=with_values), text.exact_gradient(theta))


@pytest.mark.parametrize("size", [2, 3])
def test_a_self_inclusive_mean_scales_the_gradient_by_one_minus_one_over_group_size(text, size):
    theta = text.theta(7)
    gradient = text.gradient(plain(GroupMean(), size), theta, size=size)
    assert close(gradient, (1 - 1 / size) * text.exact_gradient(theta))


@pytest.mark.parametrize("size", [2, 3])
def test_leave_one_out_scales_the_gradient_by_one(text, size):
    theta = text.theta(8)
    for advantage in (FullReturn(LeaveOneOut()), RewardToGo(LeaveOneOut())):
        assert close(text.gradient(plain(advantage, size), theta, size=size), text.exact_gradient(theta))


def test_group_baselines_in_the_decision_process(process):
    theta = process.theta(9)
    exact = process.exact_gradient(theta)
    assert close(process.gradient(plain(GroupMean(), 2), theta, size=2), exact / 2)
    assert close(process.gradient(plain(FullReturn(LeaveOneOut()), 2), theta, size=2), exact)


def test_named_algorithms_that_promise_the_exact_gradient_have_it(text):
    theta = text.theta(10)
    exact = text.exact_gradient(theta)
    assert close(text.gradient(ALGORITHMS["reinforce"], theta), exact)
    assert close(text.gradient(replace(ALGORITHMS["rloo"], group=Group(2)), theta, size=2), exact)
    formula = replace(VARIANTS["dr-grpo-formula"], group=Group(2))
    assert close(text.gradient(formula, theta, size=2), exact / 2)
    budget = replace(formula, reduction=PerBudget(4))
    assert close(text.gradient(budget, theta, size=2), exact / 8)


def test_a_baseline_that_has_seen_its_own_sample_is_biased(text):
    """The control: the laws above can fail."""

    class Cheat(Baseline):
        def __call__(self, return_BT, rollout, state):
            return return_BT / 2

    theta = text.theta(11)
    assert not close(text.gradient(plain(FullReturn(Cheat())), theta), text.exact_gradient(theta))


@pytest.mark.parametrize("name", [*ALGORITHMS, *VARIANTS])
def test_at_old_equal_new_every_gradient_is_the_plain_one(text, name):
    """Clip, sequence ratio, clipped weight: at the old policy all have the gradient of weight · A · log π."""
    algorithm = (ALGORITHMS | VARIANTS)[name]
    if isinstance(algorithm.reduction, PerBudget):
        algorithm = replace(algorithm, reduction=PerBudget(4))
    theta, generator = text.theta(12), torch.Generator().manual_seed(13)
    size = max(algorithm.group.size, 1)
    index_N = torch.randint(len(text.mask_BT), (6 * size,), generator=generator)
    rollout = text.rollout(index_N, torch.arange(6).repeat_interleave(size))
    logp_BT = text.logp(theta)[index_N]
    value_BT = torch.randn(rollout.reward_BT.shape, generator=generator, dtype=torch.float64)
    rollout = replace(
        rollout, old_logp_BT=logp_BT.detach(), value_BT=value_BT, reference_logp_BT=logp_BT.detach()
    )
    batch = prepare(algorithm, rollout, AlgorithmState())
    kl_BT = torch.zeros_like(logp_BT)
    value, sums = objective(algorithm, Scores(logp_BT, kl_BT=kl_BT), batch, AlgorithmState())
    gradient = torch.autograd.grad(value, theta, retain_graph=True)[0]
    wanted = torch.autograd.grad((batch.weight_BT * batch.advantage_BT * logp_BT).sum(), theta)[0]
    assert wanted.abs().max() > 1e-4
    assert close(gradient, wanted)
    if algorithm.ratio.uses_old:
        assert sums["clip_low"] == sums["clip_high"] == 0
        assert sums["ratio"] == sums["steps"]


def test_gspo_is_grpo_on_policy(text):
    theta = text.theta(14)
    grpo, gspo = (replace(ALGORITHMS[n], group=Group(2), step=Adam()) for n in ("grpo", "gspo"))
    assert close(text.gradient(grpo, theta, size=2), text.gradient(gspo, theta, size=2))
    old = text.theta(15)
    off = [text.gradient(replace(a, surrogate=Linear()), theta, size=2, old=old) for a in (grpo, gspo)]
    assert not close(*off)


def test_used_once_without_old_logp_is_the_same_as_with_it(text):
    theta = text.theta(16)
    algorithm = replace(ALGORITHMS["grpo"], group=Group(2))
    assert close(text.gradient(algorithm, theta, size=2), text.gradient(algorithm, theta, size=2, old=theta))


def test_an_all_equal_group_gives_no_gradient(text):
    theta = text.theta(17)
    # The mean of three tenths is not a tenth in binary: rounding alone would pull.
    assert sum([0.1] * 3) / 3 != 0.1
    for algorithm in (a for a in (ALGORITHMS | VARIANTS).values() if a.advantage.grouped and not a.penalty):
        algorithm = complete(replace(algorithm, group=Group(3)), 3)
        rollout = text.rollout(torch.arange(3), torch.zeros(3, dtype=torch.int64))
        rollout = replace(rollout, reward_BT=rollout.terminated_BT * torch.tensor(0.1, dtype=torch.float64))
        batch = prepare(algorithm, rollout, AlgorithmState())
        value, _ = objective(algorithm, Scores(text.logp(theta)[:3]), batch, AlgorithmState())
        gradient = torch.autograd.grad(value, theta)[0]
        if isinstance(algorithm.advantage, FullReturn):
            assert gradient.abs().max() <= TOLERANCE
        else:
            assert gradient.abs().max() == 0, algorithm.name


def test_the_trajectory_ratio_estimates_the_new_performance_exactly(world):
    """E_old[Π w_t · R] = J(new), which the product of token ratios alone can do; token ratios cannot."""
    old, new = world.theta(18), world.theta(19)
    with torch.no_grad():
        product_B = (world.logp(new) - world.logp(old)).sum(1).exp()
        assert close((world.probability(old) * product_B * world.returns()).sum(), world.performance(new))
        algorithm = replace(plain(FullReturn()), ratio=TokenRatio(), surrogate=Linear())
        token = world.expected(algorithm, new, old=old)
        assert not close(token, world.performance(new))


def test_the_surrogate_at_old_is_the_mean_advantage_and_zero_for_a_true_one(world):
    """E_π[A] = 0, and with it L_old(old) = 0, for A = Q - V with the true V."""
    theta = world.theta(20)
    probability_B = world.probability(theta).detach()
    rollout = world.rollout()
    to_go_BT = prepare(plain(RewardToGo()), rollout, AlgorithmState()).advantage_BT
    # V of a situation at a time: a decision process forgets how it came there, a text is where it is.
    key_BT = world.situation_BT * world.mask_BT.shape[1] + torch.arange(world.mask_BT.shape[1])
    value_BT = torch.zeros_like(to_go_BT)
    for key in key_BT[world.mask_BT].unique():
        here_BT = (key_BT == key) & world.mask_BT
        share_BT = here_BT * probability_B[:, None]
        value_BT[here_BT] = (share_BT * to_go_BT).sum() / share_BT.sum()
    algorithm = Algorithm(Group(1), RewardToGo(Learned()), TokenRatio(), Linear(), PlainSum(), (), Adam())
    mean = world.expected(algorithm, theta, change=lambda r: replace(r, value_BT=value_BT))
    assert mean.abs() <= TOLERANCE


def test_linear_and_clip_agree_inside_the_clip(text):
    old = text.theta(21)
    new = (old + 1e-3 * text.theta(22)).detach().requires_grad_()
    linear = replace(plain(FullReturn(NoBaseline())), ratio=TokenRatio(), surrogate=Linear())
    clip = replace(linear, surrogate=Clip(0.2, 0.2))
    assert close(text.gradient(linear, new, old=old), text.gradient(clip, new, old=old))
    far = text.theta(23)
    assert not close(text.gradient(linear, far, old=old), text.gradient(clip, far, old=old))


def test_masked_sum_of_logp_is_the_log_probability(world):
    theta = world.theta(24)
    logp_B = masked_sum(world.logp(theta), world.mask_BT, dim=1)
    assert close((world.chance_B * logp_B.exp()).sum(), torch.ones((), dtype=torch.float64))
