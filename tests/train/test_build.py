"""From options to a model: which folder a name means, which shape a fresh model has, what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lineal.errors import ModelError, UsageError
from lineal.models.decoder import PRESETS
from lineal.models.hf import save_model
from lineal.recipes.config import ModelOptions
from lineal.tokenizers import ByteTokenizer, CharTokenizer
from lineal.train.build import build_model, fresh_config, model_folder

SMALL = ModelOptions(layers=1, width=16, heads=2)


def saved(folder: Path) -> Path:
    """A model folder with its tokenizer."""
    decoder, tokenizer = build_model(SMALL, "0123+=", 12, seed=1)
    folder.mkdir(parents=True)
    save_model(decoder, folder)
    tokenizer.save(folder)
    return folder


def test_a_name_means_a_folder_or_a_run_s_result(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    assert model_folder(str(model)) == model
    final = saved(tmp_path / "run" / "final")
    # A run has a config.json too, which is no model's.
    (tmp_path / "run" / "config.json").write_text("{}")
    assert model_folder(str(tmp_path / "run")) == final


def test_what_is_no_model_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"nowhere does not exist: give a model folder, a finished run, or hf:"
    ):
        model_folder(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="lineal resume finishes one that was interrupted"):
        model_folder(str(tmp_path / "empty"))


def test_a_hub_name_without_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"pip install 'lineal\[hf\]'"):
        model_folder("hf:someone/something")


def test_only_safetensors_and_json_are_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert model_folder("hf:someone/something") == tmp_path
    assert asked[0][0] == "someone/something"
    assert not any("bin" in pattern or "pt" in pattern or "py" in pattern for pattern in asked[0][1])

    def broken(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(hub, "snapshot_download", broken)
    with pytest.raises(ModelError, match=r"could not be fetched \(OSError: no network"):
        model_folder("hf:someone/something")


@pytest.mark.parametrize("layout", list(PRESETS))
def test_a_fresh_model_has_the_wanted_shape(layout: str) -> None:
    decoder, tokenizer = build_model(replace(SMALL, layout=layout), "abc", 20, seed=0)
    assert isinstance(tokenizer, CharTokenizer)
    config = decoder.config
    assert (config.layout, config.layers, config.width, config.heads, config.context) == (
        layout,
        1,
        16,
        2,
        20,
    )
    assert config.inner == 64 and config.vocab_size == tokenizer.vocab_size
    again, _ = build_model(replace(SMALL, layout=layout), "abc", 20, seed=0)
    other, _ = build_model(replace(SMALL, layout=layout), "abc", 20, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), again.parameters(), strict=True))
    assert not torch.equal(decoder.head_weight, other.head_weight)


def test_options_override_what_the_task_needs() -> None:
    options = replace(SMALL, context=99, inner=24, kv_heads=1, tokenizer="byte", dropout=0.3)
    decoder, tokenizer = build_model(options, "abc", 20, seed=0)
    assert isinstance(tokenizer, ByteTokenizer)
    assert (decoder.config.context, decoder.config.inner, decoder.config.kv_heads) == (99, 24, 1)
    assert decoder.config.dropout == 0.3


def test_a_model_comes_with_its_own_tokenizer_unless_told_otherwise(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    decoder, tokenizer = build_model(ModelOptions(model=str(model), layers=7), "xyz", 99, seed=5)
    assert decoder.config.layers == 1 and decoder.config.context == 12
    assert tokenizer.decode(tokenizer.encode("1+2=")) == "1+2="
    _, other = build_model(ModelOptions(model=str(model), tokenizer="byte"), "xyz", 99, seed=5)
    assert isinstance(other, ByteTokenizer)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (ModelOptions(layout="mamba"), "--layout mamba is not one of llama"),
        (ModelOptions(width=30, heads=4), "--width 30 is not a multiple of --heads 4"),
    ],
)
def test_shapes_that_cannot_be(options: ModelOptions, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        fresh_config(options, 16, 16)
