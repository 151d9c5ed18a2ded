"""The published layout of ELMo: what TensorFlow computes from the file is what we compute, out and in again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lineal.errors import ModelError
from lineal.models.char_cnn import CharacterConfig, character_ids
from lineal.models.elmo import BiLM, ElmoConfig
from lineal.models.hf.elmo import export_hdf5, is_elmo, load_elmo, published, save_elmo

CONFIG = ElmoConfig(
    CharacterConfig(((1, 3), (3, 4)), 2, 5, 4, max_characters=50),
    cells=6,
    cell_clip=0.4,
    output_clip=0.3,
    vocab_size=9,
)


def model_of(config: ElmoConfig = CONFIG) -> BiLM:
    """A model none of whose weights is left at zero."""
    model = BiLM(config).initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias_hh" not in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.words.characters.weight[0] = 0
    return model.eval()


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def as_tensorflow(weights: dict[str, np.ndarray], ids_TC: np.ndarray) -> list[np.ndarray]:
    """bilm-tf's graph in numpy, in its own ids (from 0), names and gate order: the word vectors and the forward layers."""
    x_TCE = weights["char_embed"][ids_TC]
    parts = []
    for index in range(2):
        kernel, bias = weights[f"CNN/W_cnn_{index}"][0], weights[f"CNN/b_cnn_{index}"]
        width = kernel.shape[0]
        places = [
            np.einsum("twe,wef->tf", x_TCE[:, c : c + width], kernel) + bias for c in range(50 - width + 1)
        ]
        parts.append(np.maximum(np.max(places, 0), 0))
    u = np.concatenate(parts, -1)
    for index in range(2):
        w = {
            n: weights[f"CNN_high_{index}/{n}"] for n in ("W_carry", "b_carry", "W_transform", "b_transform")
        }
        gate = sigmoid(u @ w["W_carry"] + w["b_carry"])
        u = gate * np.maximum(u @ w["W_transform"] + w["b_transform"], 0) + (1 - gate) * u
    layers = [u @ weights["CNN_proj/W_proj"] + weights["CNN_proj/b_proj"]]
    for index in range(2):
        at = f"RNN_0/RNN/MultiRNNCell/Cell{index}/LSTMCell"
        cell, out, found = np.zeros(6), np.zeros(4), []
        for x in layers[-1]:
            gates = np.concatenate([x, out]) @ weights[f"{at}/W_0"] + weights[f"{at}/B"]
            i, j, f, o = np.split(gates, 4)
            cell = np.clip(sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(j), -0.4, 0.4)
            out = np.clip((sigmoid(o) * np.tanh(cell)) @ weights[f"{at}/W_P_0"], -0.3, 0.3)
            found.append(out)
        layers.append(np.stack(found) + (layers[-1] if index else 0))
    return layers


def test_the_file_means_to_tensorflow_what_it_means_to_us() -> None:
    model = model_of().double()
    ids_TC = character_ids(["the", "Bänk", "of", "a", "river"], 50)
    weights = {name: tensor.numpy() for name, tensor in published(model).items()}
    wanted = as_tensorflow(weights, ids_TC.numpy() - 1)
    with torch.no_grad():
        word_TD = model.words(ids_TC)
        outputs, _ = model.read(word_TD[None], "forward")
    for ours, theirs in zip([word_TD, *(o[0] for o in outputs)], wanted, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-10)


def equal(one: BiLM, other: BiLM) -> None:
    """The same weights but for the sum of an LSTM's two biases."""
    mine, theirs = published(one), published(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, vocab_size=0, cell_clip=None, output_clip=None)])
def test_it_comes_back_from_its_folder(tmp_path: Path, config: ElmoConfig) -> None:
    model = model_of(config)
    save_elmo(model, tmp_path)
    again = load_elmo(tmp_path)
    assert is_elmo(tmp_path) and again.config == config and not again.training
    equal(model, again)


def test_hdf5_out_and_in(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    model = model_of()
    path = export_hdf5(model, tmp_path)
    assert path.read_bytes()[:4] == b"\x89HDF"
    options = json.loads((tmp_path / "options.json").read_text())
    assert options["lstm"] == {
        "dim": 6, "projection_dim": 4, "n_layers": 2, "use_skip_connections": True, "cell_clip": 0.4, "proj_clip": 0.3,
    }  # fmt: skip
    assert options["char_cnn"]["n_characters"] == 262 and options["char_cnn"]["filters"] == [[1, 3], [3, 4]]
    again = load_elmo(tmp_path)
    assert again.softmax is None
    model.softmax = None
    equal(model, again)


@pytest.mark.parametrize(
    ("group", "key", "value", "said"),
    [
        ("lstm", "dim", 7, "LSTMCell"),
        ("lstm", "n_layers", 3, "Cell2"),
        ("lstm", "dim", 2, "cells"),
        ("char_cnn", "filters", "many", "options.json"),
    ],
)
def test_options_that_do_not_fit_are_named(
    tmp_path: Path, group: str, key: str, value: object, said: str
) -> None:
    save_elmo(model_of(), tmp_path)
    path = tmp_path / "options.json"
    options = json.loads(path.read_text())
    options[group][key] = value
    path.write_text(json.dumps(options))
    with pytest.raises(ModelError, match=said):
        load_elmo(tmp_path)


def test_a_folder_without_options_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"options\.json"):
        load_elmo(tmp_path)
