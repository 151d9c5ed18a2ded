"""Checkpoints of a run on an environment: policy, optimiser, environment, and the loop's own state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lineal.environments.control.spaces import space_to_json
from lineal.errors import CheckpointError, RunError
from lineal.train.checkpoint import Checkpoint, load_newest
from lineal.train.console import note
from lineal.train.control.files import SavedPolicy, load_policy
from lineal.train.control.parts import EnvironmentParts, Going, build_environment
from lineal.train.environment_options import EnvironmentConfig
from lineal.train.optimizer import load_optimizer, optimizer_tensors
from lineal.train.options import from_json
from lineal.train.run import Run, read_record


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
    if take is not None:
        take(found)
    note(f"continuing after step {found.step}")
    return found.step, found.state


def policy_of(path: Path) -> SavedPolicy:
    """The policy of a run: the finished one, else the newest checkpoint's; or of a folder that holds just a policy."""
    if (path / "policy.safetensors").exists():
        return load_policy(path)
    if (path / "final").is_dir():
        return load_policy(path / "final")
    options = read_record(path)["config"]["options"]
    # A run taught by preferences has options besides.
    known = {field.name for field in fields(EnvironmentConfig)}
    config = from_json(EnvironmentConfig, {name: x for name, x in options.items() if name in known})
    found = load_newest(path / "checkpoints")
    if found is None:
        raise RunError(f"{path} has no checkpoint yet: let it run on, or resume it.")
    parts = build_environment(config)
    spaces = {name: space_to_json(getattr(parts.environment, name)) for name in ("observation", "action")}
    parts.environment.close()
    present = parts.policy.state_dict()
    with torch.no_grad():
        for name, tensor in found.tensors.items():
            if name.startswith("model/"):
                present[name[len("model/") :]].copy_(tensor)
    note(f"{path} is not finished: this is its policy after iteration {found.step}")
    where = config.environment
    return SavedPolicy(parts.policy, where.env, spaces, where.preparation())
