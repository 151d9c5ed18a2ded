"""What is learned about a step: metrics as means, and how an algorithm's state moves on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.baseline import RunningMean, mean_return
from lineal.objectives.definition import Algorithm
from lineal.objectives.penalty import AdaptiveKL
from lineal.objectives.prepare import penalised_reward, return_sums
from lineal.objectives.state import AlgorithmState
from lineal.types import Rollout


def summarise(sums: Mapping[str, Tensor | float], batches: int = 1) -> dict[str, float]:
    """Means under the names that users know, from metrics summed over micro-batches and optimiser batches.

    batches: how many optimiser batches were summed, for what is already the mean of one (surrogate,
    value_loss). clip_ratio/...: share of steps whose bound acted. explained_variance: 1 - Var(R - V) /
    Var(R), of the critic.
    """
    number = {name: float(value) for name, value in sums.items()}
    steps = max(number.get("steps", 0.0), 1.0)
    means = {name: number[name] / steps for name in ("kl", "entropy", "reference_kl") if name in number}
    means |= {name: number[name] / batches for name in ("surrogate", "value_loss") if name in number}
    if "clip_low" in number:
        low, high = number["clip_low"] / steps, number["clip_high"] / steps
        means |= {
            "clip_ratio/low_mean": low,
            "clip_ratio/high_mean": high,
            "clip_ratio/region_mean": low + high,
        }
        means["ratio"] = number["ratio"] / steps
        means["trajectory_ratio"] = number["trajectory_ratio"] / max(number["completions"], 1.0)
    if "residual" in number:
        steps = max(number["value_steps"], 1.0)
        spread = number["return_square"] / steps - (number["return"] / steps) ** 2
        error = number["residual_square"] / steps - (number["residual"] / steps) ** 2
        means["explained_variance"] = 1 - error / spread if spread > 0 else math.nan
    return means


def statistics(algorithm: Algorithm, rollout: Rollout, state: AlgorithmState) -> dict[str, float]:
    """What `update_state` must know of a rollout; add "kl" where needs(algorithm).measured_kl.

    `state` is the one the rollout was prepared with. The sums of several rollouts add up.
    """
    stats: dict[str, float] = {}
    shaped = replace(rollout, reward_BT=penalised_reward(algorithm, rollout, state))
    if isinstance(algorithm.advantage.baseline_part, RunningMean):
        stats["baseline_sum"], stats["baseline_count"] = mean_return(
            algorithm.advantage.returns(shaped), shaped
        )
    if algorithm.advantage.scale_reward:
        stats["return_sum"], stats["return_square"], stats["return_count"] = return_sums(algorithm, shaped)
    return stats


def update_state(algorithm: Algorithm, state: AlgorithmState, stats: Mapping[str, float]) -> AlgorithmState:
    """The state after an iteration: a pure function of the one before and of `statistics`, "kl" added."""
    changed: dict[str, float] = {}
    for penalty in algorithm.penalty:
        if isinstance(penalty, AdaptiveKL):
            if "kl" not in stats:
                raise UsageError(
                    "the adaptive KL needs stats['kl'], the mean KL(old || new) that this iteration reached."
                )
            changed["beta"] = penalty.adapted(penalty.coefficient(state), stats["kl"])
    baseline = algorithm.advantage.baseline_part
    if isinstance(baseline, RunningMean):
        changed["baseline_sum"] = baseline.decay * state.baseline_sum + stats["baseline_sum"]
        changed["baseline_count"] = baseline.decay * state.baseline_count + stats["baseline_count"]
    if algorithm.advantage.scale_reward:
        for name in ("return_sum", "return_square", "return_count"):
            changed[name] = getattr(state, name) + stats[name]
    return replace(state, **changed)
