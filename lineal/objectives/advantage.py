"""The advantage slot: rewards -> how much better than expected each step was.

A member maps (rollout, state) to advantage_BT, 0 where masked. Members that compare the completions of one
prompt are `grouped`: they need one episode per row and more than one completion per prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.baseline import Baseline, Learned, NoBaseline
from lineal.objectives.formula import short
from lineal.objectives.group import Members, renumber
from lineal.objectives.state import AlgorithmState
from lineal.objectives.value import Critic
from lineal.ops.masked import masked_sum, whiten
from lineal.ops.returns import discounted, full_return, gae
from lineal.types import Rollout


class Advantage:
    """Base of the advantage slot.

    grouped: compares the completions of a prompt. per_step: differs between the steps of a completion.
    critic: the critic it reads, or None. whiten: "rollout", "minibatch" or "off". discount: of the returns it
    uses.
    """

    grouped: bool = False
    per_step: bool = False
    whiten: str = "off"
    scale_reward: bool = False
    discount: float = 1.0
    symbol: str = "Aᵢ"

    @property
    def critic_part(self) -> Critic | None:
        """The critic whose values it reads, if any."""
        return None

    @property
    def baseline_part(self) -> Baseline | None:
        """The baseline it subtracts, if it has one of its own."""
        return None

    def with_critic(self, critic: Critic) -> Advantage:
        """The same with another critic, for those that have one."""
        raise UsageError(f"{type(self).__name__} has no critic. Use GAE, or the Learned baseline.")

    def returns(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        """The returns that its baseline is taken off, for those that have one."""
        raise UsageError(f"{type(self).__name__} has no baseline of its own. Use FullReturn or RewardToGo.")

    def raw(self, rollout: Rollout, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """The advantage before whitening; with a critic, raw + value is what the critic is fitted to."""
        raise NotImplementedError

    def __call__(self, rollout: Rollout, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """The advantage of each step, whitened over the rollout where that was asked for."""
        raw_BT = self.raw(rollout, state)
        return whiten(raw_BT, rollout.mask_BT) if self.whiten == "rollout" else raw_BT

    def formula(self) -> str:
        """The definition, for print."""
        return f"{self.symbol} = {self!r}"


class Baselined(Advantage):
    """What the advantages that are a return less a baseline share; they hold `baseline` and `discount`."""

    baseline: Baseline

    @property
    def grouped(self) -> bool:  # type: ignore[override]
        """As its baseline is."""
        return self.baseline.grouped

    @property
    def critic_part(self) -> Critic | None:
        """The critic of a learned baseline."""
        return self.baseline.critic_part

    @property
    def baseline_part(self) -> Baseline | None:
        """The baseline."""
        return self.baseline

    def with_critic(self, critic: Critic) -> Advantage:
        """The same with another critic."""
        return replace(cast(Any, self), baseline=Learned(critic))


@dataclass(frozen=True)
class FullReturn(Baselined):
    """A = R - b, R = Σ_t discount^t r_t the whole episode's return, the same at each of its steps."""

    baseline: Baseline = field(default_factory=NoBaseline)
    discount: float = 1.0

    def returns(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        """R at each step."""
        return full_return(rollout.reward_BT, rollout.mask_BT, self.discount, rollout.segment_BT)

    def raw(self, rollout: Rollout, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """R - b."""
        return _centred(self.returns(rollout), self.baseline, rollout, state)

    def formula(self) -> str:
        """The definition, for print."""
        reward = "rᵢ" if self.discount == 1 else f"Σₜ {short(self.discount)}ᵗ rₜ"
        return f"Aᵢ = {reward}{self.baseline.formula()}"


@dataclass(frozen=True)
class RewardToGo(Baselined):
    """A_t = G_t - b_t, G_t = Σ_{k>=t} discount^(k-t) r_k: a step is judged by what follows it  (REINFORCE)."""

    baseline: Baseline = field(default_factory=NoBaseline)
    discount: float = 1.0
    per_step = True
    symbol = "Aₜ"

    def returns(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        """G_t at each step."""
        return discounted(rollout.reward_BT, rollout.mask_BT, self.discount, rollout.segment_BT)

    def raw(self, rollout: Rollout, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """G_t - b_t."""
        return _centred(self.returns(rollout), self.baseline, rollout, state)

    def formula(self) -> str:
        """The definition, for print."""
        factor = "" if self.discount == 1 else f"{short(self.discount)}ᵏ⁻ᵗ "
        return f"Aₜ = Σ(k ≥ t) {factor}rₖ{self.baseline.formula()}"


@dataclass(frozen=True)
class GroupMean(Advantage):
    """A = r - mean of its group, r itself included, which scales the gradient by 1 - 1/G  (Dr. GRPO)."""

    grouped = True

    def raw(self, rollout: Rollout, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """r - mean."""
        deviation_B, _ = _deviation(rollout, ddof=1)
        return _spread(deviation_B, rollout)

    def formula(self) -> str:
        """The definition, for print."""
        return "Aᵢ = rᵢ − mean(r₁..r_G)"


@dataclass(frozen=True)
class GroupNormalised(Advantage):
    """A = (r - mean) / (std + eps) within its group  (GRPO, section 4.1.2).

    ddof 1 divides the variance by G - 1 (torch's std, the authors' and TRL's code), 0 by G; eps is 1e-4 as in
    TRL.
    """

    ddof: int = 1
    eps: float = 1e-4
    grouped = True

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise UsageError(
                f"ddof is {self.ddof}: the variance is divided by G - ddof. Use 1 (sample) or 0 (population)."
            )

    def raw(self, rollout: Rollout, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """(r - mean) / (std + eps)."""
        deviation_B, std_B = _deviation(rollout, self.ddof)
        return _spread(deviation_B / (std_B + self.eps), rollout)

    def formula(self) -> str:
        """The definition, for print."""
        over = "G − 1" if self.ddof else "G"
        return f"Aᵢ = (rᵢ − mean(r₁..r_G)) / (std(r₁..r_G) + {short(self.eps)}), std over {over}"


@dataclass(frozen=True)
class GAE(Advantage):
    """Generalised advantage estimation from a critic  (Schulman et al. 2016); TD error at trace_decay 0.

    whiten: "rollout", "minibatch" (each optimiser batch) or "off". scale_reward divides rewards by the
    running standard deviation of their discounted return (a code-level choice of PPO's code).
    """

    discount: float = 1.0
    trace_decay: float = 0.95
    whiten: str = "rollout"
    critic: Critic = field(default_factory=Critic)
    scale_reward: bool = False
    per_step = True
    symbol = "Aₜ"

    def __post_init__(self) -> None:
        if self.whiten not in ("rollout", "minibatch", "off"):
            raise UsageError(
                f"whiten is {self.whiten!r}: it says over what advantages are whitened. "
                "Use 'rollout', 'minibatch' or 'off'."
            )
        for name, number in (("discount", self.discount), ("trace_decay", self.trace_decay)):
            if not 0 <= number <= 1:
                raise UsageError(f"{name} is {number}: later rewards would outweigh sooner ones. Use 0 to 1.")

    @property
    def critic_part(self) -> Critic | None:
        """The critic."""
        return self.critic

    def with_critic(self, critic: Critic) -> Advantage:
        """The same with another critic."""
        return replace(self, critic=critic)

    def raw(self, rollout: Rollout, state: AlgorithmState) -> Float[Tensor, "B T"]:
        """Σ_k (discount · trace_decay)^k δ_{t+k}."""
        if rollout.value_BT is None:
            raise UsageError(
                "GAE needs value_BT, the critic's values, and the rollout has none. Score it with the critic."
            )
        next_value_BT = rollout.next_value_BT
        if next_value_BT is not None:
            next_value_BT = torch.where(rollout.terminated_BT, torch.zeros_like(next_value_BT), next_value_BT)
        return gae(
            rollout.reward_BT,
            rollout.value_BT,
            rollout.mask_BT,
            self.discount,
            self.trace_decay,
            next_value_BT=next_value_BT,
            ended_BT=rollout.terminated_BT | rollout.truncated_BT,
            segment_BT=rollout.segment_BT,
        )

    def formula(self) -> str:
        """The definition, for print."""
        decay = self.discount * self.trace_decay
        discount = "" if self.discount == 1 else f"{short(self.discount)} "
        white = "" if self.whiten == "off" else f", whitened over the {self.whiten}"
        scaled = ", r / running std of returns" if self.scale_reward else ""
        return f"Aₜ = Σₖ {short(decay)}ᵏ δₜ₊ₖ, δₜ = rₜ + {discount}V(sₜ₊₁) − V(sₜ){white}{scaled}"


def _centred(return_BT: Tensor, baseline: Baseline, rollout: Rollout, state: AlgorithmState) -> Tensor:
    baseline_BT = baseline(return_BT, rollout, state)
    return torch.where(rollout.mask_BT, return_BT - baseline_BT, torch.zeros_like(return_BT))


def _deviation(rollout: Rollout, ddof: int) -> tuple[Tensor, Tensor]:
    """r - mean and std of each completion's group; both exactly 0 in a group whose rewards are all equal."""
    reward_B = masked_sum(rollout.reward_BT, rollout.mask_BT, dim=1)
    alive_B = rollout.mask_BT.any(1)
    index_B, groups = renumber(rollout.group_B)
    members = Members.of(index_B, groups, alive_B)
    size_P = members.count().to(reward_B.dtype)
    mean_P = members.sum(reward_B) / size_P.clamp(min=1)
    # Rounding of the mean must not pull where nothing is to be learned.
    mixed_B = members.mixed(reward_B)[index_B] & alive_B
    deviation_B = torch.where(mixed_B, reward_B - mean_P[index_B], torch.zeros_like(reward_B))
    variance_P = members.sum(deviation_B.square()) / (size_P - ddof).clamp(min=1)
    return deviation_B, variance_P.sqrt()[index_B]


def _spread(advantage_B: Tensor, rollout: Rollout) -> Tensor:
    return torch.where(rollout.mask_BT, advantage_B[:, None], torch.zeros_like(rollout.reward_BT))
