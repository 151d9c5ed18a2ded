"""An optimiser's state by parameter name, so that it survives in a checkpoint bit for bit.

torch numbers parameters by position; a name still fits when groups are built in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lineal.errors import CheckpointError

PREFIX = "optimizer/"


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's state as (tensors to save, JSON state to save).

    names: parameters by name, as `dict(model.named_parameters())`. A tensor of parameter `p` is called
    `optimizer/p/KEY`; groups and plain numbers go to the JSON state. Raises CheckpointError for a parameter
    without a name, and for state that is neither a tensor nor a JSON value.
    """
    name_of = {id(parameter): name for name, parameter in names.items()}
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    groups = []
    for group in optimizer.param_groups:
        unnamed = [tuple(p.shape) for p in group["params"] if id(p) not in name_of]
        if unnamed:
            raise CheckpointError(f"the optimiser moves a parameter of shape {unnamed[0]} that has no name.")
        members = [name_of[id(p)] for p in group["params"]]
        settings = {
            key: _plain(key, value) for key, value in group.items() if key not in ("params", "param_names")
        }
        groups.append({"names": members, "settings": settings})
        for name, parameter in zip(members, group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{PREFIX}{name}/{key}"] = value
                else:
                    plain.setdefault(name, {})[key] = _plain(key, value)
    return tensors, {"groups": groups, "plain": plain}


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    names: Mapping[str, Tensor],
) -> None:
    """Give the optimiser the state that `optimizer_tensors` took from its equal.

    tensors: may hold other entries, which are ignored. names: parameters by name. Raises CheckpointError when
    the groups hold other parameters than the saved ones.
    """
    saved, current = state["groups"], optimizer.param_groups
    name_of = {id(parameter): name for name, parameter in names.items()}
    now = [sorted(name_of.get(id(p), "?") for p in group["params"]) for group in current]
    then = [sorted(group["names"]) for group in saved]
    if now != then:
        odd = sorted({n for g in now for n in g} ^ {n for g in then for n in g})
        raise CheckpointError(
            f"the saved optimiser has {sum(map(len, then))} parameters in {len(then)} groups, this one "
            f"{sum(map(len, now))} in {len(now)}{'; not in both: ' + odd[0] if odd else ''}. Resume with the "
            "options of the run."
        )
    by_name: dict[str, dict[str, Any]] = {name: dict(values) for name, values in state["plain"].items()}
    for key, tensor in tensors.items():
        if key.startswith(PREFIX):
            name, _, field = key[len(PREFIX) :].rpartition("/")
            by_name.setdefault(name, {})[field] = tensor
    optimizer.state.clear()
    for group, old in zip(current, saved, strict=True):
        group.update({key: _like(group.get(key), value) for key, value in old["settings"].items()})
        for parameter in group["params"]:
            values = by_name.get(name_of[id(parameter)])
            if values is not None:
                optimizer.state[parameter] = {k: _place(k, v, parameter, group) for k, v in values.items()}


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, bool | int | float | str | list | tuple) or value is None:
        return value
    raise CheckpointError(
        f"the optimiser's {key!r} is a {type(value).__name__}, which cannot be saved as JSON."
    )


def _like(present: Any, value: Any) -> Any:
    """JSON has neither tuples nor tensors: take the kind of what stands there now."""
    if isinstance(present, Tensor):
        return torch.full_like(present, value)
    return tuple(value) if isinstance(present, tuple) else value


def _place(key: str, value: Any, parameter: Tensor, group: Mapping[str, Any]) -> Any:
    if not isinstance(value, Tensor):
        return value
    if key == "step" and not (group.get("fused") or group.get("capturable")):
        # The step count stays on the CPU unless the kernel reads it: torch's own rule.
        return value.clone()
    return value.to(parameter.device, copy=True)
