"""The ratio slot: which log-ratio between the new and the old policy the surrogate sees.

Each member maps (logp_BT, old_logp_BT, mask_BT) to log_ratio_BT, 0 where masked. The raw product over a
trajectory is never optimised; `objective` logs it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lineal.ops.masked import masked_mean


class Ratio:
    """Base of the ratio slot. `uses_old`: reads old_logp. `whole_sequence`: one ratio per completion."""

    uses_old = True
    whole_sequence = False
    symbol = "w"

    def __call__(
        self, logp_BT: Float[Tensor, "B T"], old_logp_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """The log-ratio at each step."""
        raise NotImplementedError

    def formula(self) -> str:
        """The definition, for print; empty where there is nothing to define."""
        return ""


@dataclass(frozen=True)
class NoRatio(Ratio):
    """No ratio: log π(y_t) itself, for REINFORCE and RLOO."""

    uses_old = False
    symbol = "log π"

    def __call__(
        self, logp_BT: Float[Tensor, "B T"], old_logp_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """log π(y_t)."""
        return _where(mask_BT, logp_BT)


@dataclass(frozen=True)
class TokenRatio(Ratio):
    """w_t = π(y_t) / π_old(y_t), per token  (PPO, eq. 6)."""

    def __call__(
        self, logp_BT: Float[Tensor, "B T"], old_logp_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """log π(y_t) - log π_old(y_t)."""
        return _where(mask_BT, logp_BT - old_logp_BT)

    def formula(self) -> str:
        """The definition, for print."""
        return "w = π(yₜ) / π_old(yₜ)"


@dataclass(frozen=True)
class SequenceRatio(Ratio):
    """s = (π(y) / π_old(y))^(1/|y|), the geometric mean over a completion, at each step  (GSPO, eq. 7)."""

    whole_sequence = True
    symbol = "s"

    def __call__(
        self, logp_BT: Float[Tensor, "B T"], old_logp_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """mean_t (log π(y_t) - log π_old(y_t)), at each counted step."""
        mean_B = masked_mean(logp_BT - old_logp_BT, mask_BT, dim=1)
        return _where(mask_BT, mean_B[:, None].expand_as(logp_BT))

    def formula(self) -> str:
        """The definition, for print."""
        return "s = exp(1/|yᵢ| Σₜ log π(yₜ)/π_old(yₜ))"


@dataclass(frozen=True)
class SequenceTokenRatio(Ratio):
    """s_t = sg[s] · π(y_t) / sg[π(y_t)]: the sequence ratio with a token's gradient  (GSPO-token, eq. 14)."""

    symbol = "sₜ"

    def __call__(
        self, logp_BT: Float[Tensor, "B T"], old_logp_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """sg[log s] + log π(y_t) - sg[log π(y_t)]."""
        held_BT = logp_BT.detach()
        mean_B = masked_mean(held_BT - old_logp_BT, mask_BT, dim=1)
        return _where(mask_BT, mean_B[:, None] + (logp_BT - held_BT))

    def formula(self) -> str:
        """The definition, for print."""
        return "sₜ = sg[s] · π(yₜ)/sg[π(yₜ)],  s = exp(1/|yᵢ| Σₜ log π(yₜ)/π_old(yₜ)),  sg = no gradient"


def _where(mask_BT: Tensor, x_BT: Tensor) -> Tensor:
    return torch.where(mask_BT, x_BT, torch.zeros((), dtype=x_BT.dtype, device=x_BT.device))
