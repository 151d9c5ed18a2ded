"""convert: pickled weights become safetensors through the restricted reader, and nothing in a pickle runs."""

from __future__ import annotations

import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lineal import cli_convert
from lineal.cli import main
from lineal.errors import ModelError


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process costs seconds, so all but the tests marked serial run the child's part here."""
    if request.node.get_closest_marker("serial"):
        return

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-I", "-m", "lineal.cli_convert"]
        try:
            cli_convert._child(*command[4:])
        except SystemExit as stop:
            return subprocess.CompletedProcess(command, 1, "", f"{stop.code}\n")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(cli_convert.subprocess, "run", run)


def weights() -> dict[str, torch.Tensor]:
    """A few named tensors, two of them sharing memory as tied weights do."""
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return {"a.weight": base, "tied.weight": base, "b.bias": torch.tensor([1.0, 2.0]), "n": torch.tensor([3])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder without weights, and with a file of code that must not travel."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "llama", "dtype": "float32"}')
    (made / "tokenizer.json").write_text("{}")
    (made / "modeling_evil.py").write_text("raise SystemExit")
    return made


def converted(folder: Path, *words: str) -> dict[str, torch.Tensor]:
    out = folder.parent / "out"
    assert main(["convert", str(folder), str(out), *words]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    return load_file(out / "model.safetensors")


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.serial
def test_it_happens_in_a_process_of_its_own(folder: Path, tmp_path: Path) -> None:
    torch.save(weights(), folder / "pytorch_model.bin")
    assert same(converted(folder), weights())
    with pytest.raises(ModelError, match="holds more than weights"):
        torch.save(Bomb(tmp_path / "boom"), folder / "pytorch_model.bin")
        cli_convert.read_any(folder)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w, "step": 3}])
def test_a_pickled_model(folder: Path, name: str, wrap: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(wrap(weights()), folder / name)
    assert same(converted(folder), weights())
    assert "4 tensors, 27 numbers" in capsys.readouterr().out


def test_a_pickled_model_in_shards(folder: Path) -> None:
    parts = {"pytorch_model-1.bin": ["a.weight", "n"], "pytorch_model-2.bin": ["tied.weight", "b.bias"]}
    for name, keys in parts.items():
        torch.save({key: weights()[key] for key in keys}, folder / name)
    weight_map = {key: name for name, keys in parts.items() for key in keys}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(converted(folder), weights())


def test_safetensors_in_shards_become_one_file_with_a_new_dtype(folder: Path) -> None:
    save_file({"a": torch.ones(2)}, folder / "model-1.safetensors")
    save_file({"b": torch.zeros(2, dtype=torch.int64)}, folder / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = converted(folder, "--dtype", "bfloat16")
    assert {name: t.dtype for name, t in found.items()} == {"a": torch.bfloat16, "b": torch.int64}
    assert json.loads((folder.parent / "out" / "config.json").read_text())["dtype"] == "bfloat16"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.target, "boom"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(
    folder: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {"a": torch.ones(2), "bomb": Bomb(tmp_path / "boom")}
    if kind == "torch":
        torch.save(contents, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(contents["bomb"]))
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "pytorch_model.bin was refused: it holds more than weights" in err and err.count("\n") == 1
    assert not (tmp_path / "boom").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("contents", [[1, 2], {"a": 3}, {}])
def test_what_is_no_table_of_tensors(folder: Path, contents: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(contents, folder / "pytorch_model.bin")
    assert main(["convert", str(folder), str(folder.parent / "out")]) == 1
    assert "not a table of named tensors" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x.bin", "/etc/passwd", ".hidden", 3])
def test_an_index_cannot_point_elsewhere(folder: Path, name: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert main(["convert", str(folder), str(folder.parent / "out")]) == 1
    assert "do not trust this model" in capsys.readouterr().err


def test_wrong_uses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for words, code, text in (
        ([str(folder)], 2, "1 folders were given, not two"),
        ([str(folder), str(tmp_path / "full")], 2, "exists and is not an empty folder"),
        ([str(folder), str(tmp_path / "o"), "--dtype", "int8"], 2, "--dtype int8 is not one of"),
        ([str(tmp_path / "no"), str(tmp_path / "o")], 1, "is no folder"),
        ([str(folder), str(tmp_path / "o")], 1, "neither model.safetensors nor"),
    ):
        assert main(["convert", *words]) == code
        assert text in capsys.readouterr().err
    torch.save(weights(), folder / "a.pt")
    torch.save(weights(), folder / "b.pt")
    assert main(["convert", str(folder), str(tmp_path / "o")]) == 1
    assert "2 weight files" in capsys.readouterr().err
