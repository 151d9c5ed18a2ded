"""Reading and refusing the files of a model folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lineal.errors import ModelError
from lineal.models.hf import read_tensors
from lineal.models.hf.files import INDEX, WEIGHTS, read_json, write_json, write_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4), "c": torch.zeros(1)}


def sharded(folder: Path) -> Path:
    """A folder with two shards and their index."""
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file({"a": TENSORS["a"]}, folder / names[0])
    save_file({"b": TENSORS["b"], "c": TENSORS["c"]}, folder / names[1])
    weight_map = {"a": names[0], "b": names[1], "c": names[1]}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def assert_same(found: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)


def test_a_whole_file_comes_back_with_the_metadata_others_need(tmp_path):
    write_tensors(tmp_path, TENSORS)
    assert_same(read_tensors(tmp_path))
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert os.listdir(tmp_path) == [WEIGHTS]


def test_views_are_written_as_they_look(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    write_tensors(tmp_path, {"t": whole.t(), "head": torch.ones(3, 4)[:, 1:]})
    found = read_tensors(tmp_path)
    assert torch.equal(found["t"], whole.t())
    assert torch.equal(found["head"], torch.ones(3, 3))


def test_shards_are_gathered(tmp_path):
    assert_same(read_tensors(sharded(tmp_path)))


def test_a_missing_shard_is_named(tmp_path):
    (sharded(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002.safetensors is missing"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_truncated_shard_is_named(tmp_path, keep):
    path = sharded(tmp_path) / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model-00001-of-00002.safetensors is truncated or damaged"):
        read_tensors(tmp_path)


def test_a_tensor_that_the_index_promises_must_be_there(tmp_path):
    path = sharded(tmp_path) / INDEX
    content = json.loads(path.read_text())
    content["weight_map"]["d"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="lacks the tensor d"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..\\x.safetensors", "x.bin", 7],
)
def test_shard_names_must_be_plain(tmp_path, name):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match=r"plain \.safetensors file name"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', "[]", "{"])
def test_a_broken_index_is_named(tmp_path, content):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ModelError, match=INDEX):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "x.pth", "x.ckpt"])
def test_a_pickle_is_refused_unopened(tmp_path, name):
    # Opening this pickle would make a file; it must not.
    (tmp_path / name).write_bytes(b"cposix\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(ModelError, match=rf"pickle \({name}\).*lineal convert"):
        read_tensors(tmp_path)
    assert os.listdir(tmp_path) == [name]


def test_an_empty_or_absent_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor"):
        read_tensors(tmp_path)
    with pytest.raises(ModelError, match="is no folder"):
        read_tensors(tmp_path / "absent")


def test_json_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(ModelError, match=r"config.json is missing"):
        read_json(path)
    for content in (b"{", b"[1]", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"config.json"):
            read_json(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "config.json", {"old": 1})
    write_tensors(tmp_path, {"a": torch.ones(1)})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ModelError, match=r"config.json cannot be written .*No space left"):
        write_json(tmp_path / "config.json", {"new": 2})
    with pytest.raises(ModelError, match=r"model.safetensors cannot be written .*No space left"):
        write_tensors(tmp_path, {"a": torch.zeros(1)})
    assert read_json(tmp_path / "config.json") == {"old": 1}
    assert torch.equal(read_tensors(tmp_path)["a"], torch.ones(1))
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
