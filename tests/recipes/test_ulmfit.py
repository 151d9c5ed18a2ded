"""`lineal run ulmfit`: three stages from raw text to a classifier, each resumable, and what it refuses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lineal.models.hf.awd import load_awd
from lineal.recipes import staged
from lineal.train.finetune.predictor import load_predictor

SMALL = ("--preset", "seconds", "--threads", "1", "--quiet", "--width", "12", "--hidden", "16")
GOOD, BAD, REST = (
    ("fine", "great", "lovely"),
    ("poor", "awful", "dull"),
    ("a", "film", "the", "plot", "is", "was"),
)


def sentence(draw: random.Random, words: tuple[str, ...], length: int = 14) -> str:
    """Words in a row."""
    return " ".join(draw.choice(words) for _ in range(length))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a general text, a target text and labelled rows, made from a seed."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    (folder / "general.txt").write_text(sentence(draw, REST + GOOD, 3000))
    rows = []
    for i in range(160):
        tone = (GOOD, BAD)[i % 2]
        words = REST + tone
        rows.append({"text": sentence(draw, words, draw.randrange(12, 40)), "label": ("good", "bad")[i % 2]})
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def stage(name: str, *more: object) -> tuple[object, ...]:
    """A stage's command line."""
    return ("run", "ulmfit", "--stage", name, *SMALL, *more)


@pytest.fixture(scope="module")
def chain(data: Path, command: Callable[..., int]) -> Path:
    """The folder with the runs lm, tuned and classified, forward and backward."""
    log = data / "log"
    words = [
        stage("lm", "--data", data / "general.txt", "--directions", "both", "--out", data / "lm"),
        stage("tune", "--model", data / "lm", "--data", data / "labelled.jsonl", "--out", data / "tuned"),
        stage("classify", "--model", data / "tuned", "--data", data / "labelled.jsonl", "--epochs", "8",
              "--out", data / "classified"),
    ]  # fmt: skip
    for line in words:
        assert command([str(word) for word in line], log=log) == 0, log.read_text()
    return data


def test_three_stages_make_a_classifier(chain: Path, read: Callable, final_of: Callable) -> None:
    tuned = read(chain / "tuned" / "metrics.jsonl")
    assert tuned[0]["step"] == 0
    assert final_of(chain / "tuned")["eval/perplexity"] < tuned[0]["eval/perplexity"]
    assert {"eval/forward_loss", "eval/backward_loss"} <= set(tuned[0])
    final = final_of(chain / "classified")
    assert final["eval/accuracy"] > 0.9
    learning = [
        line["layers_learning"] for line in read(chain / "classified" / "metrics.jsonl") if "loss" in line
    ]
    assert learning[0] == 1 and max(learning) == 4 and learning == sorted(learning)
    assert "Who is taken for whom" in (chain / "classified" / "report.html").read_text()


def test_words_of_the_target_join_the_vocabulary(chain: Path) -> None:
    before, after = (load_awd(chain / name / "final") for name in ("lm", "tuned"))
    assert after["forward"].config.vocab_size == before["forward"].config.vocab_size + len(BAD)


def test_it_is_used_in_three_lines(chain: Path) -> None:
    model = load_predictor(chain / "classified", device="cpu")
    praise, blame = "the plot is lovely great fine " * 4, "the plot was awful dull poor " * 4
    good, bad = model([praise, blame])
    assert (good.label, bad.label) == ("good", "bad")
    assert sum(good.probabilities.values()) == pytest.approx(1)
    again, _ = model([praise, "a " * 400])
    assert again.probabilities["good"] == pytest.approx(good.probabilities["good"], rel=1e-5)


def test_the_command_predicts(chain: Path, say: Callable) -> None:
    said = say(
        "predict", chain / "classified", "a film was dull poor awful " * 4, "--json", "--device", "cpu"
    )
    assert said.code == 0 and json.loads(said.out)["label"] == "bad", said.err


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lm", ("--method", "averaged", "--learning-rate", "1", "--eval-every", "6", "--patience", "1")),
        ("classify", ("--unfreeze", "chain", "--directions", "both")),
    ],
)
def test_a_killed_run_ends_as_the_uninterrupted_one(
    data: Path,
    tmp_path: Path,
    command: Callable[..., int],
    die_at: Callable,
    outcome: Callable,
    name: str,
    options: tuple,
) -> None:
    source = data / ("general.txt" if name == "lm" else "labelled.jsonl")
    words = stage(name, "--data", source, "--save-every", "7", *options)
    log = tmp_path / "log"

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert command([*map(str, words), "--out", str(whole)], log=log) == 0, log.read_text()
    assert (
        command(
            [*map(str, words), "--out", str(cut)], before=die_at(staged, "set_learning_rate", 18), log=log
        )
        == -9
    )
    assert command(["resume", str(cut)], log=log) == 0, log.read_text()
    assert outcome(whole) == outcome(cut)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("lm",), "--data"),
        (("lm", "--data", "general.txt", "--model", "lm"), "starts from nothing"),
        (("tune", "--data", "general.txt"), "--model"),
        (("tune", "--data", "general.txt", "--model", "labelled.jsonl"), "labelled.jsonl"),
        (("classify", "--data", "labelled.jsonl", "--label-field", "lable"), "--label-field label"),
        (("classify", "--data", "labelled.jsonl", "--batch-size", "1"), "batch norm"),
        (("classify", "--data", "labelled.jsonl", "--pooling", "middle"), "--pooling middle"),
        (("lm", "--data", "general.txt", "--dropout-scale", "3"), "--input-dropout"),
        (("lm", "--data", "general.txt", "--held-out", "0"), "--held-out"),
    ],
)
def test_what_cannot_work_says_what_to_do(
    data: Path, tmp_path: Path, say: Callable, monkeypatch: pytest.MonkeyPatch, words: tuple, wanted: str
) -> None:
    monkeypatch.chdir(data)
    said = say(*stage(words[0], *words[1:], "--out", tmp_path / "run"))
    assert said.code != 0 and wanted in said.err and "unexpected" not in said.err, said.err


def test_a_dry_run_says_what_it_would_do(data: Path, say: Callable) -> None:
    said = say(*stage("lm", "--data", data / "general.txt", "--dry-run"))
    assert said.code == 0 and "parameters" in said.out and "a step: 8 columns" in said.out, said.err
    said = say(*stage("classify", "--data", data / "labelled.jsonl", "--dry-run"))
    assert said.code == 0 and "2 classes" in said.out, said.err


def test_every_preset_of_every_stage_is_a_configuration() -> None:
    from lineal.recipes import ulmfit
    from lineal.recipes.config import ULMFiTConfig, with_options

    for preset, stages in ulmfit.PRESETS.items():
        for name in stages:
            config = ulmfit.tuned(with_options(ULMFiTConfig(), stage=name, preset=preset))
            assert (config.stage.stage, config.stage.preset) == (name, preset)
            assert (config.optimiser.discriminative == 1) is (name == "lm")
    paper = ulmfit.tuned(with_options(ULMFiTConfig(), stage="classify", preset="paper"))
    assert (paper.reader.width, paper.reader.hidden, paper.reader.layers) == (400, 1150, 3)
    assert (paper.optimiser.learning_rate, paper.optimiser.ratio, paper.optimiser.cut_fraction) == (
        0.01,
        32,
        0.1,
    )
