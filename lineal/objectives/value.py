"""The critic: its settings, and its error. The loop owns the critic itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.formula import short


@dataclass(frozen=True)
class Critic:
    """The settings of a critic.

    kind: "head" on the policy's hidden states, or a "separate" model.
    coefficient: weight of the value loss beside the objective (c1 in PPO, eq. 9), under Adam.
    clip: range of value clipping; 0 turns it off.
    epochs, learning_rate: of the fit that follows a trust-region or natural step; a head then reads detached
    features, for a shared trunk would move the policy after its KL was accepted.
    """

    kind: str = "head"
    coefficient: float = 0.5
    clip: float = 0.0
    epochs: int = 5
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.kind not in ("head", "separate"):
            raise UsageError(
                f"critic is {self.kind!r}: it says where the critic lives. Use 'head' or 'separate'."
            )
        if self.clip < 0:
            raise UsageError(
                f"value_clip is {self.clip}: it is the range of a clip. Use a number above 0, or 0 for off."
            )

    def formula(self) -> str:
        """The loss, for print."""
        if not self.clip:
            return "1/N Σₜ (V − R)²"
        return f"1/N Σₜ max((V − R)², (V_old + clip(V − V_old, ±{short(self.clip)}) − R)²)"


def squared_error(
    value_BT: Float[Tensor, "B T"],
    return_BT: Float[Tensor, "B T"],
    old_value_BT: Float[Tensor, "B T"],
    clip: float,
) -> Float[Tensor, "B T"]:
    """(V - R)², or with clip c its maximum with (V_old + clip(V - V_old, ±c) - R)²  (PPO's code)."""
    error_BT = (value_BT - return_BT).square()
    if not clip:
        return error_BT
    held_BT = old_value_BT + (value_BT - old_value_BT).clamp(-clip, clip)
    return torch.maximum(error_BT, (held_BT - return_BT).square())
