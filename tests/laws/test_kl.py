"""Kullback-Leibler penalties: values **and** gradients, exactly, by listing every sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.advantage import FullReturn
from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    AlgorithmState,
    Group,
    initial_state,
    objective,
    prepare,
    update_state,
)
from lineal.objectives.penalty import AdaptiveKL, Entropy, OldKL, Penalty, ReferenceKL, SqrtKL, mean_kl
from lineal.objectives.ratio import NoRatio, TokenRatio
from lineal.objectives.reduction import PlainSum
from lineal.objectives.surrogate import Linear, LogLikelihood
from lineal.ops.logprob import exact_kl, kl_estimate
from lineal.types import Scores

STATE = AlgorithmState()


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-10)


def gradient(value: Tensor, theta: Tensor) -> Tensor:
    return torch.autograd.grad(value, theta, retain_graph=True)[0]


def pair(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2))
    return first.requires_grad_(), second.requires_grad_()


def mean_estimate(kind: str, p: Tensor, q: Tensor) -> Tensor:
    """E_p of the estimate, the samples (so their probabilities) held fixed, as autograd sees them."""
    chance = torch.softmax(p, -1).detach()
    return (chance * kl_estimate(kind, torch.log_softmax(p, -1), torch.log_softmax(q, -1))).sum()


@pytest.mark.parametrize("seed", range(3))
def test_estimators_have_the_values_and_gradients_of_their_table(seed):
    p, q = pair(seed)
    forward, backward = exact_kl(p, q), exact_kl(q, p)
    for kind in ("k1", "k3"):
        assert close(mean_estimate(kind, p, q), forward)
        assert close(gradient(mean_estimate(kind, p, q), q), gradient(forward, q))
    assert gradient(mean_estimate("k1", p, q), p).abs().max() <= 1e-10
    assert close(gradient(mean_estimate("k2", p, q), p), gradient(forward, p))
    assert close(gradient(mean_estimate("k3", p, q), p), gradient(backward, p))
    assert not close(mean_estimate("k2", p, q), forward)
    assert not close(gradient(mean_estimate("k2", p, q), q), gradient(forward, q))
    assert not close(gradient(mean_estimate("k3", p, q), p), gradient(forward, p))


def test_every_estimator_is_flat_in_q_where_they_meet():
    p, _ = pair(9)
    for kind in ("k1", "k2", "k3"):
        q = p.detach().clone().requires_grad_()
        assert gradient(mean_estimate(kind, p.detach(), q), q).abs().max() <= 1e-10


def test_exact_kl_has_no_gradient_at_the_old_policy(world):
    theta = world.theta(0)
    logp_BTV = world.distribution(theta)
    kl_BT = exact_kl(logp_BTV.detach(), logp_BTV)
    assert kl_BT.abs().max() <= 1e-12
    assert (
        gradient((world.probability(theta).detach()[:, None] * kl_BT)[world.mask_BT].sum(), theta).abs().max()
        <= 1e-12
    )


def make(penalty: Penalty) -> Algorithm:
    return Algorithm(
        Group(1), FullReturn(), TokenRatio(), Linear(), PlainSum(), (penalty,), Adam(minibatches=2)
    )


def expected_penalty(world, penalty: Penalty, new: Tensor, old: Tensor, reference: Tensor) -> Tensor:
    """The penalty of every completion, each as likely as the old policy makes it."""
    rollout = replace(
        world.rollout(),
        old_logp_BT=world.logp(old).detach(),
        reference_logp_BT=world.logp(reference).detach(),
    )
    batch = world.likely(prepare(make(penalty), rollout, STATE), old, 1)
    new_BTV, old_BTV = world.distribution(new), world.distribution(old).detach()
    scores = Scores(
        world.logp(new),
        kl_BT=exact_kl(old_BTV, new_BTV),
        reference_kl_BT=exact_kl(new_BTV, world.distribution(reference).detach()),
    )
    return penalty(scores, batch, STATE).sum()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_to_old_from_tokens_is_unbiased_in_value_and_gradient(world, estimator):
    new, old = world.theta(1), world.theta(2)
    exact = expected_penalty(world, OldKL(1.5), new, old, old)
    estimate = expected_penalty(world, OldKL(1.5, estimator), new, old, old)
    assert exact > 0.01
    assert close(estimate, exact)
    assert close(gradient(estimate, new), gradient(exact, new))
    biased = expected_penalty(world, OldKL(1.5, "k2"), new, old, old)
    assert not close(biased, exact)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_ratio_weighted_reference_kl_is_unbiased_off_policy(world, estimator):
    """At each situation the old policy visits, E_old[w k] = KL(π || reference), gradient included."""
    new, old, reference = world.theta(3), world.theta(4), world.theta(5)
    exact = expected_penalty(world, ReferenceKL(0.5, "exact"), new, old, reference)
    weighted = ReferenceKL(0.5, estimator, ratio_weighted=True)
    estimate = expected_penalty(world, weighted, new, old, reference)
    assert close(estimate, exact)
    assert close(gradient(estimate, new), gradient(exact, new))
    unweighted = expected_penalty(world, ReferenceKL(0.5, "k3"), new, old, reference)
    assert not close(unweighted, exact)


def test_reference_kl_on_policy_has_the_gradients_of_the_table(world):
    """k2 pulls along KL(π || reference), GRPO's k3 along KL(reference || π) at the situations visited."""
    theta, reference = world.theta(6), world.theta(7)
    exact = expected_penalty(world, ReferenceKL(1.0, "exact"), theta, theta, reference)
    k2 = expected_penalty(world, ReferenceKL(1.0, "k2"), theta, theta, reference)
    k3 = expected_penalty(world, ReferenceKL(1.0, "k3"), theta, theta, reference)
    assert close(gradient(k2, theta), gradient(exact, theta))
    assert close(k3, exact)
    assert not close(gradient(k3, theta), gradient(exact, theta))


def test_kl_in_the_reward_gives_the_gradient_of_reward_minus_sequence_kl(text):
    """E∇[Σ log π (R - β Σ k1)] = ∇(J - β KL(π || reference)) over whole completions."""
    theta, reference = text.theta(8), text.theta(9)
    penalty = ReferenceKL(0.3, "k1", place="reward")
    algorithm = Algorithm(Group(1), FullReturn(), NoRatio(), LogLikelihood(), PlainSum(), (penalty,), Adam())

    def with_reference(rollout):
        return replace(rollout, reference_logp_BT=text.logp(reference).detach())

    found = text.gradient(algorithm, theta, old=theta, change=with_reference)
    sequence_B = (text.logp(theta) - text.logp(reference).detach()).sum(1)
    kl = (text.probability(theta) * sequence_B).sum()
    assert close(found, gradient(text.performance(theta) - 0.3 * kl, theta))


def test_root_of_mean_kl_adds_up_over_micro_batches(world):
    new, old = world.theta(10), world.theta(11)
    algorithm = make(SqrtKL(2.0))
    rollout = replace(world.rollout(), old_logp_BT=world.logp(old).detach())
    batch = prepare(algorithm, rollout, STATE)

    def scores(index: Tensor) -> Scores:
        old_BTV, new_BTV = world.distribution(old).detach(), world.distribution(new)
        return Scores(world.logp(new)[index], kl_BT=exact_kl(old_BTV, new_BTV)[index])

    parts = torch.arange(len(batch.row_B)).split(9)
    measured = torch.stack([mean_kl(scores(index), batch.rows(index)) for index in parts]).sum()
    batch = replace(batch, mean_kl=measured)
    total = torch.stack([SqrtKL(2.0)(scores(i), batch.rows(i), STATE).sum() for i in parts]).sum()
    everything = scores(torch.arange(len(batch.row_B)))
    assert everything.kl_BT is not None
    wanted = 2.0 * everything.kl_BT[world.mask_BT].mean().sqrt()
    assert close(total, wanted)
    assert close(gradient(total, new), gradient(wanted, new))


def test_root_of_mean_kl_is_flat_at_the_old_policy_and_must_know_its_mean(world):
    theta = world.theta(12)
    rollout = replace(world.rollout(), old_logp_BT=world.logp(theta).detach())
    batch = prepare(make(SqrtKL()), rollout, STATE)
    logp_BTV = world.distribution(theta)
    scores = Scores(world.logp(theta), kl_BT=exact_kl(logp_BTV.detach(), logp_BTV))
    with pytest.raises(UsageError, match="mean_kl"):
        objective(make(SqrtKL()), scores, batch, STATE)
    value = SqrtKL()(scores, replace(batch, mean_kl=mean_kl(scores, batch)), STATE).sum()
    assert gradient(value, theta).abs().max() == 0


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(0.0, 0.5), (0.00666, 0.5), (0.0067, 1.0), (0.01, 1.0), (0.015, 1.0), (0.0151, 2.0), (5.0, 2.0)],
)
def test_adaptive_beta_doubles_above_and_halves_below(kl, factor):
    algorithm = make(AdaptiveKL(target=0.01, beta=3.0))
    state = initial_state(algorithm)
    assert state.beta == 3.0
    moved = update_state(algorithm, state, {"kl": kl})
    assert moved.beta == 3.0 * factor
    assert state.beta == 3.0
    assert update_state(algorithm, moved, {"kl": kl}).beta == 3.0 * factor * factor


def test_adaptive_beta_is_what_the_penalty_uses(world):
    old, new = world.theta(13), world.theta(14)
    rollout = replace(world.rollout(), old_logp_BT=world.logp(old).detach())
    algorithm = make(AdaptiveKL(beta=3.0, estimator="k3"))
    batch = prepare(algorithm, rollout, STATE)
    scores = Scores(world.logp(new))
    once, twice = (objective(algorithm, scores, batch, AlgorithmState(beta=b))[0] for b in (1.0, 2.0))
    none = objective(replace(algorithm, penalty=()), scores, batch, STATE)[0]
    assert close(none - twice, 2 * (none - once))
    first = objective(algorithm, scores, batch, initial_state(algorithm))[0]
    assert close(none - first, 3 * (none - once))


def test_entropy_bonus_is_the_mean_entropy(world):
    theta = world.theta(15)
    algorithm = make(Entropy(0.2))
    rollout = replace(world.rollout(), old_logp_BT=world.logp(theta).detach())
    batch = prepare(algorithm, rollout, STATE)
    logp_BTV = world.distribution(theta)
    entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(-1)
    value, sums = objective(algorithm, Scores(world.logp(theta), entropy_BT=entropy_BT), batch, STATE)
    plain, _ = objective(replace(algorithm, penalty=()), Scores(world.logp(theta)), batch, STATE)
    assert close(value - plain, 0.2 * entropy_BT[world.mask_BT].mean())
    assert close(sums["entropy"], entropy_BT[world.mask_BT].sum())
