"""Which parameters an optimiser moves, and how: weight decay on matrices only, AdamW, and named subsets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from lineal.errors import UsageError

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of device for which torch has a fused AdamW."""


Scale = Callable[[str], float]
"""Of a parameter's name: its learning rate as a share of the others'."""


def decay_groups(
    parameters: Mapping[str, nn.Parameter], weight_decay: float, scale: Scale = lambda name: 1.0
) -> list[dict[str, Any]]:
    """AdamW's groups: weight decay on matrices (two axes or more, embeddings too), none on gains and biases.

    Decay pulls towards 0, which is no neutral place for a gain or a bias. Frozen parameters are left out.
    Groups keep the parameters' names, so an optimiser's state can be saved by name. scale: parts them further; see
    `set_learning_rate`.
    """
    moving = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    groups = []
    for share in sorted({scale(name) for name in moving}, reverse=True):
        own = [(name, parameter) for name, parameter in moving.items() if scale(name) == share]
        matrices = [(name, parameter) for name, parameter in own if parameter.ndim >= 2]
        others = [(name, parameter) for name, parameter in own if parameter.ndim < 2]
        groups += [
            {"params": matrices, "weight_decay": weight_decay, "scale": share},
            {"params": others, "weight_decay": 0.0, "scale": share},
        ]
    return [group for group in groups if group["params"]]


def adamw(
    parameters: Mapping[str, nn.Parameter],
    learning_rate: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    fused: bool | None = None,
    scale: Scale = lambda name: 1.0,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over named parameters, decaying matrices only.

    fused: one kernel for the whole update; None takes it wherever the device has it. scale: see `decay_groups`.
    Raises UsageError where nothing is left to move.
    """
    groups = decay_groups(parameters, weight_decay, scale)
    if not groups:
        raise UsageError(
            f"none of the {len(parameters)} parameters given takes a gradient, so nothing would "
            "move: leave some unfrozen."
        )
    if fused is None:
        # torch itself finds out at the first step only, and then it raises.
        moving = [parameter for group in groups for _, parameter in group["params"]]
        fused = all(p.is_floating_point() and p.device.type in FUSED_DEVICES for p in moving)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=fused)


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group this learning rate, times the group's own `scale` where it has one."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group.get("scale", 1.0)


def select_parameters(
    parameters: Mapping[str, nn.Parameter], patterns: Sequence[str] | None
) -> dict[str, nn.Parameter]:
    """The trainable parameters whose name matches a pattern, in the model's order; None takes all.

    A pattern with `*`, `?` or `[` is a glob over the whole name; any other is a part of the name that cuts no
    number: `layers.1` is in `layers.1.norm.weight` and not in `layers.10.norm.weight`. Raises UsageError
    for a pattern that matches nothing.
    """
    moving = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    if patterns is None:
        return moving
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in moving):
            raise UsageError(_no_match(pattern, parameters, moving))
    return {
        name: parameter
        for name, parameter in moving.items()
        if any(_matches(name, pattern) for pattern in patterns)
    }


def _matches(name: str, pattern: str) -> bool:
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(name, pattern)
    before = r"(?<!\d)" if pattern[:1].isdigit() else ""
    after = r"(?!\d)" if pattern[-1:].isdigit() else ""
    return bool(pattern) and re.search(before + re.escape(pattern) + after, name) is not None


def _no_match(pattern: str, named: Mapping[str, nn.Parameter], moving: Mapping[str, nn.Parameter]) -> str:
    if any(_matches(name, pattern) for name in named):
        return f"the parameters that match {pattern!r} are frozen: unfreeze them, or name others."
    pieces = sorted({piece for name in moving for piece in (name, name.rpartition(".")[0]) if piece})
    near = difflib.get_close_matches(pattern, pieces, 1, cutoff=0.0)
    hint = f"the nearest name is {near[0]!r}" if near else "the model has no trainable parameter"
    return f"no parameter's name matches {pattern!r}: {hint}."
