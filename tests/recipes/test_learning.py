"""It learns from rewards, only from rewards, and never from a prompt that was held out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Learn = Callable[..., list[dict[str, Any]]]

DIGITS = "0123456789"


@pytest.fixture
def task(tmp_path: Path) -> tuple[str, ...]:
    """Prompts of three digits, to be answered with the last; a reward that also notes what it was asked about.

    Each digit is the answer of as many held-out prompts, so that no constant answer is better than chance.
    """
    parts = {"prompts": range(30), "held": range(90, 98)}
    for name, numbers in parts.items():
        rows = [{"prompt": f"{i:02d}{digit}", "answer": digit} for i in numbers for digit in DIGITS]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "reward.py").write_text(
        "import pathlib\n"
        "def copy(prompts, completions, answer, **_):\n"
        "    with open(pathlib.Path(__file__).with_name('asked'), 'a') as file:\n"
        "        file.write(' '.join(prompts) + '\\n')\n"
        "    return [float(said == a) for said, a in zip(completions, answer)]\n"
    )
    return (
        "--data", str(tmp_path / "prompts.jsonl"), "--reward", f"{tmp_path / 'reward.py'}:copy", "--max-new-tokens", "1",
        "--prompts", "16", "--group-size", "8", "--steps", "60", "--eval-prompts", "80", "--eval-samples", "4",
    )  # fmt: skip


@pytest.fixture
def held(tmp_path: Path) -> tuple[str, ...]:
    """A file of balanced held-out prompts."""
    return ("--eval-data", str(tmp_path / "held.jsonl"))


@pytest.fixture
def learn(say, read, tiny, task: tuple[str, ...], tmp_path: Path) -> Learn:
    """`learn(recipe, "--seed", "1", ...)`: a run's metrics; a second one gets another folder."""
    made: list[Path] = []

    def run(recipe: str, *options: str) -> list[dict[str, Any]]:
        made.append(tmp_path / f"run-{len(made)}")
        done = say("run", recipe, "--out", made[-1], *tiny["shape"], *task, *options)
        assert done.code == 0, done.err
        return read(made[-1] / "metrics.jsonl")

    return run


def accuracy(metrics: list[dict[str, Any]]) -> tuple[float, float]:
    """Held-out accuracy before and after."""
    found = [line["eval/accuracy"] for line in metrics if line.get("eval/final")]
    assert len(found) == 2
    return found[0], found[1]


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("reinforce", ("--group-size", "8", "--learning-rate", "1e-2")),
        ("rloo", ("--learning-rate", "1e-2")),
        ("ppo", ("--group-size", "8", "--learning-rate", "3e-3", "--epochs", "2", "--steps", "30")),
        ("trpo", ("--group-size", "8", "--max-kl", "0.1", "--steps", "30")),
    ],
)
def test_rewards_teach(learn: Learn, held: tuple[str, ...], recipe: str, options: tuple[str, ...]) -> None:
    metrics = learn(recipe, *held, *options)
    before, after = accuracy(metrics)
    rewards = [line["reward"] for line in metrics if "reward" in line]
    assert before <= 0.2 and after >= before + 0.4, (before, after)
    assert sum(rewards[-5:]) / 5 >= sum(rewards[:5]) / 5 + 0.3


@pytest.mark.parametrize("seed", ["0", "1"])
def test_shuffled_rewards_teach_nothing(learn: Learn, held: tuple[str, ...], seed: str) -> None:
    """The control: the same rewards, given to the wrong completions."""
    options = (*held, "--learning-rate", "1e-2", "--seed", seed)
    before, after = accuracy(learn("grpo", *options, "--shuffle-rewards"))
    assert after - before <= 0.03, (before, after)
    before, after = accuracy(learn("grpo", *options))
    assert after - before >= 0.5, (before, after)


def test_held_out_prompts_are_never_trained_on(
    learn: Learn, read: Callable[[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """By what reached the reward, which sees everything that can teach: more than two passes over the data."""
    learn("grpo", "--learning-rate", "1e-2", "--eval-every", "10", "--held-out", "0.3")
    calls = [Counter(line.split()) for line in (tmp_path / "asked").read_text().splitlines()]
    # Training asks about groups of 8; the others are figures, of 4 samples or of the greedy one.
    training = [set(prompts) for prompts in calls if min(prompts.values()) == 8]
    others = [set(prompts) for prompts in calls if max(prompts.values()) <= 4]
    assert len(training) == 60 and len(training) + len(others) == len(calls)
    # The test prompts sampled and greedily, before and after; on the way validation prompts.
    test = others[0]
    assert [test] * 4 == [others[0], others[1], others[-2], others[-1]] and len(others) == 4 + 2 * 5
    seen, looked = set.union(*training), set.union(*others[2:-2])
    everything = {f"{i:02d}{digit}" for i in range(30) for digit in DIGITS}
    assert seen | looked | test == everything and len(seen) + len(looked) + len(test) == len(everything)
    assert 180 < len(seen) < 240 and 40 < len(test) < 100
    samples = read(tmp_path / "run-0" / "samples.jsonl")
    assert {line["prompt"] for line in samples if line.get("kind") != "eval"} <= seen
    assert {line["prompt"] for line in samples if line.get("kind") == "eval"} <= test


def test_equal_seeds_learn_equally_and_others_do_not(learn: Learn, tmp_path: Path) -> None:
    options = ("--learning-rate", "1e-2", "--steps", "5")
    one, same, other = (learn("grpo", *options, "--seed", seed) for seed in ("4", "4", "5"))
    assert one == same != other
    finals = [(tmp_path / f"run-{i}" / "final" / "model.safetensors").read_bytes() for i in range(3)]
    assert finals[0] == finals[1] != finals[2]


def test_imitation_learns_the_same_task(say, read, tiny, task: tuple[str, ...], tmp_path: Path) -> None:
    """sft, from gold answers: the loss falls towards that of certainty, on the completion's tokens only."""
    options = ("--steps", "100", "--batch-size", "32", "--learning-rate", "1e-2", "--warmup", "5")
    done = say(
        "run", "sft", "--out", tmp_path / "sft", *tiny["shape"], *task[:4], "--max-new-tokens", "2", *options
    )
    assert done.code == 0, done.err
    metrics = read(tmp_path / "sft" / "metrics.jsonl")
    losses = [line["loss"] for line in metrics if "loss" in line]
    assert losses[0] > 2.0 and losses[-1] < 0.3
    assert metrics[0]["tokens"] == 64, "the answer's digit and the end of text, of each of 32 rows"
    assert metrics[-1]["eval/accuracy"] >= 0.8
