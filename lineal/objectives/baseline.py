"""Baselines: what is subtracted from a return. One that does not depend on its own sample adds no bias.

A member maps (return_BT, rollout, state) to baseline_BT, or to a number that stands for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.formula import short
from lineal.objectives.group import Members, renumber
from lineal.objectives.state import AlgorithmState
from lineal.objectives.value import Critic
from lineal.ops.masked import masked_mean
from lineal.types import Rollout


class Baseline:
    """Base of the baselines. `grouped`: reads the other completions of the prompt."""

    grouped = False

    @property
    def critic_part(self) -> Critic | None:
        """The critic it reads, if any."""
        return None

    def __call__(
        self, return_BT: Float[Tensor, "B T"], rollout: Rollout, state: AlgorithmState
    ) -> Float[Tensor, "B T"]:
        """The baseline of each step."""
        raise NotImplementedError

    def formula(self) -> str:
        """What follows the return, for print."""
        return ""


@dataclass(frozen=True)
class NoBaseline(Baseline):
    """b = 0."""

    def __call__(
        self, return_BT: Float[Tensor, "B T"], rollout: Rollout, state: AlgorithmState
    ) -> Float[Tensor, "B T"]:
        """0."""
        return torch.zeros_like(return_BT)


@dataclass(frozen=True)
class RunningMean(Baseline):
    """b = the mean return of completions of earlier batches, each batch forgotten by `decay` per later one.

    Independent of its own batch, so it adds no bias; 0 on the first batch. decay 1 is the plain running mean.
    """

    decay: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise UsageError(f"decay is {self.decay}: it is the share of the past that stays. Use 0 to 1.")

    def __call__(
        self, return_BT: Float[Tensor, "B T"], rollout: Rollout, state: AlgorithmState
    ) -> Float[Tensor, "B T"]:
        """The mean so far."""
        return torch.full_like(return_BT, state.baseline_mean)

    def formula(self) -> str:
        """What follows the return, for print."""
        return f" − running mean (decay {short(self.decay)})"


@dataclass(frozen=True)
class LeaveOneOut(Baseline):
    """b_i = mean return of the other completions of the prompt, so unbiased  (RLOO; Kool et al. 2019)."""

    grouped = True

    def __call__(
        self, return_BT: Float[Tensor, "B T"], rollout: Rollout, state: AlgorithmState
    ) -> Float[Tensor, "B T"]:
        """(Σ R - R_i) / (G - 1); one left alone in its group is its own baseline, so it pulls nowhere."""
        alive_B = rollout.mask_BT.any(1)
        first_B = rollout.mask_BT.long().argmax(1)
        return_B = return_BT.gather(1, first_B[:, None])[:, 0]
        index_B, groups = renumber(rollout.group_B)
        members = Members.of(index_B, groups, alive_B)
        others_B = members.count()[index_B] - 1
        mean_B = (members.sum(return_B)[index_B] - return_B) / others_B.clamp(min=1)
        return torch.where((others_B < 1)[:, None], return_BT, mean_B[:, None])

    def formula(self) -> str:
        """What follows the return, for print."""
        return " − mean of the other G − 1 returns of the prompt"


@dataclass(frozen=True)
class Learned(Baseline):
    """b_t = V(s_t) of a critic fitted to the returns."""

    critic: Critic = field(default_factory=Critic)

    @property
    def critic_part(self) -> Critic | None:
        """The critic."""
        return self.critic

    def __call__(
        self, return_BT: Float[Tensor, "B T"], rollout: Rollout, state: AlgorithmState
    ) -> Float[Tensor, "B T"]:
        """V(s_t)."""
        if rollout.value_BT is None:
            raise UsageError(
                "a learned baseline needs value_BT, the critic's values, and the rollout has none. "
                "Score it with the critic."
            )
        return rollout.value_BT

    def formula(self) -> str:
        """What follows the return, for print."""
        return " − V(sₜ)"


def mean_return(return_BT: Float[Tensor, "B T"], rollout: Rollout) -> tuple[float, float]:
    """Σ over completions of their mean return, and how many completions there are (for RunningMean)."""
    alive_B = rollout.mask_BT.any(1)
    mean_B = masked_mean(return_BT, rollout.mask_BT, dim=1)
    return float(torch.where(alive_B, mean_B, torch.zeros_like(mean_B)).double().sum()), float(alive_B.sum())
