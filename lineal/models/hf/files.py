"""The files of a model folder: config.json and safetensors, whole or in shards; pickles are never opened."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lineal.errors import LinealError, ModelError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ModelError names the file when it is missing or no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: a model folder needs config.json and {WEIGHTS}.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}): copy or download it again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object: copy or download it again.")
    return found


def read_shape(folder: str | Path, kind: str, what: str) -> dict[str, Any]:
    """config.json of a model of the type `kind`; ModelError, which says that it is no `what`, for any other."""
    path = Path(folder) / CONFIG
    content = read_json(path)
    if content.get("model_type") != kind:
        raise ModelError(f"{path}: a {content.get('model_type')} is no {what}.")
    return content


def is_kind(folder: str | Path, kind: str) -> bool:
    """Whether a folder holds a model of the type `kind`."""
    path = Path(folder) / CONFIG
    return path.is_file() and read_json(path).get("model_type") == kind


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Inside, the values of a file become a model; whatever goes wrong is a ModelError that names the file."""
    try:
        yield
    except LinealError as error:
        raise ModelError(f"{path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # torch says on several lines what it cannot allocate.
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ModelError(f"{path} lacks or holds a value that makes no model ({reason}).") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ModelError(
            f"{path} cannot be written ({error}): free some space or choose another folder."
        ) from error


def read_tensors(folder: str | Path) -> dict[str, Tensor]:
    """All tensors of a folder, from `model.safetensors` or from the shards that its index names.

    Raises ModelError, naming the file: nothing there, only pickles, a shard that is missing, truncated, or whose
    name is not a plain file name (an index could otherwise point anywhere on the disk).
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return _read_shard(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise ModelError(_nothing_there(folder))
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{folder / INDEX} has no weight_map: copy or download it again.")
    tensors: dict[str, Tensor] = {}
    for shard in sorted({_plain(folder, name) for name in weight_map.values()}):
        tensors.update(_read_shard(folder / shard))
    for name, shard in weight_map.items():
        if name not in tensors:
            raise ModelError(
                f"{folder / shard} lacks the tensor {name} that {INDEX} promises: copy it again."
            )
    return tensors


def write_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write `model.safetensors`, whole or not at all, with the metadata that transformers asks for."""
    path, temporary = folder / WEIGHTS, folder / (WEIGHTS + ".tmp")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, temporary, metadata={"format": "pt"})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise ModelError(
            f"{path} cannot be written ({error}): free some space or choose another folder."
        ) from error


def _read_shard(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{path} is missing, though {INDEX} names it: copy or download it again.")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is truncated or damaged ({error}): copy or download it again.") from error


def _plain(folder: Path, name: Any) -> str:
    plain = isinstance(name, str) and name == os.path.basename(name) and "\\" not in name
    if not plain or not name.endswith(".safetensors"):
        raise ModelError(
            f"{folder / INDEX} names the shard {name!r}; a shard must be a plain .safetensors file name in the same "
            "folder: do not trust this model."
        )
    return name


def _nothing_there(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is no folder: give a model folder with config.json and {WEIGHTS}."
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        return (
            f"{folder} holds its weights only as a pickle ({pickles[0]}), which can run any code when it is opened; "
            f"it was not. If you trust it, rewrite it once: lineal convert {folder} NEW_FOLDER."
        )
    return f"{folder} holds neither {WEIGHTS} nor {INDEX}: give a model folder that does."
