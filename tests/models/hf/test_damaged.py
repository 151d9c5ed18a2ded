"""Folders that a person edited or a disk cut short: each is refused with its file's name, or is a model that runs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lineal.errors import ModelError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.models.bert import Bert, BertConfig
from lineal.models.char_cnn import CharacterConfig, character_ids
from lineal.models.dropout import Masks
from lineal.models.elmo import BiLM, ElmoConfig
from lineal.models.hf.awd import load_awd, save_awd
from lineal.models.hf.bert import load_bert, save_bert
from lineal.models.hf.elmo import load_elmo, save_elmo
from lineal.models.hf.files import is_kind, making
from lineal.models.hf.recurrent import load_recurrent, save_recurrent
from lineal.models.lstm import LSTMConfig, RecurrentModel
from lineal.models.multihead import Pass

TOKEN_BT = torch.tensor([[1, 2, 3], [3, 0, 4]])


def use_awd(models: dict[str, AWDLSTM]) -> None:
    """A step of reading with dropout."""
    for model in models.values():
        model.logits(model.train().read(TOKEN_BT, None, model.draw(Masks(0), 2)).dropped_BTD)


def use_bert(model: Bert) -> None:
    """A step of reading with dropout."""
    hidden_BTD = model.train()(TOKEN_BT, torch.zeros_like(TOKEN_BT), None, Pass(Masks(0)))
    model.words(hidden_BTD), model.follows(model.pooled(hidden_BTD))


def use_elmo(model: BiLM) -> None:
    """Words in their sentence."""
    ids_NC = character_ids(["a", "long", "word"], model.config.characters.max_characters)
    model.train().layers_of(model.words(ids_NC)[None], torch.ones(1, 3, dtype=torch.bool))


def use_recurrent(model: RecurrentModel) -> None:
    """A step of reading with dropout."""
    model.logits(model.train()(TOKEN_BT))


@dataclass(frozen=True)
class Kind:
    """How a folder is made, read and used; file: what a person edits."""

    save: Callable[[Path], Any]
    load: Callable[[Path], Any]
    use: Callable[[Any], None]
    file: str = "config.json"


def make_awd(folder: Path) -> None:
    """Both directions."""
    config = AWDConfig(7, width=3, hidden=5, layers=2)
    save_awd({d: AWDLSTM(config).initialise(0) for d in ("forward", "backward")}, folder)


def make_elmo(folder: Path) -> None:
    """A model whose steps are written out, for it clips."""
    reader = CharacterConfig(((1, 3), (2, 2)), 1, 4, 4, max_characters=12)
    save_elmo(BiLM(ElmoConfig(reader, cells=6)).initialise(0), folder)


KINDS = {
    "awd": Kind(make_awd, load_awd, use_awd),
    "bert": Kind(lambda f: save_bert(Bert(BertConfig(11, 8, 12, 2, 1, 16)), f), load_bert, use_bert),
    "elmo": Kind(make_elmo, load_elmo, use_elmo, "options.json"),
    "lstm": Kind(lambda f: save_recurrent(RecurrentModel(LSTMConfig(7, 4, 8)), f), load_recurrent, use_recurrent),
}  # fmt: skip
WRONG = (None, "x", -1, 0, 2.5, [], [["x"]], {"a": 1}, 10**15)
COUNTED = ("layers", "n_layers", "num_hidden_layers", "n_highway", "max_characters_per_token", "context")
"""Of which a large number would only take long, or nothing at all."""


def edits(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON text."""
    parts = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in parts:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from edits(value, (*at, key))


def edited(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at one place; ... takes it out."""
    found = copy.deepcopy(content)
    inside = found
    for key in at[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[at[-1]]
    else:
        inside[at[-1]] = value
    return found


@pytest.mark.parametrize("name", list(KINDS))
def test_a_value_edited_by_hand_is_refused_or_works(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    kind.save(tmp_path)
    good = json.loads((tmp_path / kind.file).read_text())
    kind.use(kind.load(tmp_path))
    refused = 0
    for at in edits(good):
        for value in (*WRONG[: -1 if at[-1] in COUNTED else None], ...):
            (tmp_path / kind.file).write_text(json.dumps(edited(good, at, value)))
            try:
                model = kind.load(tmp_path)
            except ModelError as error:
                assert str(tmp_path) in str(error) and "\n" not in str(error), (at, value)
                refused += 1
                continue
            kind.use(model)
    assert refused > 30


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("text", ["", "[]", "3", '{"model_type": ', '{"a": "\ud800"}', "{}"])
def test_a_text_that_is_no_configuration_is_refused(name: str, text: str, tmp_path: Path) -> None:
    KINDS[name].save(tmp_path)
    (tmp_path / KINDS[name].file).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError, match=KINDS[name].file):
        KINDS[name].load(tmp_path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes]]:
    """A folder of each kind, with its weights' bytes."""
    found = {}
    for name, kind in KINDS.items():
        folder = tmp_path_factory.mktemp(name)
        kind.save(folder)
        found[name] = (folder, (folder / "model.safetensors").read_bytes())
    return found


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*KINDS]), st.floats(0, 1, exclude_max=True))
def test_weights_that_were_cut_short_are_refused(folders: dict, name: str, share: float) -> None:
    folder, whole = folders[name]
    (folder / "model.safetensors").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated or damaged"):
        KINDS[name].load(folder)
    (folder / "model.safetensors").write_bytes(whole)
    KINDS[name].load(folder)


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("how", ["lost", "more", "scalar", "turned"])
def test_a_tensor_that_does_not_fit_is_named(name: str, how: str, tmp_path: Path) -> None:
    KINDS[name].save(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    # Not square, and of no head that may be missing.
    which = next(
        n for n, t in tensors.items() if t.ndim == 2 and t.shape[0] != t.shape[1] and "cls." not in n
    )
    tensor = tensors[which]
    changed = {"lost": {}, "more": {which: tensor, "another": tensor.clone()}, "scalar": {which: torch.zeros(())},
               "turned": {which: tensor.T.contiguous()}}[how]  # fmt: skip
    save_file({n: t for n, t in tensors.items() if n != which} | changed, path, metadata={"format": "pt"})
    with pytest.raises(ModelError) as raised:
        KINDS[name].load(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert ("another" if how == "more" else which) in str(raised.value)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_folder_of_another_kind_is_refused(name: str, folders: dict) -> None:
    for other, (folder, _) in folders.items():
        if other != name:
            with pytest.raises(ModelError, match=str(folder)):
                KINDS[name].load(folder)


def test_a_folder_says_of_which_kind_it_is(folders: dict, tmp_path: Path) -> None:
    assert is_kind(folders["bert"][0], "bert") and not is_kind(folders["awd"][0], "bert")
    assert not is_kind(tmp_path, "bert")


@pytest.mark.parametrize(
    "error", [KeyError("a"), OverflowError("b"), RuntimeError("first\nsecond"), ModelError("c")]
)
def test_what_goes_wrong_while_a_model_is_made_is_one_line(error: Exception) -> None:
    with pytest.raises(ModelError) as raised, making(Path("folder/config.json")):
        raise error
    assert str(raised.value).startswith("folder/config.json") and "\n" not in str(raised.value)
    assert raised.value.__cause__ is error


def test_what_is_no_fault_of_the_file_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt), making(Path("config.json")):
        raise KeyboardInterrupt
