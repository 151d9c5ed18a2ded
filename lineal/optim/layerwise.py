"""Layers that learn at different rates, and that begin to learn one after another (Howard and Ruder 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lineal.errors import UsageError

UNFREEZING = ("gradual", "all", "last", "chain")
"""gradual: the last layer, then one more per epoch. all: every layer from the start. last: the last one only. chain: one
layer at a time, the last first and then from below, and at the end all together (chain-thaw, Felbo et al. 2017)."""


def layer_groups(layers: Sequence[Mapping[str, nn.Parameter]], factor: float) -> list[dict[str, Any]]:
    """Groups for an optimiser, one per layer, the lowest first, whose rates fall from the top: eta_{l-1} = eta_l / factor.

    Howard and Ruder 2018, section 3.2: factor 2.6; 1 gives all layers one rate. The rate itself is set by
    `set_learning_rate`, times each group's `scale`. A parameter that several layers share belongs to the highest.
    """
    if not factor > 0:
        raise UsageError(f"a factor of {factor:g} between the rates of layers: it must be above 0.")
    seen: set[int] = set()
    groups: list[dict[str, Any]] = []
    for depth, layer in enumerate(reversed(layers)):
        own = [(name, p) for name, p in layer.items() if id(p) not in seen]
        seen |= {id(p) for _, p in own}
        if own:
            groups.append({"params": own, "scale": factor**-depth})
    return groups[::-1]


def learning_layers(unfreezing: str, epoch: int, layers: int) -> range:
    """Which layers learn in an epoch (0 is the first); layers are numbered from the lowest."""
    if unfreezing not in UNFREEZING:
        raise UsageError(f"unfreezing {unfreezing!r} is not one of {', '.join(UNFREEZING)}.")
    if unfreezing == "all":
        return range(layers)
    if unfreezing == "last":
        return range(layers - 1, layers)
    if unfreezing == "gradual":
        return range(max(0, layers - 1 - epoch), layers)
    if epoch >= layers:
        return range(layers)
    alone = layers - 1 if epoch == 0 else epoch - 1
    return range(alone, alone + 1)


def set_learning(layers: Sequence[Mapping[str, nn.Parameter]], chosen: range) -> None:
    """Give gradients to the parameters of the chosen layers, and to no others."""
    for index, layer in enumerate(layers):
        for parameter in layer.values():
            parameter.requires_grad_(index in chosen)
            if index not in chosen:
                parameter.grad = None
