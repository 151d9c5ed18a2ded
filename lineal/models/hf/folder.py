"""A decoder from a Hugging Face model folder, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lineal.errors import ModelError
from lineal.models.decoder import Decoder, DecoderConfig
from lineal.models.hf.files import CONFIG, making, read_json, read_tensors, write_json, write_tensors
from lineal.models.hf.layouts import LAYOUTS, layout_of
from lineal.models.hf.maps import to_ours, to_theirs


def load_config(folder: str | Path) -> DecoderConfig:
    """The shape of the model in a folder, from its config.json alone."""
    path = Path(folder) / CONFIG
    content = read_json(path)
    _, layout = layout_of(content, str(path))
    with making(path):
        return layout.read(content)


def load_model(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Decoder, DecoderConfig]:
    """The decoder in a model folder (in eval mode) and its configuration.

    Weights become `dtype` whatever the file's (float32: what an optimiser should update). No code of the folder
    is run. Raises ModelError naming the file and what to do about it.
    """
    folder = Path(folder)
    config = load_config(folder)
    tensors = to_ours(LAYOUTS[config.layout].table, config, read_tensors(folder), str(folder))
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder = decoder.to(dtype).to_empty(device=device).eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(tensors.pop(name))
    return decoder, config


def save_model(
    decoder: Decoder,
    folder: str | Path,
    *,
    bos_id: int | None = None,
    eos_id: int | Sequence[int] | None = None,
    pad_id: int | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a folder that `load_model` and transformers read: config.json, model.safetensors, generation_config.json.

    bos_id, eos_id, pad_id: the tokenizer's special ids, for both configurations (save the tokenizer beside it).
    tensors: whole parameters by name, where the decoder itself holds only a share of them.
    Raises ModelError when the folder cannot be written; each file is written whole or not at all.
    """
    folder, config = Path(folder), decoder.config
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder} cannot be made ({error}): choose another folder.") from error
    layout = LAYOUTS[config.layout]
    theirs = to_theirs(layout.table, config, dict(decoder.named_parameters()) if tensors is None else tensors)
    write_tensors(folder, theirs)
    dtype = str(next(iter(theirs.values())).dtype).removeprefix("torch.")
    end = list(eos_id) if isinstance(eos_id, Sequence) else eos_id
    # Written even when absent: the defaults of some architectures (1 and 2, or 50256) name other tokens.
    ids = {"bos_token_id": bos_id, "eos_token_id": end, "pad_token_id": pad_id}
    content = {
        **layout.write(config),
        **ids,
        "architectures": [layout.architecture],
        "model_type": config.layout,
    }
    # transformers 5 reads the first name, those before it the second.
    write_json(folder / CONFIG, {**content, "dtype": dtype, "torch_dtype": dtype})
    write_json(
        folder / "generation_config.json", {name: value for name, value in ids.items() if value is not None}
    )
