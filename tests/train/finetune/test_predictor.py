"""A fine-tuned model in use: independent of the rows beside it, the same after saving, and honest about what is missing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from lineal.errors import ModelError, UsageError
from lineal.models.decoder import Decoder, gpt1_config
from lineal.models.finetuned import FineTuned, widened
from lineal.models.hf import save_model
from lineal.tokenizers.training import Learning, train
from lineal.train.finetune.inputs import extended
from lineal.train.finetune.predictor import HEAD, RECORD, Facts, Predictor, load_predictor, save_predictor

TEXTS = ["a fine film", "dull", "her book was lovely and long and more", "a"]


def make(kind: str = "classification", labels: tuple[str, ...] = ("no", "maybe", "yes")) -> Predictor:
    """A model with random weights."""
    tokenizer, marks = extended(train("bpe", texts=TEXTS * 5, learning=Learning(vocab_size=290)))
    decoder = Decoder(gpt1_config(marks.start, 16, 2, 2, 64, 24)).initialise(0)
    decoder = widened(decoder, marks.extract + 1, 0)
    outputs = 1 if kind == "choice" or not labels else len(labels)
    model = FineTuned(decoder, kind, outputs, 0.1, seed=2)
    with torch.no_grad():
        model.head.weight.mul_(30)
    return Predictor(model.eval(), tokenizer, Facts(kind, labels, marks, 3.0, 2.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model."""
    predictor = make()
    save_model(predictor.model.decoder, tmp_path)
    predictor.tokenizer.save(tmp_path)
    save_predictor(tmp_path, predictor)
    return tmp_path


def test_a_row_is_told_the_same_alone_and_among_others() -> None:
    predictor = make()
    together = predictor(TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        (alone,) = predictor([text])
        assert alone.label == found.label
        assert list(alone.probabilities.values()) == pytest.approx(
            list(found.probabilities.values()), abs=1e-5
        )


def test_probabilities_sum_to_one_and_the_label_has_most() -> None:
    for found in make()(TEXTS):
        assert math.fsum(found.probabilities.values()) == pytest.approx(1)
        assert found.label == max(found.probabilities, key=lambda label: found.probabilities[label])


def test_micro_batches_do_not_matter() -> None:
    predictor = make()
    whole = predictor.raw(predictor.encode([(t,) for t in TEXTS]))
    predictor.token_budget = 1
    torch.testing.assert_close(predictor.raw(predictor.encode([(t,) for t in TEXTS])), whole)


def test_a_score_is_given_on_its_own_scale() -> None:
    predictor = make(labels=())
    raw = predictor.raw(predictor.encode([("dull",)]))[0, 0].item()
    (found,) = predictor(["dull"])
    assert found.label is None and found.score == pytest.approx(3.0 + 2.0 * raw, rel=1e-6)


def test_choices_are_told_by_number() -> None:
    predictor = make("choice", ("0", "1", "2"))
    (found,) = predictor([("a fine", "film", "dull", "book")])
    assert set(found.probabilities) == {"0", "1", "2"}
    # The choices in another order are the same sequences in another order.
    (turned,) = predictor([("a fine", "book", "film", "dull")])
    assert turned.probabilities["1"] == pytest.approx(found.probabilities["0"], abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "wanted"), [("pair", 2), ("similarity", 2), ("choice", 4), ("classification", 1)]
)
def test_rows_with_too_few_texts_are_refused(kind: str, wanted: int) -> None:
    with pytest.raises(UsageError, match=f"row 1 has 3 texts, and {kind} takes {wanted}"):
        make(kind)([("a",) * wanted, ("a", "b", "c")])


def test_what_is_saved_says_the_same(folder: Path) -> None:
    before, after = make()(TEXTS), load_predictor(folder, "cpu")(TEXTS)
    assert [p.label for p in before] == [p.label for p in after]
    for one, other in zip(before, after, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-6)


def test_a_model_that_is_not_fine_tuned_is_refused(folder: Path) -> None:
    (folder / RECORD).unlink()
    with pytest.raises(ModelError, match="is not fine-tuned"):
        load_predictor(folder)


def test_a_damaged_head_is_named(folder: Path) -> None:
    (folder / HEAD).write_bytes(b"short")
    with pytest.raises(ModelError, match="no whole fine-tuned model"):
        load_predictor(folder)


def test_a_vocabulary_of_another_model_is_refused(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    record["marks"]["extract"] = 10_000
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(ModelError, match="names token 10000"):
        load_predictor(folder)
