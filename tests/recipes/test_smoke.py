"""Every recipe by the command, two steps: its folder, the names in its metrics, its report and its model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lineal.objectives.policy import ALGORITHMS
from lineal.recipes import RECIPES

ALWAYS = {
    "step", "reward", "reward_std", "frac_reward_zero_std", "kl", "entropy", "completions/mean_length",
    "completions/min_length", "completions/max_length", "completions/clipped_ratio", "learning_rate", "num_tokens",
    "tokens", "surrogate", "sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max",
    "rewards/digits/mean", "rewards/digits/std", "groups_dropped",
}  # fmt: skip
"""Names that users of TRL know, in every step of every algorithm that uses ratios."""

CLIPPED = {"clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "ratio"}
CRITIC = {"value_loss", "explained_variance"}
TRUST = {
    "trust_region/kl", "trust_region/expected_kl", "trust_region/improvement", "trust_region/cg_residual",
    "trust_region/backtracks", "trust_region/accepted",
}  # fmt: skip


@pytest.fixture
def options(tiny: dict[str, tuple[str, ...]], tmp_path: Path) -> tuple[str, ...]:
    """Two steps, with a reward that differs between completions of any model."""
    file = tmp_path / "reward.py"
    file.write_text(
        "def digits(completions, **_):\n    return [sum(c in '02468' for c in text) for text in completions]\n"
    )
    return (*tiny["policy"], "--steps", "2", "--save-every", "1", "--out", str(tmp_path / "run"),
            "--reward", f"{file}:digits")  # fmt: skip


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_algorithm_runs(name: str, say, read, options: tuple[str, ...], tmp_path: Path) -> None:
    rate = () if name == "trpo" else ("--learning-rate", "1e-3")
    said = say("run", name, *options, *rate)
    assert said.code == 0, said.err
    run, algorithm = tmp_path / "run", ALGORITHMS[name]
    metrics = [line for line in read(run / "metrics.jsonl") if "reward" in line]
    assert [line["step"] for line in metrics] == [1, 2]
    wanted = set(ALWAYS)
    wanted |= CLIPPED if algorithm.ratio.uses_old else set()
    wanted -= set() if algorithm.ratio.uses_old else {"kl"}
    wanted |= CRITIC if name in ("ppo", "ppo-kl", "trpo") else set()
    wanted |= TRUST if name == "trpo" else {"grad_norm"}
    wanted |= {"beta"} if name == "ppo-kl" else set()
    for line in metrics:
        assert wanted <= line.keys(), wanted - line.keys()
        bad = {key: value for key, value in line.items() if value is None or not math.isfinite(value)}
        assert not bad, bad
        assert "loss" not in line, "the surrogate's value is not a loss"
        assert 0 <= line["frac_reward_zero_std"] <= 1 and 0 < line["entropy"] < math.log(16)
        assert line["sampling/sampling_logp_difference/max"] < 1e-4
    assert [line["step"] for line in read(run / "metrics.jsonl") if line.get("eval/final")] == [0, 2]
    times = read(run / "timing.jsonl")
    assert [line["step"] for line in times] == [1, 2]
    assert all(line["step_time"] > 0 and line["tokens_per_second"] > 0 for line in times)
    samples = [line for line in read(run / "samples.jsonl") if line.get("kind") != "eval"]
    assert {line["step"] for line in samples} == {1, 2}
    assert all(len(line["completions"]) == len(line["rewards"]) for line in samples)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-1", "step-2"]
    page = (run / "report.html").read_text()
    assert name in page and "src=" not in page
    for line in said.out.splitlines():
        assert "Traceback" not in line
    assert f"report  {run / 'report.html'}" in said.out


def test_the_final_folder_opens_in_transformers(say, options: tuple[str, ...], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from lineal.models.hf import load_model
    from lineal.tokenizers import load_tokenizer

    assert say("run", "grpo", *options, "--learning-rate", "1e-2").code == 0
    final = tmp_path / "run" / "final"
    theirs, problems = transformers.AutoModelForCausalLM.from_pretrained(final, output_loading_info=True)
    assert not problems["missing_keys"] and not problems["unexpected_keys"]
    ours, _ = load_model(final)
    token_BT = torch.tensor([load_tokenizer(final).encode("3+4=")])
    with torch.no_grad():
        torch.testing.assert_close(theirs(token_BT).logits, ours.logits(ours(token_BT)), rtol=0, atol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(final)
    assert tokenizer("3+4=", add_special_tokens=False)["input_ids"] == token_BT[0].tolist()


def test_a_run_is_where_the_next_one_begins(say, read, options: tuple[str, ...], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert say("run", "grpo", *options, "--learning-rate", "1e-2", "--out", first).code == 0
    assert say("run", "dapo", *options, "--model", first, "--out", second).code == 0
    ends, begins = (
        [line for line in read(run / "metrics.jsonl") if line.get("eval/final")] for run in (first, second)
    )
    assert begins[0]["eval/greedy"] == ends[-1]["eval/greedy"] and begins[0]["eval/length"] > 0
    said = say("generate", first, "--prompt", "1+2=", "--samples", "2")
    assert said.code == 0 and said.out.strip(), said.err


NEED_DATA = (
    "demo", "word2vec", "glove", "ulmfit", "elmo", "tagger", "pretrain", "moe", "gpt", "bert", "finetune",
)  # fmt: skip
"""Recipes that a dry run has nothing to say of without files; and the demonstration, which is two recipes."""


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in NEED_DATA])
def test_a_dry_run_says_what_would_happen_and_does_nothing(
    recipe: str, say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = say("run", recipe, "--dry-run")
    assert said.code == 0, said.err
    assert list(tmp_path.iterdir()) == []
    assert "maximise" in said.out or "minimise" in said.out
    assert "parameters" in said.out and "memory" in said.out
    if recipe in ALGORITHMS:
        formula = str(ALGORITHMS[recipe]).split(", ")[0].split("\n")[0]
        assert formula in said.out or recipe == "dr-grpo"
        assert "prompts x" in said.out and "divisible" not in said.out


@pytest.mark.parametrize("layout", ["qwen2", "qwen3", "mixtral", "gpt2", "openai-gpt"])
def test_every_layout_is_post_trained(layout: str, say, options: tuple[str, ...], tmp_path: Path) -> None:
    said = say("run", "ppo", *options, "--layout", layout, "--learning-rate", "1e-3")
    assert said.code == 0, said.err
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("grpo", "--reference-kl", "0.1", "--entropy", "0.01", "--epochs", "2"),
        ("ppo", "--critic", "separate", "--value-clip", "0.2", "--whiten", "minibatch", "--reward-scaling"),
        (
            "ppo",
            "--orthogonal",
            "--schedule",
            "linear",
            "--warmup",
            "1",
            "--discount",
            "0.9",
            "--trace-decay",
            "0.5",
        ),
        ("trpo", "--subset", "blocks.0"),
        ("grpo", "--overlong-buffer", "1"),
        ("grpo", "--dtype", "bfloat16"),
        ("grpo", "--dtype", "float64"),
        ("ppo", "--dtype", "float64"),
        ("grpo", "--temperature", "0.7", "--token-budget", "16"),
        ("grpo", "--algorithm", "gspo-token"),
    ],
    ids=" ".join,
)
def test_switches(words: tuple[str, ...], say, read, options: tuple[str, ...], tmp_path: Path) -> None:
    said = say("run", words[0], *options, *words[1:])
    assert said.code == 0, said.err
    for line in read(tmp_path / "run" / "metrics.jsonl"):
        assert "non_finite" not in line, line


def test_an_algorithm_of_one_s_own(say, options: tuple[str, ...], tmp_path: Path, read) -> None:
    """A file with a value in it, named on the command line."""
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\n"
        "from lineal.objectives.policy import named\n"
        "from lineal.objectives.surrogate import Clip\n"
        "gentle = replace(named('grpo'), name='gentle', surrogate=Clip(0.05, 0.05))\n"
        "nothing = 3\n"
    )
    said = say("run", "grpo", *options, "--algorithm", f"{tmp_path / 'mine.py'}:gentle", "--clip-high", "0.1")
    assert said.code == 0, said.err
    assert "clip(w, 1 − 0.05, 1 + 0.1)" in said.err
    said = say(
        "run", "grpo", *options, "--out", tmp_path / "b", "--algorithm", f"{tmp_path / 'mine.py'}:nothing"
    )
    assert said.code == 2 and "nothing is not an Algorithm" in said.err
    (tmp_path / "broken.py").write_text("from lineal.objectives.policy import nobody\n")
    said = say(
        "run", "grpo", *options, "--out", tmp_path / "c", "--algorithm", f"{tmp_path / 'broken.py'}:it"
    )
    assert said.code == 2 and "broken.py raised ImportError: cannot import name 'nobody'" in said.err


def test_pretraining_lowers_the_loss(say, read, tiny: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcdefghij " * 400)
    said = say("run", "pretrain", "--data", text, "--out", tmp_path / "run", *tiny["shape"], "--block", "16",
               "--steps", "80", "--learning-rate", "1e-2", "--warmup", "5", "--eval-every", "40")  # fmt: skip
    assert said.code == 0, said.err
    metrics: list[dict[str, Any]] = read(tmp_path / "run" / "metrics.jsonl")
    losses = [line["loss"] for line in metrics if "loss" in line]
    assert losses[0] == pytest.approx(math.log(14), abs=0.2), "fresh: every character is as likely"
    assert losses[-1] < 0.3
    final = [line["eval/loss"] for line in metrics if line.get("eval/final")]
    assert len(final) == 1 and final[0] < 0.5
    assert [line["step"] for line in metrics if "eval/loss" in line] == [40, 80]
    said = say("run", "pretrain", "--dry-run")
    assert said.code == 2 and "pretrain needs --data FILE" in said.err
