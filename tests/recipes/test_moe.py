"""`lineal run moe` from a text file to a model folder, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lineal.models.hf import load_config
from lineal.models.hf.recurrent import load_recurrent
from lineal.recipes import moe

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. " * 40


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A small text."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def words(text: Path) -> tuple[str, ...]:
    """A run of a second."""
    own = (
        "--preset",
        "seconds",
        "--data",
        text,
        "--width",
        "16",
        "--inner",
        "16",
        "--heads",
        "2",
        "--block",
        "16",
    )
    return tuple(map(str, (*own, "--threads", "1", "--dtype", "float32", "--quiet")))


@pytest.mark.parametrize(
    "options",
    [
        ("--body", "lstm"),
        ("--body", "decoder", "--layers", "2"),
        ("--groups", "4", "--capacity", "1.25"),
        ("--body", "decoder", "--groups", "4", "--overflow", "around", "--capacity", "1"),
        ("--gate", "softmax", "--load-weight", "0"),
        ("--experts", "1", "--chosen", "1", "--gate", "top_k", "--load-weight", "0"),
    ],
    ids=lambda options: " ".join(options),
)
def test_it_learns_and_says_so(say, read, final_of, words, options, tmp_path: Path) -> None:
    said = say("run", "moe", *words, *options, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    metrics = read(tmp_path / "run" / "metrics.jsonl")
    losses = [line["loss"] for line in metrics if "loss" in line]
    assert losses[-1] < 0.85 * losses[0]
    assert {"routing/importance_cv2", "routing/load_cv2", "routing/max_over_mean", "routing/dropped"} <= set(
        metrics[0]
    )
    assert all(line["routing/max_over_mean"] >= 1 for line in metrics if "loss" in line)
    final = final_of(tmp_path / "run")
    assert final["eval/perplexity"] == pytest.approx(torch.tensor(final["eval/loss"]).exp().item(), rel=1e-4)
    # A character is a byte here.
    assert final["eval/bits_per_byte"] == pytest.approx(final["eval/loss"] / 0.6931471805599453)
    assert "perplexity" in said.err and "bits a byte" in said.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Which tokens each expert takes" in page and "Load of the experts" in page


def test_the_picture_tells_who_takes_what(say, read, words, tmp_path: Path) -> None:
    assert say("run", "moe", *words, "--out", tmp_path / "run").code == 0
    (record,) = [line for line in read(tmp_path / "run" / "samples.jsonl") if line.get("kind") == "experts"]
    assert len(record["experts"]) == 8
    assert sum(expert["share"] for expert in record["experts"]) == pytest.approx(1.0)
    for expert in record["experts"]:
        for token, count, lift in expert["tokens"]:
            assert token in TEXT and count >= 5 and lift > 1


def test_a_decoder_is_saved_as_mixtral_and_trained_further(say, final_of, words, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert say("run", "moe", *words, "--body", "decoder", "--out", first).code == 0
    config = load_config(first / "final")
    assert config.layout == "mixtral" and config.experts is not None and config.experts.count == 8
    said = say("generate", first, "--prompt", "the ", "--max-new-tokens", "5")
    assert said.code == 0 and said.out.strip(), said.err
    further = ("--model", first, "--load-weight", "0", "--steps", "5", "--learning-rate", "1e-4")
    said = say("run", "moe", *words, *further, "--gate", "top_k", "--out", second)
    assert said.code == 0, said.err
    begun, ended = (final_of(run)["eval/loss"] for run in (first, second))
    assert ended < begun + 0.1


def test_a_recurrent_model_comes_back_from_its_folder(say, words, tmp_path: Path) -> None:
    assert say("run", "moe", *words, "--out", tmp_path / "run").code == 0
    model = load_recurrent(tmp_path / "run" / "final")
    assert model.config.experts is not None and model.config.experts.noisy


def test_both_losses_bring_balance(say, read, words, tmp_path: Path) -> None:
    """Without them the busiest expert takes several times its share; the bars are measured at full size elsewhere."""
    loads = {}
    for name, weight in (("with", "0.1"), ("without", "0")):
        out = tmp_path / name
        weights = ("--importance-weight", weight, "--load-weight", weight)
        assert say("run", "moe", *words, *weights, "--out", out).code == 0
        lines = [line for line in read(out / "metrics.jsonl") if "loss" in line]
        loads[name] = sum(line["routing/max_over_mean"] for line in lines[-10:]) / 10
    assert loads["with"] < 1.5 < loads["without"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--chosen", "9"), "9 of 8 experts: choose at most 8"),
        (("--capacity", "0"), "leaves the experts no room"),
        (("--capacity", "-1"), "leaves the experts no room"),
        (("--importance-weight", "-0.1"), "weight of the importance loss is -0.1"),
        (("--load-weight", "-1"), "weight of the load loss is -1"),
        (("--gate", "top_k"), "give --load-weight 0"),
        (("--groups", "3"), "cannot be dealt evenly to 3 groups"),
        (("--experts", "0"), "--experts 0: it must be at least 1"),
        (("--body", "rnn"), "--body rnn is not one of lstm, decoder"),
        (("--preset", "moe-3"), "--preset moe-3 is not one of seconds"),
        (("--gate", "hard", "--load-weight", "0"), "gate 'hard' is not one of"),
        (("--prompt-field", "question"), "moe learns from plain text"),
        (("--expert-parallel", "--experts", "8"), "torchrun"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_refused_before_a_folder_is_made(
    say, words, options, message, tmp_path: Path
) -> None:
    said = say("run", "moe", *words, *options, "--out", tmp_path / "run")
    assert said.code == 2 and message in said.err, said.err
    assert not (tmp_path / "run").exists()


def test_a_model_without_experts_is_refused(say, words, tmp_path: Path, text: Path) -> None:
    first = tmp_path / "first"
    shape = (
        "--layers",
        "1",
        "--width",
        "16",
        "--heads",
        "2",
        "--block",
        "16",
        "--batch-size",
        "4",
        "--warmup",
        "1",
    )
    assert say("run", "pretrain", "--data", text, *shape, "--steps", "2", "--out", first, "--quiet").code == 0
    said = say("run", "moe", *words, "--model", first, "--out", tmp_path / "run")
    assert said.code == 2 and "has no experts" in said.err


@pytest.mark.parametrize("preset", list(moe.PRESETS))
def test_a_dry_run_counts_what_a_token_meets(say, text: Path, preset: str) -> None:
    said = say("run", "moe", "--preset", preset, "--data", text, "--dry-run")
    assert said.code == 0, said.err
    for word in ("maximise", "of which each token meets", "GFLOP", "MiB", "minutes", "CV²"):
        assert word in said.out


def test_the_papers_ladder_does_8_million_multiplications_for_a_token() -> None:
    """Around embedding and softmax: 2 x 2M in the LSTM layers and 4M in four experts, whatever their number."""
    from lineal.models.lstm import LSTMConfig, recurrent_parameters
    from lineal.recipes.config import with_options
    from lineal.recipes.moe_loop import shape_of

    for preset in ("moe-4", "moe-32", "moe-256", "moe-256-h", "moe-1024-h", "moe-4096-h"):
        config = moe.tuned(with_options(moe.default(), preset=preset))
        shape = shape_of(config.model, config.experts, 100, 50)
        assert isinstance(shape, LSTMConfig)
        assert shape.experts is not None and shape.experts.active == 4
        _, active = recurrent_parameters(shape)
        gates = (
            shape.experts.count if shape.experts.groups == 1 else shape.experts.groups + shape.experts.count
        )
        work = active - 2 * 100 * 512 - 2 * 512 * gates - 2 * 8 * 512
        assert work == 2 * 2 * 4 * 512 * 512 + 4 * 2 * 512 * 1024
        assert shape.experts.count == int(preset.split("-")[1])


def test_options_survive_being_saved() -> None:
    from lineal.recipes.config import MixtureConfig, from_json, to_json

    config = moe.default()
    assert from_json(MixtureConfig, json.loads(json.dumps(to_json(config)))) == config
    assert config.experts.experts == 32 and config.data.prompt_field == "text"


@pytest.mark.parametrize("recipe", ["grpo", "gspo", "ppo", "trpo"])
def test_a_mixture_is_post_trained(say, read, tiny, recipe: str, tmp_path: Path) -> None:
    words = ("run", recipe, *tiny["policy"], "--layout", "mixtral", "--steps", "2", "--out", tmp_path / "run")
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def digits(completions, **columns):\n    return [len(set(c)) / 9 for c in completions]\n"
    )
    own = () if recipe == "trpo" else ("--learning-rate", "1e-2", "--epochs", "2")
    said = say(*words, *own, "--reward", f"{reward}:digits", "--routing-replay")
    assert said.code == 0, said.err
    lines = [line for line in read(tmp_path / "run" / "metrics.jsonl") if "routing/changed" in line]
    assert len(lines) == 2 and all(0 <= line["routing/changed"] <= 1 for line in lines)
    assert all(line["sampling/sampling_logp_difference/mean"] < 1e-5 for line in lines)


def test_replay_without_experts_is_refused(say, tiny, tmp_path: Path) -> None:
    said = say("run", "grpo", *tiny["policy"], "--routing-replay", "--out", tmp_path / "run")
    assert said.code == 2 and "has no experts" in said.err
