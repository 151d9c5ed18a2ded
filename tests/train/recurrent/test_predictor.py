"""A classifier of documents in use: each text by itself, both directions averaged, and a folder that holds all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lineal.errors import ModelError, UsageError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.train.finetune.predictor import HEAD, RECORD, load_predictor
from lineal.train.recurrent import predictor as module
from lineal.train.recurrent.predictor import (
    DocumentFacts,
    DocumentPredictor,
    document_readers,
    load_document_predictor,
    save_document_predictor,
)
from lineal.train.recurrent.vocabulary import learn_words

TEXTS = ["a cat sat", "the dog is a dog . it ran " * 9, "cat", "", "unheard words"]


def tiny(
    *directions: str, pooling: str = "concat", labels: tuple[str, ...] = ("no", "yes")
) -> DocumentPredictor:
    """A predictor whose scores are far from each other, its batch norms as after training."""
    tokenizer = learn_words(TEXTS, 50, 1)
    config = AWDConfig(tokenizer.vocab_size, width=3, hidden=5, layers=2)
    facts = DocumentFacts(labels, pooling, 4, chunk=5, columns={"text_field": "review"})
    models = {d: AWDLSTM(config).initialise(i) for i, d in enumerate(directions or ("forward",))}
    readers = document_readers(models, facts, seed=3)
    made = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in readers.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=made)
        for name, buffer in readers.named_buffers():
            if "running" in name:
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=made))
    return DocumentPredictor(readers.eval(), tokenizer, facts)


@pytest.mark.parametrize("pooling", ["concat", "last", "max", "mean"])
def test_a_text_is_told_by_itself_as_among_others(pooling: str) -> None:
    model = tiny("forward", "backward", pooling=pooling)
    together = model(TEXTS)
    assert len({found.probabilities["yes"] for found in together}) == len(TEXTS)
    for budget in (1, 16, 8192):
        model.token_budget = budget
        for text, found in zip(TEXTS, together, strict=True):
            (alone,) = model([text])
            assert alone.label == found.label
            assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-6)
    turned = model(TEXTS[::-1])[::-1]
    assert [found.label for found in turned] == [found.label for found in together]


def test_two_directions_are_averaged() -> None:
    both = tiny("forward", "backward")
    rows = both.encode(TEXTS)
    each = [
        reader.head(module.pooled_of(reader, rows, direction, module.Pieces(7, 0))).double().softmax(-1)
        for direction, reader in both.module.items()
    ]
    torch.testing.assert_close(both.probabilities(rows), sum(each) / 2, rtol=0, atol=1e-6)
    assert not torch.allclose(each[0], each[1], atol=1e-3)


def test_a_backward_reader_meets_a_text_from_its_end() -> None:
    model = tiny("backward")
    (reader,) = (reader for _, reader in model.module.items())
    row = model.encode(["a cat sat"])[0]
    forth = module.pooled_of(reader, [row], "forward", module.Pieces(5, 0))
    back = module.pooled_of(reader, [row[::-1]], "backward", module.Pieces(5, 0))
    assert torch.equal(forth, back)


def test_answers_come_in_the_order_of_the_texts_over_the_edges_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, texts = tiny(), [TEXTS[i % 5] + " cat" * i for i in range(11)]
    whole = model(texts)
    monkeypatch.setattr(module, "CHUNK", 3)
    for one, other in zip(model(texts), whole, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    assert model([]) == []
    with pytest.raises(UsageError, match="no text"):
        model.probabilities([])


def test_it_tells_as_it_was_trained_whatever_mode_it_is_left_in() -> None:
    model = tiny()
    before = model(TEXTS)
    model.module.train()
    assert model(TEXTS) == before and model.module.training


@pytest.mark.parametrize("directions", [("forward",), ("backward",), ("forward", "backward")])
def test_saved_and_opened_again_it_says_the_same(directions: tuple[str, ...], tmp_path: Path) -> None:
    model = tiny(*directions, labels=("bad", "fair", "good"))
    save_document_predictor(tmp_path, model)
    again = load_predictor(tmp_path, "cpu")
    assert isinstance(again, DocumentPredictor) and again.facts == model.facts
    assert again(TEXTS) == model(TEXTS)
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["labels"] == ["bad", "fair", "good"] and record["columns"] == {"text_field": "review"}


def record(**changed: object) -> Callable[[Path], None]:
    """Another value in the record; ... takes it out."""

    def change(folder: Path) -> None:
        path = folder / RECORD
        found = json.loads(path.read_text()) | changed
        path.write_text(json.dumps({name: value for name, value in found.items() if value is not ...}))

    return change


def heads(change: Callable[[dict], dict]) -> Callable[[Path], None]:
    """Other tensors in the head's file."""
    return lambda folder: save_file(change(load_file(folder / HEAD)), folder / HEAD)


BROKEN: dict[str, Callable[[Path], object]] = {
    "no head": lambda folder: (folder / HEAD).unlink(),
    "half a head": lambda folder: (folder / HEAD).write_bytes((folder / HEAD).read_bytes()[:-9]),
    "a record that is no JSON": lambda folder: (folder / RECORD).write_text("{"),
    "a record that is a list": lambda folder: (folder / RECORD).write_text("[]"),
    "no labels": record(labels=...),
    "one label": record(labels=["yes"]),
    "labels that are the same": record(labels=["yes", "yes"]),
    "labels that are no names": record(labels=[1, 2]),
    "a label more": record(labels=["a", "b", "c"]),
    "labels in a text": record(labels="ny"),
    "an unknown pooling": record(pooling="middle"),
    "another pooling": record(pooling="last"),
    "another width": record(head_width=5),
    "a width that is none": record(head_width="wide"),
    "no chunk": record(chunk=0),
    "a chunk that is none": record(chunk="long"),
    "another kind": record(kind="pair"),
    "an unknown field": record(more=1),
    "another direction's head": heads(lambda t: {n.replace("forward", "backward"): v for n, v in t.items()}),
    "a head with a tensor less": heads(lambda t: {n: v for n, v in t.items() if not n.endswith("0.weight")}),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_folder_is_a_model_error(name: str, tmp_path: Path) -> None:
    save_document_predictor(tmp_path, tiny())
    BROKEN[name](tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path)) as raised:
        load_document_predictor(tmp_path, "cpu")
    assert "\n" not in str(raised.value)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_document_predictor(tmp_path, tiny())
    learn_words([*TEXTS, "and many words more than the model has rows for"], 99, 1).save(tmp_path)
    with pytest.raises(ModelError, match="do not belong"):
        load_document_predictor(tmp_path, "cpu")
