from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lineal.errors import UsageError
from lineal.objectives.advantage import GAE
from lineal.objectives.algorithm import (
    Adam,
    AlgorithmState,
    objective,
    prepare,
    statistics,
    summarise,
    update_state,
)
from lineal.objectives.penalty import AdaptiveKL, Entropy, OldKL, ReferenceKL
from lineal.objectives.policy import ALGORITHMS
from lineal.types import Scores

STATE = AlgorithmState()
grpo = replace(ALGORITHMS["grpo"], step=Adam(minibatches=2))


@pytest.fixture
def case(make_rollout):
    """Four completions in two groups; ratios 1.5, 0.5, 1 and 1 at every token."""
    rollout = make_rollout([1.0, 0.0, 1.0, 0.0], [0, 0, 1, 1], lengths=[2, 4, 3, 1])
    old = torch.where(rollout.mask_BT, -1.0, 0.0).double()
    rollout = replace(rollout, old_logp_BT=old, reference_logp_BT=old - 0.1)
    ratio = torch.tensor([1.5, 0.5, 1.0, 1.0], dtype=torch.float64)[:, None]
    return rollout, Scores(torch.where(rollout.mask_BT, old + ratio.log(), 0.0))


def test_metrics_are_sums_over_counted_steps(case):
    rollout, scores = case
    batch = prepare(grpo, rollout, STATE)
    value, sums = objective(grpo, scores, batch, STATE)
    assert sums["surrogate"] == value
    assert sums["steps"] == 10
    assert sums["completions"] == 4
    # A > 0 with ratio 1.5 in row 0 (2 tokens), A < 0 with ratio .5 in row 1 (4 tokens).
    assert (sums["clip_high"], sums["clip_low"]) == (2, 4)
    assert sums["ratio"].item() == pytest.approx(2 * 1.5 + 4 * 0.5 + 4)
    assert sums["trajectory_ratio"].item() == pytest.approx(1.5**2 + 0.5**4 + 2)
    k3 = [r - 1 - torch.tensor(r).log().item() for r in (1.5, 0.5)]
    assert sums["kl"].item() == pytest.approx(2 * k3[0] + 4 * k3[1], rel=1e-6)
    assert all(isinstance(number, torch.Tensor) and not number.requires_grad for number in sums.values())


def test_summarise_turns_sums_into_means(case):
    rollout, scores = case
    _, sums = objective(grpo, scores, prepare(grpo, rollout, STATE), STATE)
    twice = {name: 2 * number for name, number in sums.items()}
    means = summarise(twice, batches=2)
    assert means["clip_ratio/high_mean"] == pytest.approx(0.2)
    assert means["clip_ratio/low_mean"] == pytest.approx(0.4)
    assert means["clip_ratio/region_mean"] == pytest.approx(0.6)
    assert means["ratio"] == pytest.approx(0.9)
    assert means["surrogate"] == pytest.approx(sums["surrogate"].item())
    assert "entropy" not in means


def test_metrics_without_old_logp_say_that_nothing_moved(case):
    rollout, scores = case
    algorithm = replace(grpo, step=Adam())
    _, sums = objective(
        algorithm, scores, prepare(algorithm, replace(rollout, old_logp_BT=None), STATE), STATE
    )
    means = summarise(sums)
    assert means["ratio"] == means["trajectory_ratio"] == 1
    assert means["kl"] == means["clip_ratio/region_mean"] == 0


def test_log_likelihood_has_no_ratio_to_speak_of(case):
    rollout, scores = case
    algorithm = ALGORITHMS["reinforce"]
    _, sums = objective(algorithm, scores, prepare(algorithm, rollout, STATE), STATE)
    assert set(summarise(sums)) == {"surrogate"}


def test_a_trajectory_product_that_overflows_stays_finite(case):
    rollout, _ = case
    scores = Scores(torch.where(rollout.mask_BT, 40.0, 0.0).double())
    _, sums = objective(grpo, scores, prepare(grpo, rollout, STATE), STATE)
    assert torch.isfinite(sums["trajectory_ratio"])


def test_penalties_are_taken_off_the_value(case):
    rollout, scores = case
    entropy_BT = torch.where(rollout.mask_BT, 2.0, 99.0).double()
    kl_BT = torch.where(rollout.mask_BT, 0.5, 99.0).double()
    scores = replace(scores, entropy_BT=entropy_BT, kl_BT=kl_BT)
    plain = objective(grpo, scores, prepare(grpo, rollout, STATE), STATE)[0]
    both = replace(grpo, penalty=(Entropy(0.1), OldKL(3.0)))
    value, sums = objective(both, scores, prepare(both, rollout, STATE), STATE)
    assert (value - plain).item() == pytest.approx(0.1 * 2 - 3 * 0.5)
    means = summarise(sums)
    assert means["entropy"] == 2
    assert means["kl"] == 0.5


def test_reference_kl_takes_the_weights_of_the_surrogate(case):
    """Inside GRPO's sums: a mean over completions of a mean over tokens, not over all tokens alike."""
    rollout, scores = case
    algorithm = replace(grpo, penalty=(ReferenceKL(1.0, "k2"),))
    batch = prepare(algorithm, rollout, STATE)
    value, sums = objective(algorithm, scores, batch, STATE)
    plain = objective(grpo, scores, batch, STATE)[0]
    k2 = [(torch.tensor(r).log().item() + 0.1) ** 2 / 2 for r in (1.5, 0.5, 1.0, 1.0)]
    assert (plain - value).item() == pytest.approx(sum(k2) / 4, rel=1e-6)
    assert sums["reference_kl"].item() == pytest.approx(
        sum(n * k for n, k in zip((2, 4, 3, 1), k2)), rel=1e-6
    )


def test_a_penalty_on_rewards_is_not_taken_off_twice(case):
    rollout, scores = case
    algorithm = replace(grpo, penalty=(ReferenceKL(1.0, "k1", place="reward"),))
    batch = prepare(algorithm, rollout, STATE)
    value, sums = objective(algorithm, scores, batch, STATE)
    assert value == objective(grpo, scores, batch, STATE)[0]
    assert "reference_kl" not in sums


@pytest.mark.parametrize(
    ("penalty", "missing"),
    [
        (Entropy(), "entropy_BT"),
        (OldKL(), "kl_BT"),
        (ReferenceKL(estimator="exact"), "reference_kl_BT"),
        (ReferenceKL(), "reference_logp_BT"),
    ],
)
def test_what_a_penalty_lacks_is_named(case, penalty, missing):
    rollout, scores = case
    algorithm = replace(grpo, penalty=(penalty,))
    batch = prepare(algorithm, replace(rollout, reference_logp_BT=None), STATE)
    with pytest.raises(UsageError, match=f"{missing}.*needs\\(algorithm\\)"):
        objective(algorithm, scores, batch, STATE)


class TestState:
    def test_running_mean_over_two_batches(self, make_rollout):
        algorithm = ALGORITHMS["reinforce"]
        state = STATE
        for rewards in ([1.0, 3.0], [0.0, 0.0]):
            rollout = make_rollout(rewards, [0, 1])
            state = update_state(algorithm, state, statistics(algorithm, rollout, state))
        # decay .9: (.9 x 4 + 0) / (.9 x 2 + 2)
        assert state.baseline_mean == pytest.approx(3.6 / 3.8)

    def test_reward_scaling_sums(self, make_rollout):
        algorithm = replace(ALGORITHMS["ppo"], advantage=GAE(discount=1.0, scale_reward=True))
        stats = statistics(algorithm, make_rollout([3.0], [0], lengths=[2]), STATE)
        assert stats == {"return_sum": 6.0, "return_square": 18.0, "return_count": 2.0}
        state = update_state(algorithm, update_state(algorithm, STATE, stats), stats)
        assert (state.return_sum, state.return_count) == (12.0, 4.0)

    def test_algorithms_without_state_keep_it(self, make_rollout):
        assert statistics(grpo, make_rollout([1.0, 0.0], [0, 0]), STATE) == {}
        assert update_state(grpo, STATE, {}) == STATE

    def test_the_measured_kl_is_asked_for(self):
        with pytest.raises(UsageError, match="mean KL"):
            update_state(ALGORITHMS["ppo-kl"], STATE, {})

    def test_json_round_trip(self):
        state = AlgorithmState(beta=0.1 + 0.2, baseline_sum=1 / 3, baseline_count=2.0, return_square=1e300)
        assert AlgorithmState.from_json(state.to_json()) == state
        assert AlgorithmState.from_json({"beta": 2.0, "of a later version": 1}).beta == 2.0

    def test_adaptive_beta_starts_where_it_says_without_an_initial_state(self):
        algorithm = replace(ALGORITHMS["ppo-kl"], penalty=(AdaptiveKL(target=0.1, beta=4.0),))
        assert update_state(algorithm, STATE, {"kl": 1.0}).beta == 8.0
