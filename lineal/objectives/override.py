"""Single numbers of an algorithm, changed by name: what the command line's options are."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

from lineal.errors import UsageError
from lineal.objectives.definition import Algorithm
from lineal.objectives.penalty import Entropy, Penalty, ReferenceKL

WHERE: dict[str, tuple[str, str, str]] = {
    "group_size": ("group", "size", "group"),
    "keep": ("group", "keep", "group"),
    "refill": ("group", "refill", "group"),
    "epochs": ("step", "epochs", "step"),
    "minibatches": ("step", "minibatches", "step"),
    "learning_rate": ("step", "learning_rate", "learning rate: its step's length comes from max_kl"),
    "weight_decay": ("step", "weight_decay", "weight decay: its step is not Adam's"),
    "max_grad_norm": ("step", "max_grad_norm", "gradient clip: its step's length comes from max_kl"),
    "max_kl": ("step", "max_kl", "trust region: its step is Adam's"),
    "cg_iterations": ("step", "cg_iterations", "conjugate gradient: its step is Adam's"),
    "damping": ("step", "damping", "conjugate gradient: its step is Adam's"),
    "backtrack": ("step", "backtrack", "line search"),
    "max_backtracks": ("step", "max_backtracks", "line search"),
    "subset": ("step", "parameters", "trust region: its step is Adam's"),
    "clip_low": ("surrogate", "low", "clip"),
    "clip_high": ("surrogate", "high", "clip"),
    "dual_clip": ("surrogate", "dual", "dual clip"),
    "budget": ("reduction", "tokens", "budget: its reduction does not divide by a constant"),
    "discount": ("advantage", "discount", "discount: its advantage compares whole completions"),
    "trace_decay": ("advantage", "trace_decay", "trace decay: its advantage is not GAE"),
    "whiten": ("advantage", "whiten", "whitening: its advantage is not GAE"),
    "reward_scaling": ("advantage", "scale_reward", "reward scaling: its advantage is not GAE"),
    "std_eps": ("advantage", "eps", "standard deviation: its advantage is not normalised by the group"),
    "critic": ("critic", "kind", "critic"),
    "value_coefficient": ("critic", "coefficient", "critic"),
    "value_clip": ("critic", "clip", "critic"),
    "critic_epochs": ("critic", "epochs", "critic"),
    "critic_learning_rate": ("critic", "learning_rate", "critic"),
    "target_kl": ("old_kl", "target", "adaptive KL penalty"),
    "beta": ("old_kl", "beta", "KL penalty to the old policy"),
    "reference_kl": ("reference_kl", "beta", ""),
    "entropy": ("entropy", "beta", ""),
}
"""Option -> (slot, field, what is missing when the slot has no such field)."""

_SWITCHES: dict[str, type[Penalty]] = {"reference_kl": ReferenceKL, "entropy": Entropy}


def override(algorithm: Algorithm, **numbers: Any) -> Algorithm:
    """The algorithm with some numbers changed by name; None leaves a number as it is.

    Names are the keys of `WHERE`. reference_kl and entropy are switches: a coefficient adds the term where it
    is absent (k3 in the loss), 0 removes it. Raises UsageError for a name that does not exist, for a part
    that the algorithm does not have, and for what the algorithm's construction refuses.
    """
    changes: dict[str, dict[str, Any]] = {}
    for name, value in numbers.items():
        if value is None:
            continue
        if name not in WHERE:
            raise UsageError(f"{name} is no number of an algorithm. There are: {', '.join(WHERE)}.")
        slot, field, missing = WHERE[name]
        if slot in _SWITCHES:
            algorithm = _switch(algorithm, _SWITCHES[slot], value)
            continue
        part = _part(algorithm, slot)
        if part is None or field not in {f.name for f in fields(part)}:
            if name == "reward_scaling" and not value:
                continue
            shown = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{algorithm.name} has no {missing}. Drop {shown}, or choose an algorithm that has one."
            )
        if name == "subset" and isinstance(value, str):
            value = tuple(word.strip() for word in value.split(","))
        changes.setdefault(slot, {})[field] = value
    return _apply(algorithm, changes)


def _part(algorithm: Algorithm, slot: str) -> Any:
    if slot == "critic":
        return algorithm.advantage.critic_part
    if slot == "old_kl":
        return next((penalty for penalty in algorithm.penalty if penalty.to_old), None)
    return getattr(algorithm, slot)


def _apply(algorithm: Algorithm, changes: dict[str, dict[str, Any]]) -> Algorithm:
    """All changes at once, so that no combination on the way is refused."""
    slots: dict[str, Any] = {}
    for slot, values in changes.items():
        if slot == "old_kl":
            slots["penalty"] = tuple(
                replace(cast(Any, penalty), **values) if penalty.to_old else penalty
                for penalty in algorithm.penalty
            )
        elif slot != "critic":
            slots[slot] = replace(getattr(algorithm, slot), **values)
    if "critic" in changes:
        advantage = slots.get("advantage", algorithm.advantage)
        slots["advantage"] = advantage.with_critic(replace(advantage.critic_part, **changes["critic"]))
    return replace(algorithm, **slots) if slots else algorithm


def _switch(algorithm: Algorithm, kind: type[Penalty], beta: float) -> Algorithm:
    others = [penalty for penalty in algorithm.penalty if not isinstance(penalty, kind)]
    present = [penalty for penalty in algorithm.penalty if isinstance(penalty, kind)]
    if not beta:
        return replace(algorithm, penalty=tuple(others))
    if present:
        kept = (replace(cast(Any, p), beta=beta) if isinstance(p, kind) else p for p in algorithm.penalty)
        return replace(algorithm, penalty=tuple(kept))
    return replace(algorithm, penalty=(*algorithm.penalty, cast(Any, kind)(beta=beta)))
