"""`lineal convert MODEL OUT`: a model folder with pickled or sharded weights, as one model.safetensors.

A pickle can run any code when it is opened. Here, and nowhere else, one is opened, because the user asked for it:
by torch's restricted unpickler (weights only, never anything wider), in a process of its own with an empty
environment, which hands tensors over in a safetensors file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineal.cli_options import help_lines, parse
from lineal.cli_runs import positionals
from lineal.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "pytorch_model.bin.index.json"
USAGE = "convert MODEL OUT [--dtype float32|bfloat16|float16]"
DTYPES = ("float32", "bfloat16", "float16")
COPIED = (".json", ".jinja", ".txt", ".model", ".md")
"""Kinds of files that go along; none of them is code."""


@dataclass(frozen=True)
class ConvertOptions:
    """What `lineal convert` can be told."""

    dtype: str | None = None
    """float32, bfloat16 or float16: what the weights become (default: what they are)."""


def convert(words: list[str]) -> int:
    """Write OUT, a folder that every tool reads, from MODEL, a folder with .safetensors, .bin or .pt weights."""
    names, rest = positionals(words)
    if any(word in rest for word in ("--help", "-h", "--help-all")):
        print("\n".join([f"lineal {USAGE}", *help_lines(ConvertOptions())]))
        return 0
    if len(names) != 2:
        raise UsageError(f"{len(names)} folders were given, not two: lineal {USAGE}")
    options, source, out = parse(ConvertOptions(), rest), Path(names[0]), Path(names[1])
    if options.dtype not in (None, *DTYPES):
        raise UsageError(f"--dtype {options.dtype} is not one of {', '.join(DTYPES)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder: choose another one.")
    tensors = read_any(source)
    write(source, out, tensors, options.dtype)
    size = sum(tensor.numel() for tensor in tensors.values())
    print(f"{out}: {len(tensors)} tensors, {size:,} numbers")
    return 0


def read_any(folder: Path) -> dict[str, Tensor]:
    """All weights of a model folder, in whichever format they are; safetensors are preferred."""
    from lineal.models.hf import read_tensors

    pickles = pickled_files(folder)
    if not pickles or any(folder.glob("*.safetensors")):
        return read_tensors(folder)
    found: dict[str, Tensor] = {}
    for path in pickles:
        found |= read_pickled(path)
    return found


def pickled_files(folder: Path) -> list[Path]:
    """The pickled weights of a folder: the shards of its index, or its one .bin, .pt or .pth file."""
    from lineal.models.hf.files import read_json

    if not folder.is_dir():
        raise ModelError(f"{folder} is no folder: give a model folder with config.json and weights.")
    if (folder / INDEX).is_file():
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(_plain(name) for name in names.values()):
            raise ModelError(
                f"{folder / INDEX} names a shard that is no plain file name: do not trust this model."
            )
        return [folder / name for name in sorted(set(names.values()))]
    if (folder / "pytorch_model.bin").is_file():
        return [folder / "pytorch_model.bin"]
    others = sorted(p for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if len(others) > 1:
        raise ModelError(
            f"{folder} has {len(others)} weight files and no {INDEX} that says how they belong together."
        )
    return others


def _plain(name: Any) -> bool:
    return isinstance(name, str) and name == Path(name).name and "\\" not in name and not name.startswith(".")


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of one pickled file, through a process of its own; raises ModelError for anything but weights."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(f"{path} is missing, though {INDEX} names it: copy or download it again.")
    with tempfile.TemporaryDirectory(prefix="lineal-") as folder:
        target = Path(folder) / "weights.safetensors"
        command = [sys.executable, "-I", "-m", "lineal.cli_convert", str(path.resolve()), str(target)]
        done = subprocess.run(
            command, env={}, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0 or not target.is_file():
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ModelError(f"{path} was refused: {reason}")
        return load_file(target)


def write(source: Path, out: Path, tensors: Mapping[str, Tensor], dtype: str | None) -> None:
    """Write the folder: weights, configuration with the new dtype, and the files that are no code."""
    import torch

    from lineal.models.hf.files import read_json, write_json, write_tensors

    wanted = None if dtype is None else getattr(torch, dtype)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.iterdir()):
            if path.is_file() and path.suffix in COPIED and not path.name.endswith(".index.json"):
                shutil.copyfile(path, out / path.name)
    except OSError as error:
        raise ModelError(
            f"{out} cannot be written ({error}): free some space or choose another folder."
        ) from error
    write_tensors(
        out, {n: t.to(wanted) if wanted and t.is_floating_point() else t for n, t in tensors.items()}
    )
    if dtype is not None and (out / "config.json").is_file():
        write_json(
            out / "config.json", {**read_json(out / "config.json"), "dtype": dtype, "torch_dtype": dtype}
        )


def _child(source: str, target: str) -> None:
    """What the process of its own does: weights only, flat names, no shared memory."""
    import torch
    from safetensors.torch import save_file

    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SystemExit(
            f"it holds more than weights, or is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if (
        not isinstance(found, dict)
        or not all(isinstance(t, torch.Tensor) for t in found.values())
        or not found
    ):
        raise SystemExit("it is not a table of named tensors")
    save_file({str(name): tensor.detach().clone().contiguous() for name, tensor in found.items()}, target)


if __name__ == "__main__":
    _child(*sys.argv[1:])
