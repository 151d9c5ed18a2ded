"""The files of ELMo: options.json and weights under the published names, in HDF5 (bilm-tf, AllenNLP) or safetensors."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lineal.errors import ModelError
from lineal.models.char_cnn import CHARACTERS, CharacterConfig
from lineal.models.elmo import BiLM, ElmoConfig
from lineal.models.hf.files import CONFIG, is_kind, making, read_json, read_tensors, write_json, write_tensors

KIND = "lineal_elmo"
OPTIONS = "options.json"


def is_elmo(folder: str | Path) -> bool:
    """Whether a folder holds such a model as we write it."""
    return is_kind(folder, KIND)


def options_of(config: ElmoConfig) -> dict[str, Any]:
    """The published options.json of a model; `n_tokens_vocab` is ours to say that there is an output layer."""
    reader = config.characters
    return {
        "bidirectional": True,
        "dropout": config.dropout,
        "n_tokens_vocab": config.vocab_size,
        "lstm": {
            "dim": config.cells, "projection_dim": config.projection, "n_layers": config.layers,
            "use_skip_connections": config.residual, "cell_clip": config.cell_clip, "proj_clip": config.output_clip,
        },
        "char_cnn": {
            "activation": reader.activation, "embedding": {"dim": reader.dim}, "filters": [list(f) for f in reader.filters],
            "max_characters_per_token": reader.max_characters, "n_characters": CHARACTERS, "n_highway": reader.n_highway,
        },
    }  # fmt: skip


def config_of(options: Mapping[str, Any], vocab_size: int) -> ElmoConfig:
    """The model that an options.json describes; vocab_size: of the output layer, which the weights say."""
    lstm, cnn = options["lstm"], options["char_cnn"]
    reader = CharacterConfig(
        filters=tuple((operator.index(w), operator.index(n)) for w, n in cnn["filters"]),
        n_highway=operator.index(cnn["n_highway"]),
        dim=cnn["embedding"]["dim"],
        projection=lstm["projection_dim"],
        activation=cnn["activation"],
        max_characters=operator.index(cnn["max_characters_per_token"]),
    )
    return ElmoConfig(
        reader,
        cells=lstm["dim"],
        layers=lstm["n_layers"],
        residual=bool(lstm.get("use_skip_connections")),
        cell_clip=lstm.get("cell_clip"),
        output_clip=lstm.get("proj_clip"),
        dropout=options.get("dropout", 0.1),
        vocab_size=vocab_size,
    )


def published(model: BiLM) -> dict[str, Tensor]:
    """The weights under the published names, in TensorFlow's shapes: matrices are [inputs, outputs], the gates of an LSTM
    stand in the order i, g, f, o, and 1 is added to the forget gate's bias when it is used."""
    words, found = model.words, {}
    # A character's id is one less in the file: there is none for absent words.
    found["char_embed"] = words.characters.weight[1:]
    for index, convolve in enumerate(words.convolutions):
        found[f"CNN/W_cnn_{index}"] = convolve.get_parameter("weight").permute(2, 1, 0)[None]
        found[f"CNN/b_cnn_{index}"] = convolve.get_parameter("bias")
    for index, (carry, transform) in enumerate(zip(words.carry, words.transform, strict=True)):
        for name, linear in (("carry", carry), ("transform", transform)):
            found[f"CNN_high_{index}/W_{name}"] = linear.get_parameter("weight").T
            found[f"CNN_high_{index}/b_{name}"] = linear.get_parameter("bias")
    found["CNN_proj/W_proj"], found["CNN_proj/b_proj"] = words.projection.weight.T, words.projection.bias
    for number, layers in enumerate((model.forward_layers, model.backward_layers)):
        for index, layer in enumerate(layers):
            place = f"RNN_{number}/RNN/MultiRNNCell/Cell{index}/LSTMCell"
            both = torch.cat([layer.get_parameter("weight_ih_l0"), layer.get_parameter("weight_hh_l0")], 1)
            bias = layer.get_parameter("bias_ih_l0") + layer.get_parameter("bias_hh_l0")
            found[f"{place}/W_0"] = _other_order(both).T
            found[f"{place}/B"] = _other_order(bias) - _forget(bias)
            found[f"{place}/W_P_0"] = layer.get_parameter("weight_hr_l0").T
    if model.softmax is not None:
        found["softmax/W"], found["softmax/b"] = model.softmax.weight, model.softmax.bias
    return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def _other_order(rows: Tensor) -> Tensor:
    """i, f, g, o to i, g, f, o, and back."""
    i, f, g, o = rows.chunk(4)
    return torch.cat([i, g, f, o])


def _forget(bias: Tensor) -> Tensor:
    """1 where TensorFlow adds it: at the forget gate, the third of its order."""
    one = torch.zeros_like(bias)
    one.chunk(4)[2].fill_(1.0)
    return one


@torch.no_grad()
def fill(model: BiLM, tensors: Mapping[str, Tensor], place: str) -> BiLM:
    """The published weights into a model of their shape; ModelError names what is missing or of another shape."""
    wanted = published(model)
    for name in sorted({*wanted, *tensors}):
        shapes = [tuple(part[name].shape) if name in part else "absent" for part in (tensors, wanted)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"{place}: {name} is {shapes[0]} in the file, and {OPTIONS} implies {shapes[1]}."
            )
    words = model.words
    words.characters.weight.zero_()
    words.characters.weight[1:] = tensors["char_embed"]
    for index, convolve in enumerate(words.convolutions):
        convolve.get_parameter("weight").copy_(tensors[f"CNN/W_cnn_{index}"][0].permute(2, 1, 0))
        convolve.get_parameter("bias").copy_(tensors[f"CNN/b_cnn_{index}"])
    for index, (carry, transform) in enumerate(zip(words.carry, words.transform, strict=True)):
        for name, linear in (("carry", carry), ("transform", transform)):
            linear.get_parameter("weight").copy_(tensors[f"CNN_high_{index}/W_{name}"].T)
            linear.get_parameter("bias").copy_(tensors[f"CNN_high_{index}/b_{name}"])
    words.projection.weight.copy_(tensors["CNN_proj/W_proj"].T)
    words.projection.bias.copy_(tensors["CNN_proj/b_proj"])
    for number, layers in enumerate((model.forward_layers, model.backward_layers)):
        for index, layer in enumerate(layers):
            at = f"RNN_{number}/RNN/MultiRNNCell/Cell{index}/LSTMCell"
            both = _other_order(tensors[f"{at}/W_0"].T)
            layer.get_parameter("weight_ih_l0").copy_(both[:, : model.config.projection])
            layer.get_parameter("weight_hh_l0").copy_(both[:, model.config.projection :])
            bias = tensors[f"{at}/B"]
            layer.get_parameter("bias_ih_l0").copy_(_other_order(bias + _forget(bias)))
            layer.get_parameter("bias_hh_l0").zero_()
            layer.get_parameter("weight_hr_l0").copy_(tensors[f"{at}/W_P_0"].T)
    if model.softmax is not None:
        model.softmax.weight.copy_(tensors["softmax/W"])
        model.softmax.bias.copy_(tensors["softmax/b"])
    return model


def save_elmo(model: BiLM, folder: str | Path) -> None:
    """Write a folder: config.json, options.json, and model.safetensors under the published names."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, published(model))
    write_json(folder / OPTIONS, options_of(model.config))
    write_json(folder / CONFIG, {"model_type": KIND, "architectures": ["LinealELMo"]})


def load_elmo(folder: str | Path) -> BiLM:
    """The model of a folder, in eval mode: options.json beside model.safetensors, or beside one .hdf5 file."""
    folder = Path(folder)
    place = folder / OPTIONS
    options = read_json(place)
    files = sorted(folder.glob("*.hdf5"))
    tensors = (
        read_hdf5(files[0]) if files and not (folder / "model.safetensors").exists() else read_tensors(folder)
    )
    have = len(tensors["softmax/b"]) if "softmax/b" in tensors else 0
    with making(place):
        model = BiLM(config_of(options, have))
    return fill(model, tensors, str(folder)).eval()


def read_hdf5(path: Path) -> dict[str, Tensor]:
    """All tensors of an HDF5 file by their paths; needs h5py."""
    h5py = _h5py(path)
    found: dict[str, Tensor] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = torch.from_numpy(np.asarray(item[...], dtype=np.float32))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise ModelError(f"{path} cannot be read as HDF5 ({error}): copy or download it again.") from error
    return found


def export_hdf5(model: BiLM, folder: str | Path, name: str = "weights.hdf5") -> Path:
    """Write options.json and an HDF5 file that bilm-tf and AllenNLP read; needs h5py."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with _h5py(path).File(path, "w") as file:
        for key, tensor in published(model).items():
            if not key.startswith("softmax/"):
                file.create_dataset(key, data=tensor.float().cpu().numpy())
    # Readers of 2018 know no output layer.
    write_json(folder / OPTIONS, {k: v for k, v in options_of(model.config).items() if k != "n_tokens_vocab"})
    return path


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ModelError(f"{path} needs h5py: pip install 'lineal[elmo]'.") from error
    return h5py
