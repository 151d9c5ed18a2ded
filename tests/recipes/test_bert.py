"""`lineal run bert`, what fills in and embeds with it, and fine-tuning of every kind: resumed bit for bit, loaded elsewhere."""

from __future__ import annotations

import io
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lineal.models.hf.bert import load_bert
from lineal.recipes import bert, bert_loop
from lineal.recipes.config import BertRunConfig, with_options
from lineal.train.embedding import load_embedder
from lineal.train.finetune.predictor import load_predictor

STEPS = 6
SMALL = ("--threads", "1", "--dtype", "float32", "--quiet", "--seed", "3", "--save-every", "2")
NAMES = ("anna", "boris", "clara", "dora")
PLACES = {"town": "street", "farm": "field", "sea": "ship", "wood": "tree"}


def sentences(draw: random.Random, place: str) -> str:
    """A sentence of one place's words."""
    return f"{draw.choice(NAMES)} saw the {PLACES[place]} of the {place}."


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents that keep to their place, and labelled rows of every kind."""
    folder, draw = tmp_path_factory.mktemp("files"), random.Random(0)
    documents = ["\n".join(sentences(draw, place).capitalize() for _ in range(6)) for place in [*PLACES] * 12]
    (folder / "text.txt").write_text("\n\n".join(documents))
    rows: dict[str, list[dict[str, Any]]] = {"pair": [], "tagging": [], "span": [], "choice": []}
    for i in range(60):
        place, other = draw.sample([*PLACES], 2)
        first, second = sentences(draw, place), sentences(draw, place if i % 2 else other)
        rows["pair"].append({"text": first, "second": second, "label": ("other", "same")[i % 2]})
        words = first.rstrip(".").split()
        tags = ["who" if word in NAMES else "where" if word in PLACES else "O" for word in words]
        rows["tagging"].append({"words": words, "tags": tags})
        rows["span"].append({"question": "who?", "context": first, "answer": words[0]})
        rows["choice"].append(
            {"text": first, "choices": [place, other][:: 1 if i % 2 else -1], "label": 1 - i % 2}
        )
    for kind, found in rows.items():
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def pretraining(files: Path, out: Path, *more: str) -> list[str]:
    """The words of a pre-training of a second."""
    own = ("--preset", "seconds", "--data", str(files / "text.txt"), "--vocab-size", "90", "--width", "32", "--layers", "1",
           "--block", "32", "--batch-size", "8", "--steps", str(STEPS), "--eval-every", "3", "--held-out", "0.2", "--dropout",
           "0.1")  # fmt: skip
    return ["run", "bert", "--out", str(out), *own, *SMALL, *more]


COLUMNS = {
    "pair": (),
    "tagging": ("--text-field", "words", "--label-field", "tags"),
    "span": ("--text-field", "question", "--second-field", "context", "--label-field", "answer"),
    "choice": (),
}


def tuning(kind: str, files: Path, model: Path, out: Path, *more: str) -> list[str]:
    """The words of a fine-tuning of a second."""
    own = ("--model", str(model), "--task", kind, "--data", str(files / f"{kind}.jsonl"), "--batch-size", "16",
           "--epochs", "1.5", "--learning-rate", "1e-2", *COLUMNS[kind])  # fmt: skip
    return ["run", "finetune", "--out", str(out), *own, *SMALL, *more]


@pytest.fixture(scope="module")
def model(files: Path, command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pre-training."""
    out = tmp_path_factory.mktemp("bert") / "run"
    log = out.parent / "log"
    assert command(pretraining(files, out), log=log) == 0, log.read_text()
    return out


def test_a_killed_pre_training_ends_as_if_it_had_not_been(
    files: Path, model: Path, tmp_path: Path, command: Callable[..., int], die_at: Callable, outcome: Callable
) -> None:
    words = pretraining(files, tmp_path / "run")
    assert command(words, before=die_at(bert_loop, "train_step", 4)) == -signal.SIGKILL
    assert command(["resume", str(tmp_path / "run")]) == 0
    assert outcome(tmp_path / "run") == outcome(model)


def test_micro_batches_give_the_same_weights(
    files: Path, model: Path, tmp_path: Path, command: Callable[..., int]
) -> None:
    # Without dropout, which is drawn for each micro-batch.
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command(pretraining(files, whole, "--dropout", "0")) == 0
    assert command(pretraining(files, parts, "--dropout", "0", "--token-budget", "70")) == 0
    one, other = (dict(load_bert(path / "final").named_parameters()) for path in (whole, parts))
    for name, parameter in one.items():
        torch.testing.assert_close(other[name], parameter, rtol=1e-3, atol=1e-4, msg=name)


def test_the_final_figures_are_of_what_was_held_out(model: Path, final_of: Callable) -> None:
    found = final_of(model)
    assert found["eval/masked_perplexity"] == pytest.approx(np.exp(found["eval/masked_loss"]), rel=1e-6)
    assert 0 <= found["eval/masked_accuracy"] <= 1 and 0.5 <= found["eval/next_usual"] <= 1
    assert found["eval/pairs"] > 5
    page = (model / "report.html").read_text()
    for part in (
        "Filled in",
        "What was too tired, what was too wide?",
        "Where the pronoun looks",
        "lineal fill",
    ):
        assert part in page


@torch.no_grad()
def test_what_comes_out_is_a_bert_folder(model: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs, found = transformers.BertForPreTraining.from_pretrained(model / "final", output_loading_info=True)
    assert not any(found[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours = load_bert(model / "final")
    token_BT = torch.randint(5, ours.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    expected = theirs.eval()(input_ids=token_BT)
    hidden_BTD = ours(token_BT, torch.zeros_like(token_BT))
    torch.testing.assert_close(ours.words(hidden_BTD), expected.prediction_logits, rtol=1e-5, atol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model / "final")
    mine = load_predictor_tokens(model, "Anna saw the ship", "of Boris")
    assert tokenizer("Anna saw the ship", "of Boris")["input_ids"] == mine


def load_predictor_tokens(model: Path, first: str, second: str) -> list[int]:
    """The ids of a pair as fine-tuning lays it out."""
    from lineal.tokenizers import load_tokenizer
    from lineal.train.finetune.bodies import class_marks

    tokenizer = load_tokenizer(model / "final")
    return class_marks(tokenizer, "").enclose(tokenizer.encode(first), tokenizer.encode(second)).ids


def test_duplicated_masks_come_again_and_new_ones_do_not(files: Path, model: Path) -> None:
    options = with_options(
        BertRunConfig(), data=str(files / "text.txt"), block=32, batch_size=8, held_out=0.2, duplicates=2,
        tokenizer=str(model / "final"),
    )  # fmt: skip
    corpus = bert_loop.read_corpus(options.documents)
    tokenizer = bert_loop.tokenizer_of(options, corpus, None)
    for duplicates, same in ((2, True), (0, False)):
        pairs, _ = bert_loop.pairs_of(with_options(options, duplicates=duplicates), corpus, tokenizer)
        order = bert_loop.PairOrder(pairs, 8)
        rows = np.arange(4)
        first, third = (pairs.batch(pairs.variant(epoch), rows) for epoch in (0, 2))
        assert (
            first.token_BT.shape == third.token_BT.shape and torch.equal(first.token_BT, third.token_BT)
        ) == same
        seen = np.sort(np.concatenate(order.epoch(0)))
        assert (seen == np.arange(len(pairs.of(0)))).all()
        assert any((a.shape != b.shape) or (a != b).any() for a, b in zip(order.epoch(0), order.epoch(2)))


def test_the_presets_are_the_paper_s() -> None:
    for preset, shape in (("base", (12, 768, 12)), ("large", (24, 1024, 16))):
        found = bert.tuned(with_options(BertRunConfig(), preset=preset))
        assert (found.model.layers, found.model.width, found.model.heads) == shape
        options = found.optimiser
        assert (options.batch_size, options.learning_rate, options.warmup) == (256, 1e-4, 10_000)
        assert (options.weight_decay, options.beta2, options.schedule, found.run.steps) == (
            0.01,
            0.999,
            "linear",
            10**6,
        )
        assert (found.documents.mask_rate, found.documents.vocab_size, found.model.dropout) == (
            0.15,
            30_522,
            0.1,
        )


def test_a_dry_run_counts_pairs_and_padding(files: Path, tmp_path: Path, say: Callable[..., Any]) -> None:
    said = say(*pretraining(files, tmp_path / "run"), "--dry-run")
    assert said.code == 0 and not (tmp_path / "run").exists()
    for part in ("pairs:", "of them true", "padding", "parameters", "memory, about", "maximise"):
        assert part in said.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "bert"), "bert needs --data FILE"),
        (("run", "bert", "--preset", "huge"), "--preset huge is not one of seconds"),
        (("run", "bert", "--mask-rate", "0"), "--mask-rate 0: it is a share"),
        (
            ("run", "bert", "--data", "TEXT", "--block", "64", "--context", "32"),
            "--block 64 is longer than --context 32",
        ),
        (("run", "bert", "--data", "one.txt"), "give more documents (a blank line parts them)"),
        (("run", "finetune", "--model", "MODEL", "--auxiliary", "0.5"), "has no next-token loss"),
        (("fill", "MODEL", "nothing here"), "write [MASK] where a word is missing"),
        (("fill", "MODEL", "[MASK] " * 200), "and the model reads 128"),
        (("embed", "MODEL", "a", "--layers", "7", "--out", "x.npy"), "--layers 7: the model has 1"),
        (("embed", "MODEL", "a", "--pooling", "max", "--out", "x.npy"), "--pooling max is not one of mean"),
        (("embed", "MODEL", "a", " ", "--out", "x.npy"), "text 2: the text is empty"),
    ],
)
def test_what_cannot_work_is_said(
    words: tuple[str, ...], text: str, files: Path, model: Path, tmp_path: Path, say, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text("One line. Another.")
    Path("rows.csv").write_text("text,label\na,x\nb,y\n" * 9)
    named = {"MODEL": str(model), "TEXT": str(files / "text.txt")}
    words = tuple(named.get(word, word) for word in words)
    more = ("--out", "run", "--vocab-size", "90")[: 4 if "bert" in words else 2] if words[0] == "run" else ()
    more += ("--data", "rows.csv") if "finetune" in words else ()
    said = say(*words, *more)
    assert said.code in (1, 2) and text in said.err and said.err.count("lineal:") == 1


def test_words_are_filled_in(model: Path, say: Callable[..., Any]) -> None:
    said = say("fill", str(model), "anna saw the [MASK] of the [MASK]", "--top", "3")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert len(lines) == 2
    for line in lines:
        values = [float(part.split()[1]) for part in line.split("  ")]
        assert len(values) == 3 and values == sorted(values, reverse=True) and "[" not in line


class Output(io.StringIO):
    """Standard output with its bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = io.BytesIO()
        self.buffer = self.raw  # type: ignore[assignment]


def test_texts_become_vectors(model: Path, tmp_path: Path, say, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["anna saw the ship", "boris saw the tree of the wood " * 30, "clara"]
    out = tmp_path / "v.npy"
    assert say("embed", str(model), *texts, "--out", str(out), "--layers", "0", "-1").code == 0
    found = np.load(out, allow_pickle=False)
    assert found.shape == (3, 64) and found.dtype == np.float32
    embed = load_embedder(model, "cpu", layers=(0, -1))
    np.testing.assert_allclose(embed(texts).numpy(), found, rtol=1e-4, atol=1e-5)
    # A row does not depend on those beside it.
    np.testing.assert_allclose(embed([texts[2]]).numpy()[0], found[2], rtol=1e-4, atol=1e-5)
    stream = Output()
    monkeypatch.setattr(
        "sys.stdin",
        type("In", (), {"buffer": io.BytesIO("\n".join(texts).encode()), "isatty": lambda self: False})(),
    )
    monkeypatch.setattr("sys.stdout", stream)
    from lineal.cli import main

    assert main(["embed", str(model), "--layers", "0", "-1"]) == 0
    monkeypatch.undo()
    np.testing.assert_allclose(np.load(io.BytesIO(stream.raw.getvalue())), found, rtol=1e-4, atol=1e-5)
    said = say("embed", str(model), *texts, "--nearest", "anna saw the ship", "--count", "2")
    assert (
        said.out.splitlines()[0].startswith("1.0000  anna saw the ship") and len(said.out.splitlines()) == 2
    )


def test_a_killed_fine_tuning_ends_as_if_it_had_not_been(
    files: Path, model: Path, tmp_path: Path, command: Callable[..., int], die_at: Callable, outcome: Callable
) -> None:
    from lineal.recipes import finetune_loop

    log = tmp_path / "log"
    more = ("--dropout", "0.1")
    assert command(tuning("pair", files, model, tmp_path / "whole", *more), log=log) == 0, log.read_text()
    words = tuning("pair", files, model, tmp_path / "run", *more)
    assert command(words, before=die_at(finetune_loop, "train_step", 3)) == -signal.SIGKILL
    assert command(["resume", str(tmp_path / "run")]) == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


SURE = ("--dropout", "0", "--head-dropout", "0", "--epochs", "12")


@pytest.mark.parametrize("kind", ["tagging", "span", "choice", "pair"])
def test_every_kind_learns_and_is_told_again(
    kind: str, files: Path, model: Path, tmp_path: Path, say: Callable[..., Any], final_of: Callable
) -> None:
    out, same = tmp_path / "run", files / f"{kind}.jsonl"
    said = say(*tuning(kind, files, model, out, "--eval-data", str(same), *SURE))
    assert said.code == 0, said.err
    found = final_of(out)
    if kind == "tagging":
        assert found["eval/accuracy"] > 0.9
        assert load_predictor(out, "cpu")([("anna", "saw", "the", "ship")])[0].tags[0] == "who"
        assert say("predict", str(out), "anna saw the ship").out.split()[0] == "who"
    if kind == "span":
        assert found["eval/exact"] > 0.9 and found["eval/f1"] >= found["eval/exact"]
        (told,) = load_predictor(out, "cpu")([("who?", "Clara saw the tree of the wood.")])
        assert told.answer == "Clara" and 0.5 < told.certainty <= 1
    if kind in ("pair", "choice"):
        gold = [str(json.loads(line)["label"]) for line in same.read_text().splitlines()]
        told = say("predict", str(out), "--data", str(same)).out.split()
        right = sum(a == b for a, b in zip(gold, told, strict=True))
        assert right / len(gold) == pytest.approx(found["eval/accuracy"])
        said = say("predict", str(out), "--data", str(same), "--json")
        assert sum(json.loads(said.out.splitlines()[0])["probabilities"].values()) == pytest.approx(1)
