"""The folder of an AWD-LSTM, of one direction or of both: config.json and model.safetensors under our own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn

from lineal.errors import ModelError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.models.hf.files import (
    CONFIG,
    is_kind,
    making,
    read_shape,
    read_tensors,
    write_json,
    write_tensors,
)

KIND, ARCHITECTURE = "lineal_awd_lstm", "LinealAWDLSTM"
DIRECTIONS = ("forward", "backward")


def is_awd(folder: str | Path) -> bool:
    """Whether a folder holds such a model."""
    return is_kind(folder, KIND)


def save_awd(models: Mapping[str, AWDLSTM], folder: str | Path, **ids: int | None) -> None:
    """Write the folder; models: by direction, of one shape. ids: eos_id, pad_id and bos_id of the tokenizer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, {f"{d}.{n}": p for d, m in models.items() for n, p in m.named_parameters()})
    (config, *_) = (model.config for model in models.values())
    shape = {name: value for name, value in asdict(config).items() if name != "layout"}
    named = {f"{name.removesuffix('_id')}_token_id": value for name, value in ids.items()}
    kind = {"model_type": KIND, "architectures": [ARCHITECTURE], "directions": list(models)}
    write_json(folder / CONFIG, {**shape, **named, **kind})


def load_awd(folder: str | Path) -> dict[str, AWDLSTM]:
    """The models of a folder by direction, in eval mode; ModelError names the file and what is wrong with it."""
    folder, path = Path(folder), Path(folder) / CONFIG
    content = read_shape(folder, KIND, "AWD-LSTM: stage lm of ulmfit makes one")
    directions = content.get("directions")
    if not isinstance(directions, list) or directions not in (["forward"], ["backward"], [*DIRECTIONS]):
        raise ModelError(
            f"{path} names the directions {directions}: they are forward, backward, or both in this order."
        )
    with making(path):
        config = AWDConfig(**{f.name: content[f.name] for f in fields(AWDConfig) if f.name in content})
        models = {direction: AWDLSTM(config) for direction in directions}
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
