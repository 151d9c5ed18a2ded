"""Checkpoints: tensors as safetensors, the rest as JSON, a manifest with hashes; no pickle is read or
written.

`checkpoints/step-N/` holds `tensors.safetensors`, `state.json` and `manifest.json`. The newest checkpoint is
the newest that verifies; a damaged one is named on one line and passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lineal.errors import CheckpointError
from lineal.train import files
from lineal.train.console import warn
from lineal.train.manifest import REPLACED, verify_folder, write_folder

FLOAT = "$float"
TENSORS, STATE = "tensors.safetensors", "state.json"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
NAME = re.compile(rf"step-(\d+)({re.escape(REPLACED)})?")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at a step: tensors on the CPU by name, and a JSON state."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    path: Path


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep_last: int = 2,
    keep_every: int = 0,
) -> Path:
    """Save `folder/step-N` so that it is whole or absent, then drop the checkpoints that need not be kept.

    tensors: on any device, any of `DTYPES`. state: JSON values; tuples come back as lists.
    Kept: the last `keep_last`, and those whose step is a multiple of `keep_every` (0: none).
    Raises CheckpointError when it cannot be written; earlier checkpoints are untouched by that.
    """
    path = folder / f"step-{step}"
    contents = {TENSORS: tensor_chunks(tensors), STATE: [encode_state(state)]}
    try:
        files.make_folder(folder)
        # Orphans of an interrupted save go first: their space may be needed.
        remove_orphans(folder)
        write_folder(path, contents, {"step": step})
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            f"{path} could not be written ({reason}); earlier checkpoints are untouched. Free some space or "
            f"choose another folder, then resume."
        ) from error
    _drop_old(folder, step, keep_last, keep_every)
    return path


def load_newest(folder: Path, *, report: Callable[[str], None] = warn) -> Checkpoint | None:
    """The newest checkpoint in `folder` that verifies, or None where there is none at all.

    Each damaged one is reported on one line. Raises CheckpointError when there are checkpoints and all are
    damaged: starting again from nothing must be asked for.
    """
    damaged: list[str] = []
    for path in _candidates(folder):
        try:
            found = load_checkpoint(path)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        for reason in damaged:
            report(f"{reason} Passed over; continuing from step {found.step}.")
        return found
    if damaged:
        raise CheckpointError(
            f"no checkpoint of {len(damaged)} in {folder} is whole: {damaged[0]} Restore one from a copy, or "
            f"delete {folder} to start again."
        )
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in one folder, every byte verified; raises CheckpointError naming the damaged file."""
    facts, match = verify_folder(path), NAME.fullmatch(path.name)
    if match and facts.get("step") != int(match.group(1)):
        raise CheckpointError(
            f"{path}: it holds step {facts.get('step')}, so the folder was renamed or swapped."
        )
    try:
        # Copied out of the file's memory map, so that deleting or replacing the file cannot reach them.
        tensors = {name: tensor.clone() for name, tensor in load_file(path / TENSORS).items()}
        state = decode_state((path / STATE).read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(int(facts["step"]), tensors, state, path)


def steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint in `folder`, ascending, verified or not."""
    return sorted({int(match.group(1)) for match in _matches(folder)})


def _matches(folder: Path) -> list[re.Match[str]]:
    if not folder.is_dir():
        return []
    return [match for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]


def _candidates(folder: Path) -> list[Path]:
    found = [(int(m.group(1)), m.group(2) is None, folder / m.group(0)) for m in _matches(folder)]
    return [path for *_, path in sorted(found, reverse=True)]


def remove_orphans(folder: Path) -> None:
    """Delete what an interrupted save or deletion left in a folder of checkpoints or buffers."""
    for path in folder.glob("step-*.tmp"):
        with suppress(OSError):
            files.remove_folder(path)


def _drop_old(folder: Path, current: int, keep_last: int, keep_every: int) -> None:
    # Those after the current step were passed over as damaged: they count for nothing until they are
    # replaced.
    existing = [s for s in steps(folder) if s <= current]
    kept = set(existing[-max(1, keep_last) :]) | {s for s in existing if keep_every and s % keep_every == 0}
    for match in _matches(folder):
        if int(match.group(1)) <= current and int(match.group(1)) not in kept:
            try:
                files.remove_folder(folder / match.group(0))
            except OSError as error:
                warn(f"{folder / match.group(0)} could not be deleted ({error.strerror}); training goes on.")


def encode_state(state: Mapping[str, Any]) -> bytes:
    """The state as JSON that `decode_state` gives back exactly, but for tuples, which become lists.

    JSON has no nan: floats that are not finite are written as {"$float": "nan"}. Raises CheckpointError for what
    would not come back: objects, and keys that are not text.
    """
    try:
        return json.dumps(_to_json(dict(state), "state"), allow_nan=False, indent=1).encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the state cannot be saved as JSON: {error}.") from error


def decode_state(content: bytes) -> dict[str, Any]:
    """The state that `encode_state` wrote."""
    return json.loads(content, object_hook=lambda x: float(x[FLOAT]) if x.keys() == {FLOAT} else x)


def _to_json(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str) or key == FLOAT]
        if wrong:
            raise CheckpointError(
                f"{name} has the key {wrong[0]!r}, which would not come back: use other text."
            )
        return {key: _to_json(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT: repr(value)}
    return value


def tensor_chunks(tensors: Mapping[str, Tensor]) -> Iterable[bytes | memoryview]:
    """A safetensors file of the tensors, one chunk per tensor, so that memory never holds all of them twice.

    Its layout (https://github.com/huggingface/safetensors#format): header's length, JSON header, raw bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    # Widest elements first keep every tensor aligned, as the reference writer does.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    for name, tensor in ordered:
        if tensor.dtype not in DTYPES:
            raise CheckpointError(f"tensor {name!r} is {tensor.dtype}, which safetensors cannot hold here.")
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for _, tensor in ordered:
            flat = tensor.detach().to("cpu").contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data

    return chunks()
