"""Products of parts that mean nothing, and why; checked when an algorithm is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lineal.errors import UsageError
from lineal.objectives.penalty import AdaptiveKL
from lineal.objectives.ratio import NoRatio
from lineal.objectives.step import Adam, TrustRegion
from lineal.objectives.surrogate import LogLikelihood

if TYPE_CHECKING:
    from lineal.objectives.definition import Algorithm


def refuse(algorithm: Algorithm) -> None:
    """Raise UsageError, with the reason and the remedy, if the algorithm's parts do not fit together."""
    for check in (_group, _ratio, _sequence, _reuse, _step, _penalties):
        reason = check(algorithm)
        if reason:
            raise UsageError(f"{algorithm.name}: {reason}")


def _group(algorithm: Algorithm) -> str | None:
    if algorithm.group.size > 1:
        return None
    part = type(algorithm.advantage).__name__
    if algorithm.advantage.grouped:
        return (
            f"group_size is 1 and the advantage ({part}) compares the completions of one prompt: alone, "
            "each would be its own baseline and every advantage 0. Use group_size 2 or more, or another "
            "advantage."
        )
    if algorithm.group.keep == "mixed":
        return (
            "group_size is 1 and keep is 'mixed': a single completion always equals itself, so every "
            "group would be dropped. Use group_size 2 or more, or keep='all'."
        )
    return None


def _ratio(algorithm: Algorithm) -> str | None:
    surrogate = type(algorithm.surrogate).__name__
    if isinstance(algorithm.ratio, NoRatio) and algorithm.surrogate.bounded:
        return (
            f"{surrogate} clips a ratio and the ratio is none: log π has no bounds around 1. Use "
            "TokenRatio or SequenceRatio, or LogLikelihood."
        )
    if isinstance(algorithm.ratio, NoRatio) != isinstance(algorithm.surrogate, LogLikelihood):
        return (
            f"surrogate {surrogate} with ratio {type(algorithm.ratio).__name__}: log π(y) A takes no ratio "
            "and every other surrogate takes one. Use NoRatio with LogLikelihood only."
        )
    return None


def _sequence(algorithm: Algorithm) -> str | None:
    ratio = type(algorithm.ratio).__name__
    if not (algorithm.ratio.whole_sequence or ratio == "SequenceTokenRatio"):
        return None
    if not algorithm.reduction.by_sequence:
        return (
            f"{ratio} with {type(algorithm.reduction).__name__}: a ratio per completion weighed by tokens "
            "counts long completions more than once. Use PerSequence, or TokenRatio."
        )
    if algorithm.ratio.whole_sequence and algorithm.advantage.per_step:
        return (
            f"{ratio} with {type(algorithm.advantage).__name__}: a completion has one ratio but an "
            "advantage per step. Use SequenceTokenRatio, or an advantage per completion."
        )
    return None


def _reuse(algorithm: Algorithm) -> str | None:
    if not isinstance(algorithm.surrogate, LogLikelihood) or algorithm.optimiser_steps == 1:
        return None
    return (
        f"log-likelihood with epochs {algorithm.step.epochs} and minibatches {algorithm.step.minibatches}: "
        "after the first step the samples are another policy's and nothing corrects for it. Use 1 and 1, "
        "or a ratio with Linear or Clip."
    )


def _step(algorithm: Algorithm) -> str | None:
    if isinstance(algorithm.step, Adam):
        return None
    kind = type(algorithm.step).__name__
    if algorithm.surrogate.bounded:
        return (
            f"{kind} with {type(algorithm.surrogate).__name__}: both bound the step, and at the old policy "
            "the clip has no effect. Use Linear, or Adam."
        )
    if isinstance(algorithm.step, TrustRegion) and not algorithm.ratio.uses_old:
        return (
            "TrustRegion without a ratio: its line search asks whether L(new) exceeds L(old), which needs "
            "π/π_old. Use TokenRatio with Linear, or NaturalGradient."
        )
    return None


def _penalties(algorithm: Algorithm) -> str | None:
    bounds = [penalty for penalty in algorithm.penalty if penalty.to_old]
    if len(bounds) > 1:
        return "two penalties on KL to the old policy: their coefficients would add up. Keep one."
    if bounds and not isinstance(algorithm.step, Adam):
        what = "adaptive KL" if isinstance(bounds[0], AdaptiveKL) else "a KL penalty to the old policy"
        return (
            f"{type(algorithm.step).__name__} with {what}: the step already bounds that KL, and the "
            "penalty's gradient at the old policy is 0. Drop the penalty, or use Adam."
        )
    if bounds and not algorithm.ratio.uses_old:
        return (
            "a KL penalty to the old policy with log-likelihood: samples are used once, so the policy is "
            "the old one and the penalty's gradient is 0. Drop it, or use a ratio."
        )
    return None
