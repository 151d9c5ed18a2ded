"""`lineal run gpt` and `lineal run finetune` on it: from a text file to answers, resumed bit for bit, loaded elsewhere."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lineal.models.decoder import Decoder, gpt1_config
from lineal.models.hf import load_model
from lineal.recipes import finetune_loop, gpt, next_token
from lineal.tokenizers import load_tokenizer
from lineal.train.finetune.inputs import Marks
from lineal.train.finetune.predictor import load_predictor

STEPS = 6
SMALL = ("--threads", "1", "--dtype", "float32", "--quiet", "--seed", "3", "--save-every", "2")
GOOD, BAD = ("fine", "lovely", "great"), ("dull", "awful", "poor")


def sentences(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences whose mood one of six words says."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        word = draw.choice(GOOD if i % 2 else BAD)
        who = draw.choice(("the film", "her book", "this play", "a song"))
        rows.append({"text": f"{who} was {word}", "label": ("bad", "good")[i % 2], "grade": float(3 + i % 2)})
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text to pre-train on and labelled rows."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "text.txt").write_text("\n".join(row["text"].capitalize() + "." for row in sentences(400, 0)))
    for name, count, seed in (("train", 64, 1), ("held", 20, 2)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in sentences(count, seed)))
    return folder


def pretraining(files: Path, out: Path, *more: str) -> list[str]:
    """The words of a pre-training of a second."""
    own = ("--preset", "seconds", "--data", str(files / "text.txt"), "--vocab-size", "120", "--width", "32", "--layers", "1",
           "--block", "24", "--batch-size", "8", "--steps", str(STEPS), "--eval-every", "3")  # fmt: skip
    return ["run", "gpt", "--out", str(out), *own, *SMALL, *more]


def tuning(files: Path, model: Path, out: Path, *more: str) -> list[str]:
    """The words of a fine-tuning of a second."""
    own = ("--model", str(model), "--data", str(files / "train.jsonl"), "--eval-data", str(files / "held.jsonl"),
           "--batch-size", "16", "--epochs", "1.5", "--learning-rate", "1e-2")  # fmt: skip
    return ["run", "finetune", "--out", str(out), *own, *SMALL, *more]


@pytest.fixture(scope="module")
def model(files: Path, command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pre-training."""
    out = tmp_path_factory.mktemp("gpt") / "run"
    log = out.parent / "log"
    assert command(pretraining(files, out), log=log) == 0, log.read_text()
    return out


SURE = ("--dropout", "0", "--head-dropout", "0", "--auxiliary", "0", "--epochs", "10")
"""With which so small a model learns so small a task for certain."""


def test_a_killed_pre_training_ends_as_if_it_had_not_been(
    files: Path, model: Path, tmp_path: Path, command: Callable[..., int], die_at: Callable, outcome: Callable
) -> None:
    words = pretraining(files, tmp_path / "run")
    assert command(words, before=die_at(next_token, "train_step", 4)) == -signal.SIGKILL
    assert command(["resume", str(tmp_path / "run")]) == 0
    assert outcome(tmp_path / "run") == outcome(model)


def test_a_killed_fine_tuning_ends_as_if_it_had_not_been(
    files: Path, model: Path, tmp_path: Path, command: Callable[..., int], die_at: Callable, outcome: Callable
) -> None:
    assert command(tuning(files, model, tmp_path / "whole"), log=tmp_path / "log") == 0, (
        tmp_path / "log"
    ).read_text()
    words = tuning(files, model, tmp_path / "run")
    assert command(words, before=die_at(finetune_loop, "train_step", 4)) == -signal.SIGKILL
    assert command(["resume", str(tmp_path / "run")]) == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_evaluation_says_perplexity_bits_and_accuracy(model: Path, final_of: Callable) -> None:
    found = final_of(model)
    assert found["eval/perplexity"] == pytest.approx(torch.tensor(found["eval/loss"]).exp().item(), rel=1e-5)
    assert 0 < found["eval/bits_per_byte"] < 8
    assert 0 <= found["eval/token_accuracy"] <= 1


@torch.no_grad()
def test_what_comes_out_is_an_openai_gpt_folder(model: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        model / "final", output_loading_info=True
    )
    assert type(theirs).__name__ == "OpenAIGPTLMHeadModel"
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours, config = load_model(model / "final")
    token_BT = torch.randint(config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    assert (theirs.eval()(token_BT).logits - ours.logits(ours(token_BT))).abs().max() <= 1e-5
    assert (config.dropout, config.inner, config.norm_place) == (0.1, 4 * config.width, "post")


def test_words_are_lower_case_pieces_that_end_in_a_sign(model: Path) -> None:
    tokenizer = load_tokenizer(model / "final")
    assert tokenizer.decode(tokenizer.encode("The Film was fine.")) == "the film was fine ."
    assert "</w>" in (model / "final" / "tokenizer.json").read_text()


def test_epochs_say_how_many_steps_are_taken(files: Path, tmp_path: Path, say: Callable[..., Any]) -> None:
    said = say(*pretraining(files, tmp_path / "run"), "--epochs", "2", "--dry-run")
    assert said.code == 0 and "2 passes" in said.out
    tokens = int(said.out.split(" tokens to train on")[0].split()[-1].replace(",", ""))
    assert f"in {round(2 * tokens / (8 * 24)):,} steps" in said.out
    for part in ("parameters", "GFLOP", "memory, about", "time, about"):
        assert part in said.out


def test_a_text_of_its_own_to_evaluate_on(files: Path, tmp_path: Path, say: Callable[..., Any]) -> None:
    (tmp_path / "held.txt").write_text("the film was great\n" * 30)
    said = say(*pretraining(files, tmp_path / "run"), "--eval-data", str(tmp_path / "held.txt"), "--dry-run")
    whole = say(*pretraining(files, tmp_path / "run"), "--dry-run")
    assert said.code == 0
    assert int(said.out.split(" held out")[0].split()[-1]) != int(whole.out.split(" held out")[0].split()[-1])


def test_weights_start_as_in_the_paper() -> None:
    decoder = Decoder(gpt1_config(500, 64, 4, 4, 256, 32)).initialise(1)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.06), name


def test_the_paper_s_preset_is_the_paper_s_specification() -> None:
    found = gpt.tuned(gpt.with_options(gpt.GPTConfig(), preset="paper"))
    model, optimiser = found.model, found.optimiser
    assert (model.layers, model.width, model.heads, model.inner, model.dropout) == (12, 768, 12, None, 0.1)
    assert (optimiser.batch_size, optimiser.block, found.corpus.epochs) == (64, 512, 100.0)
    assert (optimiser.learning_rate, optimiser.warmup, optimiser.schedule, optimiser.floor) == (
        2.5e-4,
        2000,
        "cosine",
        0,
    )
    assert (optimiser.weight_decay, found.corpus.vocab_size, found.corpus.clean) == (0.01, 40_478, "paper")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "gpt"), "gpt needs --data FILE"),
        (("run", "gpt", "--preset", "huge"), "--preset huge is not one of seconds"),
        (("run", "finetune"), "--data FILE"),
        (("run", "finetune", "--task", "riddle"), "--task riddle is not one of classification"),
    ],
)
def test_what_is_missing_is_said(
    words: tuple[str, ...], text: str, tmp_path: Path, say: Callable[..., Any]
) -> None:
    said = say(*words, "--out", str(tmp_path / "run"))
    assert said.code in (1, 2) and text in said.err and said.err.count("lineal:") == 1


def test_fine_tuning_learns_and_predicts(
    files: Path,
    model: Path,
    tmp_path: Path,
    say: Callable[..., Any],
    final_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    assert say(*tuning(files, model, out, *SURE)).code == 0
    assert final_of(out)["eval/accuracy"] == 1.0
    predictor = load_predictor(out)
    texts = ["her book was great", "a song was dull"]
    assert [p.label for p in predictor(texts)] == ["good", "bad"]
    assert say("predict", str(out), *texts).out.split() == ["good", "bad"]
    rows = [
        json.loads(line)
        for line in say("predict", str(out), "--data", str(files / "held.jsonl"), "--json").out.splitlines()
    ]
    assert len(rows) == 20 and all(sum(r["probabilities"].values()) == pytest.approx(1) for r in rows)
    page = (out / "report.html").read_text()
    assert all(part in page for part in ("Who is taken for whom", "Calibration", "lineal predict"))
    _, config = load_model(out / "final")
    marks = predictor.facts.marks
    assert isinstance(marks, Marks)
    assert config.vocab_size == load_tokenizer(out / "final").vocab_size == marks.extract + 1


def test_a_score_is_told_too(
    files: Path, model: Path, tmp_path: Path, say: Callable[..., Any], final_of: Callable
) -> None:
    words = tuning(files, model, tmp_path / "run", *SURE, "--target", "score", "--label-field", "grade")
    assert say(*words).code == 0
    assert final_of(tmp_path / "run")["eval/pearson"] > 0.9
    low, high = (
        float(x)
        for x in say("predict", str(tmp_path / "run"), "a song was dull", "a song was fine").out.split()
    )
    assert low < 3.5 < high


@pytest.mark.parametrize("more", [("--fresh",), ("--auxiliary", "0")])
def test_the_controls_of_the_paper(
    more: tuple[str, ...], files: Path, model: Path, tmp_path: Path, say
) -> None:
    assert say(*tuning(files, model, tmp_path / "run", *more)).code == 0
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert ("language_loss" in first) == (more == ("--fresh",))
    if more == ("--fresh",):
        # A fresh model knows no language: about log V.
        assert first["language_loss"] > 4
