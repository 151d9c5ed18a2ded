"""The folder of a recurrent language model: config.json and model.safetensors under our own names, for no other library
has its architecture."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from lineal.models.gating import ExpertsConfig
from lineal.models.hf.awd import fill
from lineal.models.hf.files import CONFIG, is_kind, making, read_shape, write_json, write_tensors
from lineal.models.lstm import LSTMConfig, RecurrentModel

KIND, ARCHITECTURE = "lineal_lstm", "LinealLSTMForCausalLM"


def is_recurrent(folder: str | Path) -> bool:
    """Whether a folder holds such a model."""
    return is_kind(folder, KIND)


def save_recurrent(model: RecurrentModel, folder: str | Path, **ids: int | None) -> None:
    """Write the folder; ids: eos_id, pad_id and bos_id of the tokenizer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, dict(model.named_parameters()))
    shape = {name: value for name, value in asdict(model.config).items() if name != "layout"}
    named = {f"{name.removesuffix('_id')}_token_id": value for name, value in ids.items()}
    kind = {"model_type": KIND, "architectures": [ARCHITECTURE]}
    write_json(folder / CONFIG, {**shape, **named, **kind})


def load_recurrent(folder: str | Path) -> RecurrentModel:
    """The model of a folder, in eval mode; ModelError names the file and what is wrong with it."""
    folder = Path(folder)
    content = read_shape(folder, KIND, "recurrent language model")
    shape = {f.name: content[f.name] for f in fields(LSTMConfig) if f.name in content}
    with making(folder / CONFIG):
        if shape.get("experts") is not None:
            experts = {**shape["experts"], "dense": tuple(shape["experts"].get("dense", ()))}
            shape["experts"] = ExpertsConfig(**experts)
        model = RecurrentModel(LSTMConfig(**shape))
    fill(dict(model.named_parameters()), folder)
    return model.eval()
