"""Killed with SIGKILL in any phase and resumed, every recipe ends bit-identical to the run that was left alone.

Here each recipe is killed once, at a chosen instant; the slow tests kill real processes at random ones.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import lineal.cli_runs
import lineal.generate.engine
import lineal.optim.natural
import lineal.train.files
import lineal.train.update
import lineal.web.report
from lineal.environments.scoring import Scorer
from lineal.recipes import next_token, policy_gradient, staged

STEPS = 6
RECIPES = ("pretrain", "moe", "sft", "grpo", "ppo", "trpo")
TEXT = "the quick brown fox jumps over the lazy dog; " * 40
REWARD = '''
import pathlib
def digits(prompts, completions, **columns):
    """The share of even digits; notes every call beside this file."""
    with open(pathlib.Path(__file__).with_name("calls"), "a") as file:
        file.write(f"{columns['trainer_state'].step} {len(completions)}\\n")
    return [sum(c in "02468" for c in text) / max(1, len(text)) for text in completions]
'''

Fault = Callable[[], None]
Words = Callable[[str, Path], list[str]]
Straight = Callable[[str], dict[str, bytes]]
Command = Callable[..., int]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text to pretrain on, and a user's reward."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "text.txt").write_text(TEXT)
    (folder / "reward.py").write_text(REWARD)
    return folder


@pytest.fixture(scope="module")
def words(tiny: dict[str, tuple[str, ...]], inputs: Path) -> Words:
    """The command line of a small run of a recipe in a folder."""
    common = ("--steps", str(STEPS), "--save-every", "2", "--seed", "3")
    reward = ("--reward", f"{inputs / 'reward.py'}:digits")
    own = {
        "pretrain": ("--data", str(inputs / "text.txt"), "--block", "16", "--batch-size", "4", "--dropout", "0.1",
                     "--warmup", "2", "--eval-every", "3"),
        "moe": ("--data", str(inputs / "text.txt"), "--preset", "seconds", "--block", "16", "--batch-size", "4",
                "--dropout", "0.1", "--warmup", "2", "--eval-every", "3", "--capacity", "1.25", "--body", "decoder"),
        "sft": ("--level", "1", "--batch-size", "8", "--warmup", "2", "--eval-every", "3", "--eval-prompts", "6"),
        "grpo": (*reward, "--epochs", "2", "--learning-rate", "1e-3"),
        "ppo": (*reward, "--epochs", "2", "--minibatches", "2", "--learning-rate", "1e-3", "--eval-every", "3"),
        "trpo": reward,
    }  # fmt: skip

    def line(recipe: str, out: Path) -> list[str]:
        shape = tiny["policy"] if recipe in ("grpo", "ppo", "trpo") else tiny["shape"]
        return ["run", recipe, "--out", str(out), *shape, *common, *own[recipe]]

    return line


def outcome(path: Path, steps: int = STEPS) -> dict[str, bytes]:
    """Everything that must be equal: weights, the last checkpoint with its optimiser, metrics and samples."""
    newest = path / "checkpoints" / f"step-{steps}"
    files = ("final/model.safetensors", "final/config.json", "metrics.jsonl", "samples.jsonl")
    content = {name: (path / name).read_bytes() for name in files}
    content["checkpoint"] = (newest / "tensors.safetensors").read_bytes()
    # The state holds the length of timing.jsonl, whose numbers differ in width.
    content["state"] = (newest / "state.json").read_bytes().split(b'"lengths"')[0]
    return content


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names of what is not equal; a failing test shows these instead of bytes."""
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


@pytest.fixture(scope="module")
def straight(words: Words, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """The outcome of each recipe's uninterrupted run, made when first asked for."""
    made: dict[str, dict[str, bytes]] = {}

    def ask(recipe: str) -> dict[str, bytes]:
        if recipe not in made:
            folder = tmp_path_factory.mktemp("straight")
            code = command(words(recipe, folder / "run"), log=folder / "log")
            assert code == 0, (folder / "log").read_text()
            made[recipe] = outcome(folder / "run")
        return made[recipe]

    return ask


def at_call(owner: Any, name: str, number: int, act: Fault) -> Fault:
    """Does `act` right before the number-th call of owner.name, in the process that calls the result."""

    def install() -> None:
        real, count = getattr(owner, name), 0

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                act()
            return real(*args, **options)

        setattr(owner, name, counted)

    return install


def die() -> None:
    """What kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


class Files:
    """`os` as the file layer sees it, with calls that can be counted without touching anyone else's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def in_files(name: str, number: int) -> Fault:
    """Dies right before the number-th call of os.NAME in the file layer."""

    def install() -> None:
        counted = Files()
        vars(counted)[name] = getattr(os, name)
        setattr(lineal.train.files, "os", counted)  # noqa: B010
        at_call(counted, name, number, die)()

    return install


def phases(recipe: str, step: int) -> dict[str, Fault]:
    """For each phase of a recipe's step (checkpoints: after it) something that kills the process in its middle."""
    loop = next_token if recipe in ("pretrain", "moe", "sft") else policy_gradient
    saver = staged if loop is next_token else loop
    found = {
        "backward pass": at_call(loop, "train_step", step, at_call(torch.Tensor, "backward", 1, die)),
        "checkpoint": at_call(saver, "save", step // 2, in_files("write", 2)),
        "checkpoint's last rename": at_call(saver, "save", step // 2, in_files("rename", 1)),
        "old checkpoint's deletion": at_call(saver, "save", 3, in_files("rename", 2)),
        "final folder": at_call(loop, "finish", 1, in_files("fsync", 2)),
    }
    if recipe != "trpo":
        found["optimiser"] = at_call(loop, "train_step", step, at_call(torch.optim.AdamW, "step", 1, die))
    if loop is policy_gradient:
        sampling = at_call(lineal.generate.engine.Batch, "step", 2, die)
        found["sampling"] = at_call(loop, "collect", step, sampling)
        found["reward"] = at_call(loop, "collect", step, at_call(Scorer, "__call__", 1, die))
        found["rewards are there"] = at_call(loop, "load_experience", step + 1, die)
    if recipe == "trpo":
        search = at_call(lineal.train.update, "_surrogate_and_kl", 2, die)
        found["line search"] = at_call(lineal.train.update, "trust_region_step", step, search)
        solving = at_call(lineal.optim.natural, "conjugate_gradient", 1, die)
        found["conjugate gradient"] = at_call(lineal.train.update, "trust_region_step", step, solving)
        found["critic"] = at_call(loop, "critic_update", step, at_call(torch.optim.AdamW, "step", 2, die))
    return found


ONCE = {
    "pretrain": "checkpoint",
    "moe": "optimiser",
    "sft": "optimiser",
    "grpo": "optimiser",
    "ppo": "sampling",
    "trpo": "line search",
}
"""The phase in which each recipe is killed on every commit; the slow tests try all."""


def kill_and_compare(words: list[str], fault: Fault, command: Command, expected: dict[str, bytes]) -> Path:
    """A run that dies by the fault, and its resumption; returns the folder."""
    path = Path(words[words.index("--out") + 1])
    log = path.with_suffix(".log")
    killed = command(words, before=fault, log=log)
    assert killed == -signal.SIGKILL, f"it was not killed: {log.read_text()}"
    assert not (path / "final").exists()
    assert command(["resume", str(path)], log=log) == 0, log.read_text()
    assert differences(outcome(path), expected) == []
    assert list(path.rglob("*.tmp")) == []
    return path


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_once_and_resumed(
    recipe: str, straight: Straight, words: Words, command: Command, tmp_path: Path
) -> None:
    fault = phases(recipe, 4)[ONCE[recipe]]
    path = kill_and_compare(words(recipe, tmp_path / "run"), fault, command, straight(recipe))
    assert "continuing after step 2" in path.with_suffix(".log").read_text()


def test_the_control_two_uninterrupted_runs_are_equal(
    straight: Straight, words: Words, command: Command, tmp_path: Path
) -> None:
    assert command(words("ppo", tmp_path / "run")) == 0
    again = outcome(tmp_path / "run")
    assert differences(again, straight("ppo")) == []
    assert len(again["metrics.jsonl"].splitlines()) == STEPS + 2
    with safe_open(tmp_path / "run" / "checkpoints" / f"step-{STEPS}" / "tensors.safetensors", "pt") as saved:
        kinds = {name.split("/")[0] for name in saved.keys()}  # noqa: SIM118
        moments = [name for name in saved.keys() if name.endswith("exp_avg")]  # noqa: SIM118
    assert kinds == {"model", "policy"} and moments


def test_rewards_that_were_given_are_not_asked_for_again(
    straight: Straight, words: Words, command: Command, inputs: Path, tmp_path: Path
) -> None:
    """A user's reward may say something else the second time: the saved rollout keeps what it said."""
    expected = straight("grpo")
    (inputs / "calls").unlink()
    kill_and_compare(words("grpo", tmp_path / "run"), phases("grpo", 4)["optimiser"], command, expected)
    training = [line for line in (inputs / "calls").read_text().split("\n") if line.endswith(" 16")]
    # Killed in step 4 and resumed from step 2: step 3 was lost, step 4's rollout was kept.
    assert training == [f"{step} 16" for step in (1, 2, 3, 4, 3, 5, 6)]


@pytest.mark.parametrize(
    ("recipe", "number", "code"), [("sft", signal.SIGINT, 130), ("ppo", signal.SIGTERM, 143)]
)
def test_a_polite_stop_saves_and_is_resumed(
    recipe: str, number: int, code: int, straight: Straight, words: Words, command: Command, tmp_path: Path
) -> None:
    path, log = tmp_path / "run", tmp_path / "log"
    loop = next_token if recipe == "sft" else policy_gradient
    asked = at_call(loop, "train_step", 3, lambda: os.kill(os.getpid(), number))
    assert command(words(recipe, path), before=asked, log=log) == code, log.read_text()
    assert (path / "checkpoints" / "step-3" / "manifest.json").exists()
    assert (path / "report.html").exists() and not (path / "final").exists()
    assert "stopping at the next safe point" in log.read_text() and "Traceback" not in log.read_text()
    assert command(["resume", str(path)], log=log) == 0, log.read_text()
    assert differences(outcome(path), straight(recipe)) == []


def test_a_run_that_ended_early_does_not_go_on_when_resumed(
    words: Words, command: Command, tmp_path: Path
) -> None:
    """--token-limit ends it at step 3 of 6; killed before final/ is there, it must end there again."""
    line = [*words("ppo", tmp_path / "run"), "--token-limit", "100"]
    straight, killed = tmp_path / "straight", tmp_path / "run"
    assert command([*line, "--out", str(straight)]) == 0
    assert command(line, before=at_call(policy_gradient, "finish", 1, die)) == -signal.SIGKILL
    assert command(["resume", str(killed)]) == 0
    for name in ("metrics.jsonl", "final/model.safetensors"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name
    assert len((killed / "metrics.jsonl").read_text().splitlines()) < STEPS + 2


def test_a_second_run_in_the_folder_is_refused(words: Words, command: Command, tmp_path: Path) -> None:
    path, log = tmp_path / "run", tmp_path / "log"

    def second() -> None:
        for line in (words("sft", path), ["resume", str(path)]):
            assert command(line, log=log) == 1

    assert command(words("sft", path), before=at_call(next_token, "train_step", 3, second)) == 0
    said = [line for line in log.read_text().splitlines() if line.startswith("lineal: ")]
    assert len(said) == 2
    assert all(f"{path} is in use by process" in line and "another folder" in line for line in said)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_in_every_phase(
    recipe: str, straight: Straight, words: Words, command: Command, tmp_path: Path
) -> None:
    for number, (phase, fault) in enumerate(phases(recipe, 4).items()):
        print(f"{recipe}: killed in {phase}")
        kill_and_compare(words(recipe, tmp_path / f"run-{number}"), fault, command, straight(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_processes_killed_at_five_random_instants(recipe: str, words: Words, tmp_path: Path) -> None:
    """`python -m lineal` as a user types it, killed from outside while it works."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"{recipe}: seed {seed}")
    chance, straight = random.Random(seed), tmp_path / "straight"
    steps = ["--steps", "60", "--save-every", "4"]

    def start(line: list[str]) -> subprocess.Popen[bytes]:
        with open(tmp_path / "log", "ab") as log:
            return subprocess.Popen([sys.executable, "-m", "lineal", *line], stdout=log, stderr=log)

    process = start([*words(recipe, straight), *steps])
    wait_for(straight / "config.json", process)
    began = time.monotonic()
    assert process.wait() == 0, (tmp_path / "log").read_text()
    seconds, kills, number = time.monotonic() - began, 0, 0
    while kills < 5:
        # One that ends before its instant comes is no kill, and is drawn again.
        path, number = tmp_path / f"run-{number}", number + 1
        process = start([*words(recipe, path), *steps])
        wait_for(path / "config.json", process)
        time.sleep(chance.uniform(0, 0.95) * seconds)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        process = start(["resume", str(path)])
        assert process.wait() == 0, (tmp_path / "log").read_text()
        assert differences(outcome(path, 60), outcome(straight, 60)) == []
    print(f"{recipe}: killed {kills} times in {number} runs of {seconds:.1f} s of training each")


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    """Until a process has made a file."""
    while not file.exists():
        assert process.poll() is None, f"it ended before it wrote {file}"
        time.sleep(0.01)
