"""The demonstration's two parts and its control, each of them an ordinary run that can be resumed or looked at."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lineal.errors import UsageError
from lineal.recipes import next_token, policy_gradient, sft
from lineal.recipes.config import LanguageConfig, PolicyGradientConfig, to_json, with_options
from lineal.recipes.demo import DemoConfig
from lineal.train.console import note
from lineal.train.distributed import world_size
from lineal.train.metrics import read_lines
from lineal.train.run import Run


def sft_config(config: DemoConfig, out: Path) -> LanguageConfig:
    """The first part: imitation of gold answers, stopped early on purpose."""
    return with_options(
        sft.default(), out=str(out), seed=config.run.seed, steps=100_000, save_every=500, eval_every=20,
        stop_accuracy=config.demo.sft_accuracy, time_limit=config.demo.sft_seconds, batch_size=64, learning_rate=3e-3,
        warmup=50, threads=1, dtype="float32", quiet=config.run.quiet,
    )  # fmt: skip


def rl_config(config: DemoConfig, start: Path) -> PolicyGradientConfig:
    """The second part: the same prompts, no gold answers, only right or wrong."""
    return with_options(
        PolicyGradientConfig(run=config.run), model=str(start), algorithm=config.demo.demo_algorithm, prompts=128,
        group_size=4, minibatches=2, learning_rate=3e-4, eval_every=100, time_limit=config.demo.rl_seconds, threads=1, dtype="float32",
    )  # fmt: skip


def plan(config: DemoConfig) -> list[str]:
    """What the demonstration does."""
    return [
        f"1. sft from random weights until {config.demo.sft_accuracy:.0%} of validation answers are right "
        f"(at most {config.demo.sft_seconds:.0f} s)",
        f"2. {config.demo.demo_algorithm} for {config.demo.rl_seconds:.0f} s on one core, rewards only",
        "3. beside it, as a control, the same time of more sft on the other core",
        *policy_gradient.plan(with_options(rl_config(config, Path("-")), model=None)),
    ]


def run(config: DemoConfig, run: Run) -> None:
    """Run the parts that are not done yet, then print what happened."""
    if world_size() > 1:
        raise UsageError("the demonstration is made for one process: run it without torchrun.")
    started = time.monotonic()
    before, control = run.path / "sft", run.path / "control"
    if not (before / "final").exists():
        note("part 1 of 2: supervised fine-tuning from random weights, stopped while still often wrong")
        first = sft_config(config, before)
        with _opened(before, "sft", first) as inner:
            next_token.run(first, inner)
    process = None
    if config.demo.control and not (control / "final").exists():
        process = _start_control(config, before / "final", control)
    note(f"part 2 of 2: {config.demo.demo_algorithm}, from rewards only")
    try:
        policy_gradient.run(rl_config(config, before / "final"), run)
        if process is not None:
            note("waiting for the control")
            process.wait(timeout=120)
    finally:
        if process is not None and process.poll() is None:
            process.kill()
    for line in _summary(config, run.path, time.monotonic() - started):
        print(line)


def _opened(path: Path, recipe: str, config: Any) -> Run:
    if (path / "config.json").exists():
        return Run.open(path)
    return Run.create(path, {"recipe": recipe, "options": to_json(config)})


def _start_control(config: DemoConfig, start: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [
        sys.executable, "-m", "lineal", "run", "sft", "--model", str(start), "--out", str(out), "--quiet",
        "--time-limit", str(config.demo.rl_seconds), "--steps", "100000", "--seed", str(config.run.seed + 1),
        "--threads", "1", "--dtype", "float32", "--eval-every", "0", "--batch-size", "64", "--learning-rate", "1e-3", "--warmup", "0",
    ]  # fmt: skip
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _final(path: Path, which: int = -1) -> dict[str, Any]:
    finals = [line for line in read_lines(path / "metrics.jsonl") if line.get("eval/final")]
    return finals[which] if finals else {}


def _summary(config: DemoConfig, folder: Path, seconds: float) -> list[str]:
    """What happened, as a table."""
    rows = [
        ("after supervised fine-tuning", _final(folder / "sft")),
        (f"after {config.demo.demo_algorithm}", _final(folder)),
        ("control: as much more supervised", _final(folder / "control")),
    ]
    lines = ["", f"{'held-out accuracy':34} sampled  greedy"]
    for name, found in rows:
        if found:
            lines.append(f"{name:34} {found['eval/accuracy']:7.3f} {found['eval/greedy']:7.3f}")
    prompts = _final(folder).get("eval/prompts", 0)
    return [
        *lines,
        f"{prompts} prompts that were never trained on, {config.run.eval_samples} samples each at temperature 1;"
        f" {seconds:.0f} s",
    ]
