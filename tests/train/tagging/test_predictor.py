"""A tagger in use: each sentence by itself, saved and opened again the same, its features found again or named."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lineal.cli import main
from lineal.errors import DataError, ModelError
from lineal.models.char_cnn import CharacterConfig
from lineal.models.elmo import BiLM, ElmoConfig
from lineal.models.hf.elmo import save_elmo
from lineal.representations.files import save_vectors
from lineal.representations.vectors import Vectors
from lineal.train.finetune.predictor import load_predictor
from lineal.train.tagging import predictor as used
from lineal.train.tagging.features import ElmoFeatures, make_features
from lineal.train.tagging.options import TaggerOptions, TagOptions
from lineal.train.tagging.predictor import TaggerFacts, TaggerPredictor, WordTagger, load_tagger, save_tagger

ROWS = [("Ada", "was", "born"), ("york",), ("a", "name", "nobody", "Knows", "of"), ("was", "was")]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with a biLM and a file of vectors."""
    config = ElmoConfig(CharacterConfig(((1, 3),), 1, 4, 3), cells=5, cell_clip=None, output_clip=None)
    save_elmo(BiLM(config).initialise(0), tmp_path / "elmo")
    save_vectors(tmp_path / "v.txt", Vectors(["ada", "was"], np.array([[1, 2], [3, 4]], dtype=np.float32)))
    return tmp_path


def made(**options: Any) -> TaggerPredictor:
    """A tagger whose scores are far from each other."""
    facts = TaggerFacts(("O", "B-a", "B-b"), ("ada", "was", "york"), TagOptions(**options), TaggerOptions(
        word_width=4, lstm_width=3, dtype="float32"))  # fmt: skip
    module = WordTagger(facts, make_features(facts.options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            # What is frozen is read again from its own folder.
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator)
    return TaggerPredictor(module.eval(), facts)


def kinds(sources: Path) -> dict[str, dict[str, Any]]:
    """The options of each kind of features."""
    model = str(sources / "elmo")
    return {
        "none": {},
        "table": {"features": "static", "vectors": str(sources / "v.txt")},
        "static": {"features": "static", "model": model},
        "elmo": {"features": "elmo", "model": model, "layer_norm": True},
        "tuned": {"features": "elmo", "model": model, "tune_features": True},
    }


KINDS = ("none", "table", "static", "elmo", "tuned")


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_opened_again_it_says_the_same(kind: str, sources: Path) -> None:
    before = made(**kinds(sources)[kind])
    (sources / "final").mkdir()
    save_tagger(sources / "final", before.module, before.facts)
    again = load_predictor(sources / "final", "cpu")
    assert isinstance(again, TaggerPredictor) and again.facts == before.facts
    for one, other in zip(again.module.probabilities(ROWS), before.module.probabilities(ROWS), strict=True):
        assert torch.equal(one, other)
    assert [found.tags for found in again(ROWS)] == [found.tags for found in before(ROWS)]
    # What was only read is not copied; what was trained is.
    kept = load_file(sources / "final" / "model.safetensors")
    assert any(name.startswith("features.model") for name in kept) is (kind == "tuned")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_is_tagged_by_itself_as_among_others(kind: str, sources: Path) -> None:
    model = made(**kinds(sources)[kind])
    together = model.module.probabilities(ROWS)
    assert [len(found) for found in together] == [len(words) for words in ROWS]
    for words, found in zip(ROWS, together, strict=True):
        torch.testing.assert_close(model.module.probabilities([words])[0], found, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.sum(-1), torch.ones(len(words), dtype=torch.float64))


def test_a_text_is_cut_at_its_spaces_and_an_empty_one_has_no_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    words, text, empty = model([ROWS[0], "Ada was  born ", " "])
    assert words == text and len(words.tags) == 3 and empty.tags == () and model([]) == []
    monkeypatch.setattr(used, "CHUNK", 2)
    assert model([*ROWS, "", *ROWS])[: len(ROWS)] == model(ROWS)


def test_words_are_known_in_any_case_and_others_share_one_vector() -> None:
    model = made()
    upper, lower, one, other = model.module.probabilities([("ADA",), ("ada",), ("xx",), ("Yy",)])
    torch.testing.assert_close(upper, lower, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(upper, one, atol=1e-3)


def test_dropout_is_off_while_it_tags_and_back_on_afterwards(sources: Path) -> None:
    model = made(**kinds(sources)["tuned"])
    before = model(ROWS)
    model.module.train()
    assert model(ROWS) == before and model.module.training


def test_the_place_of_the_features_is_kept_whole(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sources)
    model = made(features="elmo", model="elmo")
    (sources / "final").mkdir()
    save_tagger(sources / "final", model.module, model.facts)
    monkeypatch.chdir("/")
    assert [found.tags for found in load_tagger(sources / "final", "cpu")(ROWS)] == [
        f.tags for f in model(ROWS)
    ]


def moved(folder: Path) -> None:
    """The biLM is elsewhere."""
    (folder.parent / "elmo").rename(folder.parent / "other")


def narrower(folder: Path) -> None:
    """Another biLM stands in its place."""
    config = ElmoConfig(CharacterConfig(((1, 3),), 1, 4, 2), cells=5, cell_clip=None, output_clip=None)
    save_elmo(BiLM(config).initialise(0), folder.parent / "elmo")


def record(**changed: object) -> Callable[[Path], None]:
    """Another value in the record."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return change


def less(folder: Path) -> None:
    """A tensor is gone."""
    path = folder / "model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if n != "tagger.linear.bias"}, path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no biLM": (moved, "elmo does not exist"),
    "another biLM": (narrower, "tagger.ahead.weight_ih_l0 is"),
    "a tag more": (record(tags=["O", "B-a", "B-b", "B-c"]), "tagger.linear.bias is"),
    "a word less": (record(words=["ada"]), "tagger.embedding.weight is"),
    "tags that are no names": (record(tags=[1, 2, 3]), "1 is no name"),
    "options that are none": (record(options={"more": 1}), "config.json"),
    "a shape that is none": (record(tagger={"lstm_width": "wide"}), "config.json"),
    "no record": (record(tagger=None), "config.json"),
    "a tensor less": (less, "tagger.linear.bias is absent"),
    "half the weights": (lambda f: (f / "model.safetensors").write_bytes(b"\x08"), "truncated or damaged"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_what_is_not_whole_is_named(name: str, sources: Path) -> None:
    model = made(**kinds(sources)["elmo"])
    (sources / "final").mkdir()
    save_tagger(sources / "final", model.module, model.facts)
    change, said = BROKEN[name]
    change(sources / "final")
    with pytest.raises((ModelError, DataError), match=said) as raised:
        load_tagger(sources / "final", "cpu")
    assert str(sources) in str(raised.value) and "\n" not in str(raised.value)


def test_the_command_tags_lines_and_rows(sources: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(**kinds(sources)["elmo"])
    assert isinstance(model.module.features, ElmoFeatures)
    (sources / "run" / "final").mkdir(parents=True)
    save_tagger(sources / "run" / "final", model.module, model.facts)
    wanted = [" ".join(found.tags) for found in model(ROWS)]
    lines = "".join(" ".join(words) + "\n" for words in ROWS)
    rows = "".join(json.dumps({"text": list(words)}) + "\n" for words in ROWS)
    for text in (lines, rows, "\ufeff" + lines):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main(["predict", str(sources / "run"), "--device", "cpu"]) == 0
        assert capsys.readouterr().out.splitlines() == wanted
