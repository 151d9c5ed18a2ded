"""The penalty slot: extra terms beside the surrogate. An algorithm has a tuple of them, often empty.

`coefficient(state)` is the number in front; `penalty(scores, batch, state)` is what is subtracted at each
step, coefficient and weights included, so that a batch's penalty is a plain sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.batch import Batch
from lineal.objectives.formula import short
from lineal.objectives.state import AlgorithmState
from lineal.ops.logprob import kl_estimate
from lineal.types import Scores

ESTIMATORS = ("exact", "k1", "k2", "k3")


class Penalty:
    """Base of the penalty slot. The attributes say what a member reads and where it acts.

    kl, reference_kl, entropy: it reads kl_BT, reference_kl_BT or entropy_BT of the scores. mean_kl, reference: it reads
    mean_kl or reference_logp_BT of the batch. to_old: it bounds the step from the old policy. in_reward: it acts on
    rewards, before advantages. inside: it stands in the surrogate's sums and takes its weights.
    """

    beta: float
    kl = False
    mean_kl = False
    reference = False
    reference_kl = False
    entropy = False
    to_old = False
    in_reward = False
    inside = False

    def coefficient(self, state: AlgorithmState) -> float:
        """The number in front of the term."""
        return self.beta

    def __call__(self, scores: Scores, batch: Batch, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """What is subtracted from the objective at each step, weights included."""
        raise NotImplementedError

    def formula(self) -> str:
        """The term with its sign, for print; empty where it acts on rewards."""
        raise NotImplementedError

    def legend(self) -> str:
        """What else there is to say of it, for print."""
        return ""


@dataclass(frozen=True)
class OldKL(Penalty):
    """beta · mean over counted steps of KL(old || new)  (PPO, eq. 8, with a fixed coefficient).

    estimator: "exact" over the vocabulary, or k1 or k3 from the sampled tokens, both of which are unbiased in
    value and gradient here because the samples are the old policy's; k2 is not.
    """

    beta: float = 1.0
    estimator: str = "exact"
    to_old = True

    def __post_init__(self) -> None:
        _check(self.beta, self.estimator)

    @property
    def kl(self) -> bool:  # type: ignore[override]
        """Exact KL is asked of the scores."""
        return self.estimator == "exact"

    def __call__(self, scores: Scores, batch: Batch, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """beta · KL / N."""
        return self.coefficient(state) * batch.step_weight_BT * old_kl(self.estimator, scores, batch)

    def formula(self) -> str:
        """The term, for print."""
        return f"− {short(self.beta)} · 1/N Σₜ KL{_hat(self.estimator)}(π_old ‖ π)"


@dataclass(frozen=True)
class AdaptiveKL(Penalty):
    """OldKL whose coefficient follows the KL that was reached  (PPO, section 4).

    After each iteration, once: beta · 2 if the mean KL exceeds 1.5 target, beta / 2 if it is below target /
    1.5. `beta` is only where it starts.
    """

    target: float = 0.01
    beta: float = 1.0
    estimator: str = "exact"
    to_old = True

    def __post_init__(self) -> None:
        _check(self.beta, self.estimator)
        if not self.target > 0:
            raise UsageError(
                f"target is {self.target}: beta would double for ever. Use a mean KL above 0, such as 0.01."
            )

    @property
    def kl(self) -> bool:  # type: ignore[override]
        """Exact KL is asked of the scores."""
        return self.estimator == "exact"

    def coefficient(self, state: AlgorithmState) -> float:
        """The state's beta; where it starts, before there is one."""
        return self.beta if state.beta is None else state.beta

    def adapted(self, beta: float, kl: float) -> float:
        """The next beta, given the mean KL that this iteration reached."""
        if kl > 1.5 * self.target:
            return beta * 2
        return beta / 2 if kl < self.target / 1.5 else beta

    def __call__(self, scores: Scores, batch: Batch, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """beta · KL / N."""
        return self.coefficient(state) * batch.step_weight_BT * old_kl(self.estimator, scores, batch)

    def formula(self) -> str:
        """The term, for print."""
        return f"− β · 1/N Σₜ KL{_hat(self.estimator)}(π_old ‖ π)"

    def legend(self) -> str:
        """How beta moves, for print."""
        return f"β starts at {short(self.beta)}, doubled after KL > 1.5 · {short(self.target)}, halved after KL < {short(self.target)} / 1.5"


@dataclass(frozen=True)
class SqrtKL(Penalty):
    """beta · sqrt(mean over counted steps of KL(old || new)): TRPO's bound as a penalty, without a
    constraint.

    The root is of the whole optimiser batch's mean, which must be known first (`Batch.mean_kl`); then sqrt(m)
    = Σ (KL/(2 sqrt(m)) + sqrt(m)/2) / N, a plain sum with the same value and gradient. At KL 0 the root has a
    kink, and its gradient is taken as 0.
    """

    beta: float = 1.0
    to_old = True
    kl = True
    mean_kl = True

    def __post_init__(self) -> None:
        _check(self.beta, "exact")

    def __call__(self, scores: Scores, batch: Batch, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """beta · (KL / (2 sqrt(m)) + sqrt(m) / 2) / N."""
        if batch.mean_kl is None:
            raise UsageError(
                "SqrtKL needs mean_kl of the whole optimiser batch, and the batch has none. "
                "Score it once without gradient and add up mean_kl(scores, batch) over its micro-batches."
            )
        root = batch.mean_kl.clamp(min=0).sqrt()
        slope = torch.where(root > 1e-6, 0.5 / root.clamp(min=1e-6), torch.zeros_like(root))
        kl_BT = old_kl("exact", scores, batch)
        held_BT = torch.where(root > 1e-6, root / 2, root) * torch.ones_like(kl_BT)
        return self.coefficient(state) * batch.step_weight_BT * (slope * kl_BT + held_BT)

    def formula(self) -> str:
        """The term, for print."""
        return f"− {short(self.beta)} · √(1/N Σₜ KL(π_old ‖ π))"


@dataclass(frozen=True)
class ReferenceKL(Penalty):
    """beta · KL(π || reference), the frozen policy that training started from  (GRPO, eq. 3 and 4).

    place "loss": inside the same sums as the surrogate, so it takes the reduction's weights, as GRPO's
    formula has it. estimator k3 (GRPO's), k2 (the right gradient on policy) or "exact" over the vocabulary;
    see `kl_estimate` for the gradient of each. k1 in a loss has mean gradient 0 and is refused, unless
    `ratio_weighted` multiplies by π/π_old, which makes the value and the gradient of k1 and k3 those of KL(π
    || reference) at each old state. place "reward": beta · estimate is taken off each step's reward, before
    advantages.
    """

    beta: float = 0.04
    estimator: str = "k3"
    place: str = "loss"
    ratio_weighted: bool = False

    def __post_init__(self) -> None:
        _check(self.beta, self.estimator)
        if self.place not in ("loss", "reward"):
            raise UsageError(
                f"place is {self.place!r}: a reference KL acts in the 'loss' or in the 'reward'."
            )
        if self.place == "reward" and (self.estimator == "exact" or self.ratio_weighted):
            raise UsageError(
                "a reference KL in the reward is an estimate at the token that was taken, by the policy that took "
                "it. "
                "Use k1, k2 or k3 without ratio_weighted, or place='loss'."
            )
        if self.place == "loss" and self.estimator == "k1" and not self.ratio_weighted:
            raise UsageError(
                "k1 in the loss has mean gradient 0, so it would add noise and no pull. "
                "Use k2, k3 or exact, ratio_weighted=True, or place='reward'."
            )

    @property
    def reference(self) -> bool:  # type: ignore[override]
        """Estimates read the reference's logp; the exact KL comes with the scores."""
        return self.estimator != "exact"

    @property
    def reference_kl(self) -> bool:  # type: ignore[override]
        """Exact KL to the reference is asked of the scores."""
        return self.estimator == "exact"

    @property
    def in_reward(self) -> bool:  # type: ignore[override]
        """Whether it acts on rewards."""
        return self.place == "reward"

    @property
    def inside(self) -> bool:  # type: ignore[override]
        """Whether it stands in the surrogate's sums."""
        return self.place == "loss"

    def __call__(self, scores: Scores, batch: Batch, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """beta · weight · estimate; 0 when it acts on rewards."""
        if self.in_reward:
            return torch.zeros_like(scores.logp_BT)
        return self.coefficient(state) * batch.weight_BT * self.estimate(scores, batch)

    def estimate(self, scores: Scores, batch: Batch) -> Float[Tensor, "B T"]:
        """KL(π || reference) at each step, as its estimator has it; 0 where masked."""
        if self.estimator == "exact":
            return _masked(
                _present(scores.reference_kl_BT, "reference_kl_BT, the exact KL to the reference,"), batch
            )
        reference_BT = _present(batch.reference_logp_BT, "reference_logp_BT")
        # Masked before, not after: the gradient of exp at a padded place may be anything, and 0 times it too.
        logp_BT = _masked(scores.logp_BT, batch)
        kl_BT = kl_estimate(self.estimator, logp_BT, _masked(reference_BT, batch))
        if self.ratio_weighted:
            kl_BT = kl_BT * (logp_BT - _masked(batch.old_logp(scores), batch)).exp()
        return kl_BT

    def formula(self) -> str:
        """The term, for print."""
        weighted = "w " if self.ratio_weighted else ""
        return "" if self.in_reward else f"− {short(self.beta)} {weighted}KL{_hat(self.estimator)}(π ‖ π_ref)"

    def legend(self) -> str:
        """What it does to rewards, for print."""
        return f"rₜ less {short(self.beta)} KL{_hat(self.estimator)}(π_old ‖ π_ref)" if self.in_reward else ""


@dataclass(frozen=True)
class Entropy(Penalty):
    """-beta · mean over counted steps of the entropy: a bonus for staying open  (PPO, eq. 9, c2)."""

    beta: float = 0.01
    entropy = True

    def __call__(self, scores: Scores, batch: Batch, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """-beta · H / N."""
        entropy_BT = _masked(_present(scores.entropy_BT, "entropy_BT"), batch)
        return -self.coefficient(state) * batch.step_weight_BT * entropy_BT

    def formula(self) -> str:
        """The term, for print."""
        return f"+ {short(self.beta)} · 1/N Σₜ H(π)"


def old_kl(estimator: str, scores: Scores, batch: Batch) -> Float[Tensor, "B T"]:
    """KL(old || new) at each step: exact from the scores, or estimated from the tokens; 0 where masked."""
    if estimator == "exact":
        return _masked(_present(scores.kl_BT, "kl_BT, the exact KL to the old policy,"), batch)
    return kl_estimate(estimator, _masked(batch.old_logp(scores), batch), _masked(scores.logp_BT, batch))


def mean_kl(scores: Scores, batch: Batch) -> Float[Tensor, ""]:
    """The rows' share of the optimiser batch's mean KL(old || new); shares of micro-batches add up."""
    return (batch.step_weight_BT * old_kl("exact", scores, batch)).sum().detach()


def _masked(x_BT: Tensor, batch: Batch) -> Tensor:
    return torch.where(batch.mask_BT, x_BT, torch.zeros((), dtype=x_BT.dtype, device=x_BT.device))


def _present(x_BT: Tensor | None, name: str) -> Tensor:
    if x_BT is None:
        raise UsageError(
            f"the algorithm's penalty needs {name} and it was not given. Supply what needs(algorithm) lists."
        )
    return x_BT


def _check(beta: float, estimator: str) -> None:
    if not beta >= 0:
        raise UsageError(
            f"beta is {beta}: a negative penalty would push the policy away for ever. Use 0 or more."
        )
    if estimator not in ESTIMATORS:
        raise UsageError(f"estimator is {estimator!r}. Use one of: {', '.join(ESTIMATORS)}.")


def _hat(estimator: str) -> str:
    return "" if estimator == "exact" else f"[{estimator}]"
