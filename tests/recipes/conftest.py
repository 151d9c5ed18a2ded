"""Runs of the command in this process, or in a forked child of it: tiny models, a few steps, no imports to wait for."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from lineal.cli import main

SHAPE = ("--layers", "1", "--width", "32", "--heads", "2", "--threads", "1", "--dtype", "float32", "--quiet")
"""A model for which a step takes milliseconds, and nothing left to a probe."""

POLICY = ("--level", "1", "--prompts", "4", "--group-size", "4", "--eval-prompts", "6", "--eval-samples", "1")
"""Options of the policy-gradient recipes that keep a step small."""


@dataclass(frozen=True)
class Said:
    """What a command line ended with."""

    code: int
    out: str
    err: str


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`say("run", "grpo", ...)`: the command in this process; SystemExit becomes its code."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        threads = torch.get_num_threads()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            torch.set_num_threads(threads)
        said = capsys.readouterr()
        return Said(code, str(said.out), str(said.err))

    return run


def forked(words: list[str], before: Callable[[], None] | None = None, log: Path | None = None) -> int:
    """The command in a forked child, which starts with everything imported; returns its exit code (-9 when killed).

    before: called in the child, to break something at a chosen instant. log: where its output goes.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        torch.set_num_threads(1)
        if before is not None:
            before()
        code = main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def read() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads a JSONL file."""
    return lines


@pytest.fixture(scope="session")
def final_of() -> Callable[[Path], dict[str, Any]]:
    """The figures of a run's last evaluation, of which there is one."""

    def find(run: Path) -> dict[str, Any]:
        (found,) = [line for line in lines(run / "metrics.jsonl") if line.get("eval/final")]
        return found

    return find


@pytest.fixture(scope="session")
def command() -> Callable[..., int]:
    """`command(words, before=..., log=...)`: see `forked`."""
    return forked


@pytest.fixture(scope="session")
def die_at() -> Callable[[Any, str, int], Callable[[], None]]:
    """`command(words, before=die_at(owner, "name", 4))` kills the process before the fourth call of owner.name."""

    def killing(owner: Any, name: str, number: int) -> Callable[[], None]:
        def install() -> None:
            real, calls = getattr(owner, name), count(1)

            def counted(*given: Any, **options: Any) -> Any:
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **options)

            setattr(owner, name, counted)

        return install

    return killing


OUTCOME = (
    "metrics.jsonl",
    "samples.jsonl",
    "final/model.safetensors",
    "final/head.safetensors",
    "final/tokenizer.json",
)


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], dict[str, bytes]]:
    """What must be equal of two runs, bit for bit: figures, samples, final files and the newest checkpoint."""

    def read(path: Path) -> dict[str, bytes]:
        newest = max((path / "checkpoints").iterdir(), key=lambda p: int(p.name.split("-")[1]))
        found = {name: (path / name).read_bytes() for name in OUTCOME if (path / name).exists()}
        assert {"metrics.jsonl", "final/model.safetensors"} <= found.keys()
        return found | {"checkpoint": (newest / "tensors.safetensors").read_bytes()}

    return read


@pytest.fixture(scope="session")
def tiny() -> dict[str, tuple[str, ...]]:
    """The options of small runs: "shape" for every recipe, "policy" for policy gradients as well."""
    return {"shape": SHAPE, "policy": SHAPE + POLICY}


@pytest.fixture
def catch() -> Iterator[None]:
    """Registers Catch-v0, a game on pictures that comes as one vector environment and resets in the next step."""
    gymnasium = pytest.importorskip("gymnasium")
    threads, side = torch.get_num_threads(), 10

    class Catch(gymnasium.vector.VectorEnv):  # type: ignore[name-defined]
        """A ball falls on a field of 10 x 10 pixels; the paddle below it moves left, stays or moves right; 1 if it catches."""

        metadata: ClassVar = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

        def __init__(self, num_envs: int, render_mode: str | None = None) -> None:
            self.num_envs = num_envs
            self.single_observation_space = gymnasium.spaces.Box(0, 255, (side, side), np.uint8)
            self.single_action_space = gymnasium.spaces.Discrete(3)
            self.random, self.over_B = np.random.default_rng(0), np.zeros(num_envs, bool)

        def begin(self, which_B: np.ndarray) -> None:
            self.ball_B2[which_B] = np.stack(
                [np.zeros(which_B.sum()), self.random.integers(0, side, which_B.sum())], 1
            )
            self.paddle_B[which_B] = side // 2

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
            if seed is not None:
                self.random = np.random.default_rng(seed)
            self.ball_B2, self.paddle_B = np.zeros((self.num_envs, 2), int), np.zeros(self.num_envs, int)
            self.begin(np.ones(self.num_envs, bool))
            self.over_B = np.zeros(self.num_envs, bool)
            return self.show(), {}

        def show(self) -> np.ndarray:
            shown, row_B = np.zeros((self.num_envs, side, side), np.uint8), np.arange(self.num_envs)
            shown[row_B, self.ball_B2[:, 0], self.ball_B2[:, 1]] = 255
            shown[row_B, side - 1, self.paddle_B] = 255
            return shown

        def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
            fresh_B = self.over_B
            self.ball_B2[~fresh_B, 0] += 1
            self.paddle_B = np.where(fresh_B, self.paddle_B, np.clip(self.paddle_B + action - 1, 0, side - 1))
            self.begin(fresh_B)
            self.over_B = self.ball_B2[:, 0] == side - 1
            reward_B = np.where(self.over_B, np.where(self.ball_B2[:, 1] == self.paddle_B, 1.0, -1.0), 0.0)
            return self.show(), reward_B, self.over_B.copy(), np.zeros(self.num_envs, bool), {}

    gymnasium.register("Catch-v0", vector_entry_point=Catch)
    yield
    torch.set_num_threads(threads)
    gymnasium.registry.pop("Catch-v0")
