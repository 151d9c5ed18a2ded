"""The folder of AWD-LSTMs: out and in again, and what is wrong with a damaged one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lineal.errors import ModelError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.models.hf.awd import is_awd, load_awd, save_awd

CONFIG = AWDConfig(7, width=3, hidden=5, layers=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with both directions."""
    models = {d: AWDLSTM(CONFIG).initialise(i) for i, d in enumerate(("forward", "backward"))}
    save_awd(models, tmp_path / "model", eos_id=3, pad_id=0, bos_id=None)
    return tmp_path / "model"


def test_both_directions_come_back(folder: Path) -> None:
    models = load_awd(folder)
    assert is_awd(folder) and list(models) == ["forward", "backward"]
    for index, model in enumerate(models.values()):
        assert model.config == CONFIG and not model.training
        for name, parameter in AWDLSTM(CONFIG).initialise(index).named_parameters():
            assert torch.equal(parameter, dict(model.named_parameters())[name])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model_type", "gpt2", "a gpt2 is no AWD-LSTM"),
        ("directions", [], "names the directions"),
        ("directions", ["sideways"], "sideways"),
        ("hidden", 6, "backward.layers.0"),
        ("width", "wide", "config.json"),
        ("weight_dropout", 2.0, "weight_dropout"),
    ],
)
def test_a_folder_edited_by_hand_is_named(folder: Path, key: str, value: object, said: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=said):
        load_awd(folder)


def test_a_folder_without_a_model_is_none(tmp_path: Path) -> None:
    assert not is_awd(tmp_path)
