"""What an algorithm is, what it needs of a loop, and its state before the first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lineal.errors import UsageError
from lineal.objectives.advantage import Advantage
from lineal.objectives.formula import describe
from lineal.objectives.group import Group
from lineal.objectives.penalty import AdaptiveKL, Penalty
from lineal.objectives.ratio import Ratio
from lineal.objectives.record import decode, encode
from lineal.objectives.reduction import Reduction
from lineal.objectives.refuse import refuse
from lineal.objectives.state import AlgorithmState
from lineal.objectives.step import Adam, Step
from lineal.objectives.surrogate import Surrogate
from lineal.objectives.value import Critic


@dataclass(frozen=True)
class Algorithm:
    """A policy-gradient algorithm: which completions, which advantage, which ratio, and so on, in seven
    slots.

    `str(algorithm)` is its formula; two with equal slots are equal, whatever their names; `to_json` and
    `from_json` round-trip. A product of parts that means nothing is refused here, with the reason
    (UsageError).
    """

    group: Group
    advantage: Advantage
    ratio: Ratio
    surrogate: Surrogate
    reduction: Reduction
    penalty: tuple[Penalty, ...]
    step: Step
    name: str = field(default="custom", compare=False)

    def __post_init__(self) -> None:
        refuse(self)

    def __str__(self) -> str:
        return describe(self)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that json can write: each part as its kind and its numbers."""
        return encode(self)

    @classmethod
    def from_json(cls, record: dict[str, Any] | str, parts: dict[str, type] | None = None) -> Algorithm:
        """The algorithm that `to_json` wrote (or its JSON text); `parts` names parts of your own."""
        try:
            return cls(**decode(record, parts))
        except TypeError as error:
            raise UsageError(
                f"this JSON is no algorithm: {error}. Write it with algorithm.to_json()."
            ) from error

    @property
    def optimiser_steps(self) -> int:
        """How many optimiser steps a rollout is used for."""
        return self.step.epochs * self.step.minibatches

    @property
    def grouped(self) -> bool:
        """True when rows must be whole completions of one episode each."""
        parts = (self.advantage.grouped, self.ratio.whole_sequence, self.reduction.grouped)
        return any(parts) or self.group.keep == "mixed"


@dataclass(frozen=True)
class Needs:
    """What the loop must supply, besides the rollout and each step's logp.

    old_logp: one scoring pass before the first optimiser step, into Rollout.old_logp_BT.
    old_policy: a frozen copy of the policy as it was before the update, for Scores.kl_BT, exact KL(old ||
    new).
    mean_kl: Batch.mean_kl, one pass without gradient before each optimiser step.
    measured_kl: the mean KL(old || new) after the iteration, as stats["kl"] for `update_state`.
    reference: a frozen copy of the starting policy, into Rollout.reference_logp_BT.
    reference_kl: Scores.reference_kl_BT, exact KL(new || reference).
    entropy: Scores.entropy_BT.
    critic: its settings, or None; with one, Rollout.value_BT and Scores.value_BT (and next_value_BT for
    environments).
    one_episode: rows must be whole completions of one episode each.
    """

    old_logp: bool = False
    kl: bool = False
    mean_kl: bool = False
    measured_kl: bool = False
    reference: bool = False
    reference_kl: bool = False
    entropy: bool = False
    critic: Critic | None = None
    one_episode: bool = False


def needs(algorithm: Algorithm) -> Needs:
    """What the loop must supply for this algorithm."""
    penalties = algorithm.penalty
    in_reward = any(penalty.in_reward for penalty in penalties)
    many = algorithm.optimiser_steps > 1 or not isinstance(algorithm.step, Adam)
    return Needs(
        old_logp=in_reward or (algorithm.ratio.uses_old and many),
        kl=any(penalty.kl for penalty in penalties) or not isinstance(algorithm.step, Adam),
        mean_kl=any(penalty.mean_kl for penalty in penalties),
        measured_kl=any(isinstance(penalty, AdaptiveKL) for penalty in penalties),
        reference=any(penalty.reference for penalty in penalties),
        reference_kl=any(penalty.reference_kl for penalty in penalties),
        entropy=any(penalty.entropy for penalty in penalties),
        critic=algorithm.advantage.critic_part,
        one_episode=algorithm.grouped,
    )


def initial_state(algorithm: Algorithm) -> AlgorithmState:
    """The state before the first step: the adaptive penalty's starting beta, everything else empty."""
    for penalty in algorithm.penalty:
        if isinstance(penalty, AdaptiveKL):
            return AlgorithmState(beta=penalty.beta)
    return AlgorithmState()
