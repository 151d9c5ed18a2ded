"""The folder of an AWD-LSTM, of one direction or of both: config.json and model.safetensors under our own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn

from lineal.errors import LinealError, ModelError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.models.hf.files import read_json, read_tensors, write_json, write_tensors

KIND, ARCHITECTURE = "lineal_awd_lstm", "LinealAWDLSTM"
DIRECTIONS = ("forward", "backward")


def is_awd(folder: str | Path) -> bool:
    """Whether a folder holds such a model."""
    path = Path(folder) / "config.json"
    return path.is_file() and read_json(path).get("model_type") == KIND


def save_awd(models: Mapping[str, AWDLSTM], folder: str | Path, **ids: int | None) -> None:
    """Write the folder; models: by direction, of one shape. ids: eos_id, pad_id and bos_id of the tokenizer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, {f"{d}.{n}": p for d, m in models.items() for n, p in m.named_parameters()})
    (config, *_) = (model.config for model in models.values())
    shape = {name: value for name, value in asdict(config).items() if name != "layout"}
    named = {f"{name.removesuffix('_id')}_token_id": value for name, value in ids.items()}
    kind = {"model_type": KIND, "architectures": [ARCHITECTURE], "directions": list(models)}
    write_json(folder / "config.json", {**shape, **named, **kind})


def load_awd(folder: str | Path) -> dict[str, AWDLSTM]:
    """The models of a folder by direction, in eval mode; ModelError names the file and what is wrong with it."""
    folder = Path(folder)
    path = folder / "config.json"
    content = read_json(path)
    directions = content.get("directions")
    if content.get("model_type") != KIND or not isinstance(directions, list) or not directions:
        raise ModelError(f"{path} is not of an AWD-LSTM: stage lm of ulmfit makes one.")
    if not set(directions) <= set(DIRECTIONS):
        raise ModelError(f"{path} names the directions {directions}: they are forward and backward.")
    try:
        config = AWDConfig(**{f.name: content[f.name] for f in fields(AWDConfig) if f.name in content})
        models = {direction: AWDLSTM(config) for direction in directions}
    except LinealError as error:
        raise ModelError(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} holds a value that makes no model ({error!r}).") from error
    fill({f"{d}.{n}": p for d, m in models.items() for n, p in m.named_parameters()}, folder)
    return {direction: model.eval() for direction, model in models.items()}


@torch.no_grad()
def fill(present: Mapping[str, nn.Parameter], folder: Path) -> None:
    """The tensors of a folder into parameters of the same names and shapes; ModelError names what differs."""
    tensors = read_tensors(folder)
    for name in sorted({*tensors, *present}):
        shapes = [tuple(part[name].shape) if name in part else "absent" for part in (tensors, present)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"{folder}: {name} is {shapes[0]} in the file, and config.json implies {shapes[1]}."
            )
    for name, parameter in present.items():
        parameter.copy_(tensors[name])
