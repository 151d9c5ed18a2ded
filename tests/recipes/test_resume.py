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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import lineal.cli_models
import lineal.cli_runs
import lineal.generate.step
import lineal.recipes.next_token
import lineal.recipes.policy_gradient
import lineal.train.files
import lineal.web.report  # noqa: F401  (imported here, a forked child finds them loaded)

pytestmark = pytest.mark.serial

STEPS = 6
RECIPES = ("pretrain", "sft", "grpo", "ppo", "trpo")
TEXT = "the quick brown fox jumps over the lazy dog; " * 40
REWARD = '''
import pathlib
def digits(prompts, completions, **columns):
    """The share of even digits; notes every call beside this file."""
    with open(pathlib.Path(__file__).with_name("calls"), "a") as file:
        file.write(f"{columns['trainer_state'].global_step} {len(completions)}\\n")
    return [sum(c in "02468" for c in text) / max(1, len(text)) for text in completions]
'''

Fault = Callable[[], None]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text to pretrain on, and a user's reward."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "text.txt").write_text(TEXT)
    (folder / "reward.py").write_text(REWARD)
    return folder


@pytest.fixture(scope="module")
def words(tiny: dict[str, tuple[str, ...]], inputs: Path) -> Callable[[str, Path], list[str]]:
    """The command line of a small run of a recipe in a folder."""
    common = ("--steps", str(STEPS), "--save-every", "2", "--seed", "3")
    own = {
        "pretrain": ("--data", str(inputs / "text.txt"), "--block", "16", "--batch-size", "4", "--dropout", "0.1",
                     "--warmup", "2", "--eval-every", "3"),
        "sft": ("--level", "1", "--batch-size", "8", "--warmup", "2", "--eval-every", "3", "--eval-prompts", "6"),
        "grpo": ("--epochs", "2", "--learning-rate", "1e-3", "--reward", f"{inputs / 'reward.py'}:digits"),
        "ppo": ("--epochs", "2", "--minibatches", "2", "--learning-rate", "1e-3", "--eval-every", "3"),
        "trpo": (),
    }  # fmt: skip

    def line(recipe: str, out: Path) -> list[str]:
        shape = tiny["policy"] if recipe in ("grpo", "ppo", "trpo") else tiny["shape"]
        return ["run", recipe, "--out", str(out), *shape, *common, *own[recipe]]

    return line


def outcome(path: Path) -> dict[str, bytes]:
    """Everything that must be equal: weights, the last checkpoint with its optimiser, metrics and samples."""
    newest = path / "checkpoints" / f"step-{STEPS}"
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
def straight(
    words: Callable[[str, Path], list[str]], command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, bytes]]:
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
    """`os` as the file layer sees it, with names that can be counted without touching anyone else's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def in_files(name: str, number: int) -> Fault:
    """Dies right before the number-th call of os.NAME in the file layer: while a checkpoint is being written."""

    def install() -> None:
        lineal.train.files.os = Files()  # type: ignore[assignment]
        at_call(lineal.train.files.os, name, number, die)()

    return install


INSTANTS: dict[str, tuple[str, Fault]] = {
    # Writing files: opens, writes, syncs and renames of the file layer. Two checkpoints make about 20 writes.
    "pretrain": ("half of a checkpoint is written", in_files("fsync", 17)),
    "sft": ("between backward pass and optimiser", at_call(torch.optim.AdamW, "step", 4, die)),
    "grpo": ("second epoch on a rollout", at_call(torch.optim.AdamW, "step", 8, die)),
    "ppo": ("a completion is half sampled", at_call(lineal.generate.engine._Batch, "step", 16, die)),
    "trpo": ("inside the line search", at_call(lineal.recipes.policy_gradient, "score_all", 5, die)),
}


def finish(command: Callable[..., int], path: Path) -> None:
    """Resume until the run is done."""
    log = path.with_suffix(".log")
    assert command(["resume", str(path)], log=log) == 0, log.read_text()


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_once_and_resumed(
    recipe: str,
    straight: Callable[[str], dict[str, bytes]],
    words: Callable[[str, Path], list[str]],
    command: Callable[..., int],
    tmp_path: Path,
) -> None:
    instant, fault = INSTANTS[recipe]
    path, log = tmp_path / "run", tmp_path / "log"
    killed = command(words(recipe, path), before=fault, log=log)
    assert killed == -signal.SIGKILL, f"{instant}: {log.read_text()}"
    assert not (path / "final").exists()
    assert list(path.glob("checkpoints/step-*")), "killed before there was anything to resume from"
    finish(command, path)
    assert differences(outcome(path), straight(recipe)) == []
    assert list(path.rglob("*.tmp")) == []
