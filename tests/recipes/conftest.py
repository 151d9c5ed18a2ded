"""Runs of the command in this process, or in a forked child of it: tiny models, a few steps, no imports to wait for."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
def command() -> Callable[..., int]:
    """`command(words, before=..., log=...)`: see `forked`."""
    return forked


@pytest.fixture(scope="session")
def tiny() -> dict[str, tuple[str, ...]]:
    """The options of small runs: "shape" for every recipe, "policy" for policy gradients as well."""
    return {"shape": SHAPE, "policy": SHAPE + POLICY}
