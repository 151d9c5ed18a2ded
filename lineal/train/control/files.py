"""A control policy as a folder: config.json and policy.safetensors, and nothing else is needed to act with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from lineal.environments.control.preparation import PLAIN, Preparation
from lineal.environments.control.protocol import VectorEnvironment
from lineal.environments.control.spaces import space_from_json, space_to_json
from lineal.errors import ModelError
from lineal.models.control import ControlConfig, FlatPolicy, config_to_json, load_tensors, named_tensors
from lineal.models.pixels import make_policy
from lineal.train import files
from lineal.train.checkpoint import tensor_chunks

KIND = "lineal-control-policy"


@dataclass(frozen=True)
class SavedPolicy:
    """A policy from a folder, the environment it was trained on, how it was shown, and its spaces as JSON."""

    policy: FlatPolicy
    environment: str
    spaces: dict[str, Any]
    preparation: Preparation = PLAIN


def save_policy(
    folder: Path,
    policy: FlatPolicy,
    environment: VectorEnvironment,
    card: str = "",
    preparation: Preparation = PLAIN,
) -> None:
    """Write the policy, its normalisers included, into a folder that exists."""
    record = {
        "kind": KIND,
        "environment": environment.name,
        "preparation": asdict(preparation),
        "observation": space_to_json(environment.observation),
        "action": space_to_json(environment.action),
        "policy": config_to_json(policy.config),
    }
    files.replace_file(folder / "config.json", json.dumps(record, indent=2, allow_nan=False).encode() + b"\n")
    files.replace_file(
        folder / "policy.safetensors", b"".join(map(bytes, tensor_chunks(named_tensors(policy))))
    )
    if card:
        files.replace_file(folder / "README.md", card.encode())


def load_policy(folder: Path | str) -> SavedPolicy:
    """The policy of a folder that `save_policy` wrote; raises ModelError for what is none."""
    folder = Path(folder)
    try:
        record = json.loads((folder / "config.json").read_bytes())
        tensors = load_file(folder / "policy.safetensors")
        if record["kind"] != KIND:
            raise ValueError(f"its kind is {record['kind']!r}")
        config = ControlConfig.from_json(record["policy"])
        dtype = tensors["actor.0.weight"].dtype
        for name in ("observation", "action"):
            space_from_json(record[name])
        preparation = Preparation(**record.get("preparation", {}))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} holds no control policy ({type(error).__name__}: {error}). Give a run of an environment."
        ) from error
    policy = make_policy(config, dtype=dtype)
    load_tensors(policy, tensors)
    spaces = {name: record[name] for name in ("observation", "action")}
    return SavedPolicy(policy, record["environment"], spaces, preparation)


def check_spaces(saved: SavedPolicy, environment: VectorEnvironment) -> None:
    """Raise ModelError where the environment no longer shows or takes what the policy was trained with."""
    for name in ("observation", "action"):
        now = space_to_json(getattr(environment, name))
        if now != saved.spaces[name]:
            raise ModelError(
                f"{environment.name} now has the {name} space {now}, and the policy was trained with "
                f"{saved.spaces[name]}: the environment changed its spaces. Use the version it was trained with."
            )
