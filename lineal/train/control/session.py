"""Checkpoints of a run on an environment: policy, optimiser, environment, and the loop's own state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lineal.errors import CheckpointError
from lineal.train.checkpoint import Checkpoint
from lineal.train.console import note
from lineal.train.control.parts import EnvironmentParts, Going
from lineal.train.optimizer import load_optimizer, optimizer_tensors
from lineal.train.run import Run


def save_progress(
    run: Run,
    step: int,
    parts: EnvironmentParts,
    going: Going,
    *,
    renewed: bool = False,
    tensors: Mapping[str, Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Checkpoint everything; `renewed`: the environment has failed, so a resumed run begins new episodes.

    tensors, state: what another part of the run keeps beside it.
    """
    own = {f"model/{name}": tensor for name, tensor in parts.policy.state_dict().items()}
    moved, plain = optimizer_tensors(parts.optimiser, {"theta": parts.leaf})
    own |= {f"optimiser/{name}": tensor for name, tensor in moved.items()}
    collector = {"environment": None, "step": step} if renewed else parts.collector.state(step)
    plain_state = {"optimiser": plain, "going": going.to_json(), "collector": collector}
    run.checkpoint(step, {**own, **(tensors or {})}, {**plain_state, **(state or {})})


def restore_policy(
    run: Run, parts: EnvironmentParts, take: Callable[[Checkpoint], None] | None = None
) -> tuple[int, dict[str, Any]]:
    """Load the newest checkpoint into policy and optimiser; returns (iterations done, the rest of what was saved).

    take: gets the checkpoint too, for what another part of the run kept in it.
    """
    found = run.restore()
    if found is None:
        return 0, {}
    present = parts.policy.state_dict()
    saved = {name[len("model/") :]: t for name, t in found.tensors.items() if name.startswith("model/")}
    for name in sorted({*saved, *present}):
        shapes = [tuple(part[name].shape) if name in part else "absent" for part in (saved, present)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{found.path} does not fit the policy: {name} is {shapes[0]} in the checkpoint and {shapes[1]} here: "
                "the environment changed its spaces since the run began. Use the version it was started with."
            )
    with torch.no_grad():
        # In place: the critic's optimiser and the actor in numpy share this memory.
        for name, tensor in saved.items():
            present[name].copy_(tensor)
    prefix = "optimiser/"
    moved = {name[len(prefix) :]: t for name, t in found.tensors.items() if name.startswith(prefix)}
    load_optimizer(parts.optimiser, moved, found.state["optimiser"], {"theta": parts.leaf})
    parts.collector.actor.refresh()
    if take is not None:
        take(found)
    note(f"continuing after step {found.step}")
    return found.step, found.state
