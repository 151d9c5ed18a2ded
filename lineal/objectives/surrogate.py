"""The surrogate slot: log-ratio and advantage -> what is maximised at each step, before weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.formula import short


class Surrogate:
    """Base of the surrogate slot. `bounded`: has clip bounds, so it needs a ratio that they bound."""

    bounded = False

    def __call__(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """What is maximised at each step."""
        raise NotImplementedError

    def clipped(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> tuple[Bool[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Where the lower and where the upper bound acts; nowhere unless there are bounds."""
        none_BT = torch.zeros_like(advantage_BT, dtype=torch.bool)
        return none_BT, none_BT

    def slope(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Its derivative in the log-ratio, by autograd unless a member writes it out.

        For policies so small that autograd's bookkeeping takes longer than the arithmetic.
        """
        with torch.enable_grad():
            leaf_BT = log_ratio_BT.detach().requires_grad_()
            return torch.autograd.grad(self(leaf_BT, advantage_BT).sum(), leaf_BT)[0]

    def formula(self, ratio: str, advantage: str) -> str:
        """The expression, for print, from the symbols of the ratio and of the advantage."""
        raise NotImplementedError


@dataclass(frozen=True)
class LogLikelihood(Surrogate):
    """log π(y_t) A_t, whose gradient is REINFORCE's  (Williams 1992); takes NoRatio."""

    def __call__(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """log π(y_t) A_t."""
        return log_ratio_BT * advantage_BT

    def slope(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """A."""
        return advantage_BT

    def formula(self, ratio: str, advantage: str) -> str:
        """The expression, for print."""
        return f"log π(yₜ) {advantage}"


@dataclass(frozen=True)
class Linear(Surrogate):
    """w A, the first-order surrogate  (TRPO, eq. 14)."""

    def __call__(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """w A."""
        return log_ratio_BT.exp() * advantage_BT

    def slope(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """w A."""
        return log_ratio_BT.exp() * advantage_BT

    def formula(self, ratio: str, advantage: str) -> str:
        """The expression, for print."""
        return f"{ratio} {advantage}"


@dataclass(frozen=True)
class Clip(Surrogate):
    """min(w A, clip(w, 1 - low, 1 + high) A)  (PPO, eq. 7; DAPO's clip-higher when high > low).

    With `dual` c > 1 and A < 0 it is max(that, c A), so a large ratio cannot pull without bound (Ye et al.
    2020, eq. 5). The gradient is 0 only where w > 1 + high and A > 0, where w < 1 - low and A < 0, or where
    dual acts.
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None
    bounded = True

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high)
        if self.dual is not None and self.dual <= 1 + self.high:
            raise UsageError(
                f"dual clip is {self.dual}: it bounds ratios far above 1 + clip_high = {short(1 + self.high)}. "
                "Use a larger number (3 is common), or none."
            )

    def __call__(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """min(w A, clip(w) A)."""
        ratio_BT = log_ratio_BT.exp()
        bounded_BT = ratio_BT.clamp(1 - self.low, 1 + self.high)
        value_BT = torch.minimum(ratio_BT * advantage_BT, bounded_BT * advantage_BT)
        if self.dual is None:
            return value_BT
        return torch.where(advantage_BT < 0, torch.maximum(value_BT, self.dual * advantage_BT), value_BT)

    def slope(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """w A, and 0 where a bound acts: there w A exceeds clip(w) A, which is constant."""
        if self.dual is not None:
            return super().slope(log_ratio_BT, advantage_BT)
        ratio_BT = log_ratio_BT.exp()
        value_BT = ratio_BT * advantage_BT
        bounded_BT = ratio_BT.clamp_(1 - self.low, 1 + self.high).mul_(advantage_BT)
        return value_BT.masked_fill_(value_BT > bounded_BT, 0.0)

    def clipped(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> tuple[Bool[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Where the gradient is zero: below the lower bound at A < 0; above the upper at A > 0, or dual."""
        ratio_BT = log_ratio_BT.exp()
        low_BT = (advantage_BT < 0) & (ratio_BT < 1 - self.low)
        high_BT = (advantage_BT > 0) & (ratio_BT > 1 + self.high)
        if self.dual is not None:
            high_BT = high_BT | ((advantage_BT < 0) & (ratio_BT > self.dual))
        return low_BT, high_BT

    def formula(self, ratio: str, advantage: str) -> str:
        """The expression, for print."""
        inner = f"min({ratio} {advantage}, clip({ratio}, 1 − {short(self.low)}, 1 + {short(self.high)}) {advantage})"
        return (
            inner
            if self.dual is None
            else f"[{advantage} < 0: max({inner}, {short(self.dual)} {advantage}); else {inner}]"
        )


@dataclass(frozen=True)
class ClippedWeight(Surrogate):
    """sg[clip(w, 1 - low, 1 + high)] A log w, whose gradient is clip(w) A ∇log π  (CISPO, eq. 4).

    The weight is clipped, the gradient never is: every token keeps pulling. low = 1 means no lower bound.
    Departs in value only: log w stands for log π, which differs by a constant.
    """

    low: float = 1.0
    high: float = 4.0
    bounded = True

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high)

    def __call__(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """sg[clip(w)] A log w."""
        bounded_BT = log_ratio_BT.detach().exp().clamp(1 - self.low, 1 + self.high)
        return bounded_BT * advantage_BT * log_ratio_BT

    def clipped(
        self, log_ratio_BT: Float[Tensor, "B T"], advantage_BT: Float[Tensor, "B T"]
    ) -> tuple[Bool[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Where the weight is clipped, whatever the sign of A (0 excepted)."""
        ratio_BT = log_ratio_BT.exp()
        moved_BT = advantage_BT != 0
        return moved_BT & (ratio_BT < 1 - self.low), moved_BT & (ratio_BT > 1 + self.high)

    def formula(self, ratio: str, advantage: str) -> str:
        """The expression, for print."""
        return (
            f"sg[clip({ratio}, {short(max(1 - self.low, 0))}, {short(1 + self.high)})] {advantage} log π(yₜ)"
        )


def _check_bounds(low: float, high: float) -> None:
    for name, bound in (("clip_low", low), ("clip_high", high)):
        if not bound >= 0:
            raise UsageError(
                f"{name} is {bound}: the bounds are 1 - clip_low and 1 + clip_high. Use 0 or more."
            )
