"""The folder of a recurrent language model: config.json and model.safetensors under our own names, for no other library
has its architecture."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from lineal.errors import LinealError, ModelError
from lineal.models.gating import ExpertsConfig
from lineal.models.hf.awd import fill
from lineal.models.hf.files import read_json, write_json, write_tensors
from lineal.models.lstm import LSTMConfig, RecurrentModel

ARCHITECTURE = "LinealLSTMForCausalLM"


def is_recurrent(folder: str | Path) -> bool:
    """Whether a folder holds such a model."""
    return read_json(Path(folder) / "config.json").get("model_type") == "lineal_lstm"


def save_recurrent(model: RecurrentModel, folder: str | Path, **ids: int | None) -> None:
    """Write the folder; ids: eos_id, pad_id and bos_id of the tokenizer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, dict(model.named_parameters()))
    shape = {name: value for name, value in asdict(model.config).items() if name != "layout"}
    named = {f"{name.removesuffix('_id')}_token_id": value for name, value in ids.items()}
    kind = {"model_type": "lineal_lstm", "architectures": [ARCHITECTURE]}
    write_json(folder / "config.json", {**shape, **named, **kind})


def load_recurrent(folder: str | Path) -> RecurrentModel:
    """The model of a folder, in eval mode; ModelError names the file and what is wrong with it."""
    folder = Path(folder)
    content, path = read_json(folder / "config.json"), folder / "config.json"
    shape = {f.name: content[f.name] for f in fields(LSTMConfig) if f.name in content}
    try:
        if shape.get("experts"):
            experts = {**shape["experts"], "dense": tuple(shape["experts"].get("dense", ()))}
            shape["experts"] = ExpertsConfig(**experts)
        model = RecurrentModel(LSTMConfig(**shape))
    except LinealError as error:
        raise ModelError(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} holds a value that makes no model ({error!r}).") from error
    fill(dict(model.named_parameters()), folder)
    return model.eval()
