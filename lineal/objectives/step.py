"""The step slot: how parameters move. These are settings only; `lineal.optim` and the loop carry them out."""

from __future__ import annotations

from dataclasses import dataclass

from lineal.errors import UsageError
from lineal.objectives.formula import short


@dataclass(frozen=True)
class Adam:
    """AdamW for `epochs` passes over each rollout, each cut into `minibatches` optimiser batches.

    learning_rate, betas, eps, weight_decay are AdamW's (Loshchilov and Hutter 2019); max_grad_norm is the
    global gradient clip, 0 turns it off.
    """

    learning_rate: float = 1e-6
    epochs: int = 1
    minibatches: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _positive("learning_rate", self.learning_rate)
        _at_least_one("epochs", self.epochs)
        _at_least_one("minibatches", self.minibatches)

    def formula(self) -> str:
        """One line that says how parameters move."""
        return (
            f"Adam(learning rate {short(self.learning_rate)}, {_count(self.epochs, 'epoch')}"
            f" of {_count(self.minibatches, 'minibatch', 'minibatches')})"
        )


@dataclass(frozen=True)
class TrustRegion:
    """TRPO's step: the natural direction, its length from max_kl, then backtracking (Schulman et al. 2015,
    app. C).

    x solves (F + damping I) x = g by `cg_iterations` of conjugate gradient; the full step is sqrt(2 max_kl /
    x'Fx) x; it is multiplied by `backtrack` up to `max_backtracks` times until the mean KL(old || new) is at
    most max_kl and the surrogate has risen. `parameters`: only those whose name contains one of these parts
    move; None means all.
    A step uses its rollout once: epochs and minibatches exist so that every step has them, and must be 1.
    """

    max_kl: float = 0.01
    cg_iterations: int = 10
    damping: float = 0.1
    backtrack: float = 0.5
    max_backtracks: int = 10
    parameters: tuple[str, ...] | None = None
    epochs: int = 1
    minibatches: int = 1

    def __post_init__(self) -> None:
        _positive("max_kl", self.max_kl)
        _at_least_one("cg_iterations", self.cg_iterations)
        _once("TrustRegion", self.epochs, self.minibatches)
        if not 0 < self.backtrack < 1:
            raise UsageError(
                f"backtrack is {self.backtrack}: the step must shrink. Use a number between 0 and 1."
            )

    def formula(self) -> str:
        """One line that says how parameters move."""
        return (
            f"trust region: mean KL(π_old ‖ π) ≤ {short(self.max_kl)}, "
            f"{_count(self.cg_iterations, 'conjugate-gradient iteration')}, damping {short(self.damping)}, "
            f"backtracking by {short(self.backtrack)} at most {_count(self.max_backtracks, 'time')}"
        )


@dataclass(frozen=True)
class NaturalGradient:
    """One natural-gradient step sqrt(2 max_kl / g'F⁻¹g) F⁻¹g without line search (Kakade 2001).

    `exact` builds F and solves directly (small models only); otherwise conjugate gradient is truncated after
    `cg_iterations` (the truncated natural policy gradient). `parameters` as in TrustRegion.
    """

    max_kl: float = 0.01
    exact: bool = False
    cg_iterations: int = 10
    damping: float = 0.1
    parameters: tuple[str, ...] | None = None
    epochs: int = 1
    minibatches: int = 1

    def __post_init__(self) -> None:
        _positive("max_kl", self.max_kl)
        _at_least_one("cg_iterations", self.cg_iterations)
        _once("NaturalGradient", self.epochs, self.minibatches)

    def formula(self) -> str:
        """One line that says how parameters move."""
        how = "exact" if self.exact else f"{_count(self.cg_iterations, 'conjugate-gradient iteration')}"
        return f"natural gradient: ½ Δ'FΔ = {short(self.max_kl)}, {how}, damping {short(self.damping)}, no line search"


Step = Adam | TrustRegion | NaturalGradient


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{name} is {value}: parameters would not move. Use a number above 0.")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name} is {value}: nothing would be done. Use 1 or more.")


def _once(kind: str, epochs: int, minibatches: int) -> None:
    if epochs != 1 or minibatches != 1:
        raise UsageError(
            f"{kind} with epochs {epochs} and minibatches {minibatches}: its KL bound is measured from the policy "
            "that sampled, over the whole rollout, so a second step would leave the region. Use 1 and 1, or Adam."
        )


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
