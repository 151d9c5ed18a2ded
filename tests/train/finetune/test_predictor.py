"""A fine-tuned model in use: saved and opened again it says the same, rows stand alone, and errors name the fault."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lineal.errors import ModelError, UsageError
from lineal.models.decoder import Decoder, gpt1_config
from lineal.models.finetuned import DecoderBody, FineTuned, widened
from lineal.models.hf import save_model
from lineal.tokenizers import CharTokenizer
from lineal.tokenizers.training import Learning, train
from lineal.train.finetune import predictor as module
from lineal.train.finetune.inputs import Marks, extended
from lineal.train.finetune.predictor import HEAD, RECORD, Facts, Predictor, load_predictor, save_predictor

TOKENIZER = CharTokenizer.train("abc ")
FIRST = TOKENIZER.vocab_size
MARKS = Marks(FIRST, FIRST + 1, FIRST + 2)
LABELS = {"classification": ("no", "so", "yes"), "pair": ("no", "yes"), "similarity": ("no", "yes")}
ROWS = {
    "classification": ["abc", "", "a b c a b c a b c a b c a b c", "cab"],
    "pair": [("abc", "b"), ("b", "abc"), ("c" * 40, "a")],
    "similarity": [("abc", "b"), ("c", "aab")],
    "choice": [("ab", "c", "a"), ("c", "bb", "b")],
}


def tiny(kind: str = "classification", labels: tuple[str, ...] | None = None, **facts: object) -> Predictor:
    """A predictor of one block and a context of 16 whose scores are far from each other."""
    names = LABELS.get(kind, ("0", "1")) if labels is None else labels
    decoder = Decoder(gpt1_config(FIRST + 3, 8, 1, 2, 32, 16)).initialise(0)
    model = FineTuned(DecoderBody(decoder), kind, 1 if kind == "choice" else max(1, len(names)), 0.1)
    made = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=made)
    return Predictor(model, TOKENIZER, Facts(kind, names, MARKS, **facts))  # type: ignore[arg-type]


def saved(predictor: Predictor, folder: Path) -> Path:
    """The folder of a finished model, as a run leaves it."""
    folder.mkdir()
    assert isinstance(predictor.model.body, DecoderBody)
    save_model(predictor.model.body.decoder, folder, eos_id=TOKENIZER.eos_id, pad_id=TOKENIZER.pad_id)
    predictor.tokenizer.save(folder)
    save_predictor(folder, predictor)
    return folder


@pytest.mark.parametrize("kind", list(ROWS))
def test_saved_and_opened_again_it_says_the_same(kind: str, tmp_path: Path) -> None:
    before = tiny(kind, columns={"task": kind, "choices_field": ["a", "b"]})
    after = load_predictor(saved(before, tmp_path / "m"), "cpu")
    assert isinstance(after, Predictor)
    assert after.facts == before.facts
    assert after(ROWS[kind]) == before(ROWS[kind])
    assert not any(part.training for part in after.model.modules())


def test_a_run_is_opened_by_its_own_folder(tmp_path: Path) -> None:
    before = tiny()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    saved(before, tmp_path / "run" / "final")
    assert load_predictor(str(tmp_path / "run"), "cpu")(["ab"]) == before(["ab"])


def test_scores_are_put_back_on_their_scale(tmp_path: Path) -> None:
    before = tiny("similarity", (), mean=3.0, spread=0.5)
    raw = before.raw(before.encode([("ab", "c")])).item()
    for predictor in (before, load_predictor(saved(before, tmp_path / "m"), "cpu")):
        (found,) = predictor([("ab", "c")])
        assert found.label is None and found.probabilities == {}
        assert found.score == pytest.approx(3.0 + 0.5 * raw, rel=1e-9)


@pytest.mark.parametrize("kind", list(ROWS))
def test_probabilities_are_a_softmax_of_the_raw_scores_and_the_label_is_the_likeliest(kind: str) -> None:
    predictor = tiny(kind)
    rows = ROWS[kind]
    plain = [(row,) if isinstance(row, str) else row for row in rows]
    for found, scores in zip(predictor(rows), predictor.raw(predictor.encode(plain)).tolist(), strict=True):
        total = sum(map(math.exp, scores))
        names = predictor.facts.labels
        assert list(found.probabilities) == list(names)
        assert list(found.probabilities.values()) == pytest.approx([math.exp(s) / total for s in scores])
        assert found.label == names[scores.index(max(scores))] and found.score is None


@pytest.mark.parametrize("kind", list(ROWS))
def test_a_row_does_not_depend_on_those_beside_it(kind: str) -> None:
    predictor, rows = tiny(kind), ROWS[kind]
    together = predictor.raw(predictor.encode([(r,) if isinstance(r, str) else r for r in rows]))
    for budget in (1, 20):
        apart = replace(predictor, token_budget=budget)
        found = apart.raw(apart.encode([(r,) if isinstance(r, str) else r for r in rows]))
        torch.testing.assert_close(found, together, rtol=1e-5, atol=1e-6)


def test_answers_come_in_the_order_of_the_rows_over_the_edges_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = tiny()
    rows = ["abcabc"[: n % 7] for n in range(11)]
    whole = predictor(rows)
    monkeypatch.setattr(module, "CHUNK", 4)
    for found, expected in zip(predictor(rows), whole, strict=True):
        assert found.probabilities == pytest.approx(expected.probabilities, rel=1e-5)
    assert predictor([]) == []
    with pytest.raises(UsageError, match="no row to score"):
        predictor.raw([])


def test_dropout_is_off_while_it_tells_and_back_on_afterwards() -> None:
    predictor = tiny()
    predictor.model.train()
    assert predictor(["abc"]) == predictor(["abc"]) == tiny()(["abc"])
    assert predictor.model.training and predictor.model.head.training


def test_rows_become_the_sequences_of_their_task() -> None:
    a, b = TOKENIZER.encode("a")[0], TOKENIZER.encode("b")[0]
    start, delimiter, extract = FIRST, FIRST + 1, FIRST + 2
    assert tiny().encode([("ab",)])[0][0].ids == [start, a, b, extract]
    assert tiny("pair").encode([("a", "b")])[0][0].ids == [start, a, delimiter, b, extract]
    assert len(tiny().encode([("a" * 99,)])[0][0]) == 16


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("classification", ["a", ("a", "b")], "row 1 has 2 texts, and classification takes 1."),
        ("pair", ["a"], "row 0 has 1 texts, and pair takes 2."),
        ("similarity", [("a", "b"), ("a", "b", "c")], "row 1 has 3 texts, and similarity takes 2."),
        ("choice", [("a", "b")], "row 0 has 2 texts, and choice takes 3."),
    ],
)
def test_a_row_with_the_wrong_number_of_texts_is_refused(kind: str, rows: list, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        tiny(kind)(rows)
    assert str(caught.value) == message


def test_choices_in_another_order_are_the_same_choices() -> None:
    predictor = tiny("choice", ("0", "1", "2"))
    (found,) = predictor([("ab", "c", "a", "bb")])
    (turned,) = predictor([("ab", "bb", "c", "a")])
    moved = {"0": "1", "1": "2", "2": "0"}
    for before, after in moved.items():
        assert turned.probabilities[after] == pytest.approx(found.probabilities[before], abs=1e-5)


def test_with_a_subword_vocabulary_it_says_the_same_after_saving(tmp_path: Path) -> None:
    texts = ["a fine film", "dull", "her book was lovely and long and more"]
    tokenizer, marks = extended(train("bpe", texts=texts * 5, learning=Learning(vocab_size=290)))
    decoder = widened(Decoder(gpt1_config(marks.start, 16, 2, 2, 64, 24)).initialise(0), marks.extract + 1, 0)
    model = FineTuned(DecoderBody(decoder), "classification", 2, 0.1, seed=2)
    before = Predictor(model.eval(), tokenizer, Facts("classification", ("no", "yes"), marks))
    after = load_predictor(saved(before, tmp_path / "m"), "cpu")
    assert isinstance(after, Predictor)
    assert after.facts.marks == marks and after(texts) == before(texts)


def test_half_precision_is_close_and_comes_back_wide() -> None:
    predictor = tiny()
    encoded = predictor.encode([("abc",), ("b",)])
    exact, half = predictor.raw(encoded), replace(predictor, half=torch.bfloat16).raw(encoded)
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    assert (half - exact).abs().max() <= 0.05 * exact.abs().max()


def test_the_record_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    folder = saved(tiny("pair", mean=1.5), tmp_path / "m")
    text = (folder / RECORD).read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "kind": "pair",
        "labels": ["no", "yes"],
        "marks": {"start": FIRST, "delimiter": FIRST + 1, "extract": FIRST + 2},
        "mean": 1.5,
        "spread": 1.0,
        "columns": None,
        "family": "decoder",
    }


def test_a_model_that_was_not_fine_tuned_is_named(tmp_path: Path) -> None:
    folder = saved(tiny(), tmp_path / "m")
    (folder / RECORD).unlink()
    with pytest.raises(ModelError) as caught:
        load_predictor(folder)
    assert str(caught.value) == (
        f"{folder} is not fine-tuned (no finetuned.json): lineal run finetune --model {folder} makes one that is."
    )
    with pytest.raises(ModelError, match=r"nowhere does not exist: give a model folder"):
        load_predictor(tmp_path / "nowhere")


def spoil(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Changes one file of a folder."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no head": (lambda folder: (folder / HEAD).unlink(), "FileNotFoundError"),
    "half a head": (spoil(HEAD, lambda data: data[: len(data) // 2]), "SafetensorError"),
    "no JSON": (spoil(RECORD, lambda data: data[:20]), "JSONDecodeError"),
    "no UTF-8": (spoil(RECORD, lambda data: b"\xff" + data), "UnicodeDecodeError"),
    "no object": (spoil(RECORD, lambda data: b"[]"), "TypeError"),
    "no marks": (spoil(RECORD, lambda data: data.replace(b'"marks"', b'"mask"')), "KeyError: 'marks'"),
    "an unknown mark": (spoil(RECORD, lambda data: data.replace(b'"start"', b'"begin"')), "TypeError"),
    "an unknown kind": (
        spoil(RECORD, lambda data: data.replace(b"classification", b"riddle")),
        "ValueError: finetuned.json: the kind 'riddle' is not one of",
    ),
    "a label too few": (
        spoil(RECORD, lambda data: data.replace(b'"so",', b"")),
        "ValueError: finetuned.json has 2 labels, and the head of head.safetensors 3 rows",
    ),
    "two labels alike": (
        spoil(RECORD, lambda data: data.replace(b'"so"', b'"no"')),
        "ValueError: finetuned.json: the labels",
    ),
    "a label that is a number": (
        spoil(RECORD, lambda data: data.replace(b'"so"', b"1")),
        "ValueError: finetuned.json: the labels",
    ),
    "a mark that is a word": (
        spoil(RECORD, lambda data: data.replace(b'"start": %d' % FIRST, b'"start": "s"')),
        "ValueError: finetuned.json: the marks",
    ),
    "an unknown fact": (spoil(RECORD, lambda data: data.replace(b'"mean"', b'"average"')), "TypeError"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_folder_is_a_model_error(name: str, tmp_path: Path) -> None:
    folder, (break_it, kind) = saved(tiny(), tmp_path / "m"), BROKEN[name]
    break_it(folder)
    with pytest.raises(ModelError) as caught:
        load_predictor(folder, "cpu")
    assert str(caught.value).startswith(f"{folder} holds no whole fine-tuned model ({kind}")


def test_the_head_of_a_wider_model_is_refused(tmp_path: Path) -> None:
    folder, other = saved(tiny(), tmp_path / "m"), tiny()
    other.model.head.weight = torch.nn.Parameter(torch.zeros(3, 9))
    save_predictor(folder, other)
    with pytest.raises(ModelError, match=r"holds no whole fine-tuned model \(RuntimeError"):
        load_predictor(folder, "cpu")


@pytest.mark.parametrize("at", range(3))
def test_weights_without_the_marks_are_another_models(at: int, tmp_path: Path) -> None:
    predictor = tiny()
    marks = [FIRST, FIRST + 1, FIRST + 2]
    marks[at] = FIRST + 3
    predictor.facts = replace(predictor.facts, marks=Marks(*marks))
    folder = saved(predictor, tmp_path / "m")
    with pytest.raises(ModelError) as caught:
        load_predictor(folder, "cpu")
    assert str(caught.value) == (
        f"{folder}: the vocabulary has {FIRST + 3} rows, and finetuned.json names token {FIRST + 3}: "
        "the weights are another model's."
    )
