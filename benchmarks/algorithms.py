"""All ten algorithms from one starting model, on the same token budget: how far does held-out accuracy rise?

    python benchmarks/algorithms.py --json          every cell (algorithm x seed), then one line per algorithm
    python benchmarks/algorithms.py --tune          choose learning rates on another seed and on validation prompts

A cell is an ordinary run in its own process, one at a time; finished cells are skipped, interrupted ones resumed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import harness

BAR = 0.15
TOKENS = 160_000
SEEDS = (0, 1, 2)
TUNING_SEEDS = (1000, 1001)
TUNED = Path(__file__).parent / "algorithms_tuned.json"

GROUPED = {"--prompts": "64", "--group-size": "16", "--minibatches": "4"}
CRITIC = {"--prompts": "128", "--group-size": "4", "--minibatches": "4", "--epochs": "1"}
SETTINGS: dict[str, dict[str, str]] = {
    "reinforce": {"--prompts": "128", "--group-size": "1"},
    "rloo": {"--prompts": "32", "--group-size": "4"},
    "trpo": {"--prompts": "64", "--group-size": "8"},
    "ppo": CRITIC,
    "ppo-kl": CRITIC,
    "grpo": GROUPED,
    "dapo": GROUPED,
    "dr-grpo": GROUPED,
    "gspo": GROUPED,
    "cispo": GROUPED,
}
"""Batches: everything with a ratio takes at least 4 optimiser steps per rollout; TRPO takes its one natural step."""
RATES = ("1e-4", "3e-4")
RADII = ("0.01", "0.03")


def cell(folder: Path, recipe: str, options: dict[str, str]) -> Path:
    """The folder of a cell that is finished, now if not before."""
    return harness.Cell(folder, recipe, {"--threads": "1", **options}).run()


def start(root: Path) -> Path:
    """The model that every cell starts from: stopped by validation accuracy, on a seed of its own."""
    options = {
        "--seed": "7", "--steps": "5000", "--eval-every": "20", "--stop-accuracy": "0.42", "--dtype": "float32",
        "--save-every": "500",
    }  # fmt: skip
    return cell(root / "start", "sft", options) / "final"


def finals(folder: Path) -> tuple[float, float, list[dict[str, Any]]]:
    """Held-out accuracy before and after, and the metrics of each step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    ends = [line["eval/accuracy"] for line in lines if line.get("eval/final")]
    return ends[0], ends[-1], [line for line in lines if "reward" in line]


def options_of(name: str, model: Path, seed: int, knob: str) -> dict[str, str]:
    """The options of one cell; `knob` is its learning rate, or the trust region's radius."""
    return {
        "--model": str(model), "--seed": str(seed), "--steps": "100000", "--token-limit": str(TOKENS), "--dtype": "float32",
        "--save-every": "50", "--max-kl" if name == "trpo" else "--learning-rate": knob, **SETTINGS[name],
    }  # fmt: skip


def tune(root: Path, names: list[str]) -> None:
    """Choose each algorithm's knob by validation accuracy on the tuning seeds, and write them down.

    The bar is asked of every seed, so of two knobs the one whose worse seed gains more is taken.
    """
    model = start(root)
    chosen = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    for name in names:
        tried = {}
        for knob in RADII if name == "trpo" else RATES:
            rises = []
            for seed in TUNING_SEEDS:
                options = options_of(name, model, seed, knob) | {"--eval-split": "validation"}
                before, after, _ = finals(cell(root / f"tune-{name}-{knob}-{seed}", name, options))
                rises.append(round(after - before, 4))
            tried[knob] = rises
        chosen[name] = {"knob": max(tried, key=lambda k: min(tried[k])), "rise_on_validation": tried}
        TUNED.write_text(json.dumps(chosen, indent=2) + "\n")
        print(name, chosen[name], file=sys.stderr)


def mean(steps: list[dict[str, Any]], name: str) -> float | None:
    """Mean of a metric over the steps that have it."""
    values = [step[name] for step in steps if step.get(name) is not None]
    return statistics.fmean(values) if values else None


def figure(root: Path, name: str, knob: str) -> harness.Figure:
    """One algorithm's rises over the seeds."""
    rises, finals_, steps = [], [], []
    for seed in SEEDS:
        folder = cell(root / f"{name}-{seed}", name, options_of(name, start(root), seed, knob))
        before, after, found = finals(folder)
        rises.append(round(after - before, 4))
        finals_.append(round(after, 4))
        steps += found
    details = {
        "rises": rises,
        "final": finals_,
        "clip_fraction": mean(steps, "clip_ratio/region_mean"),
        "groups_without_spread": mean(steps, "frac_reward_zero_std"),
        "groups_dropped": mean(steps, "groups_dropped"),
        "knob": knob,
    }
    return harness.Figure(
        f"algorithms/{name}", statistics.median(rises), None, "held-out accuracy gained", f"every seed >= {BAR}",
        min(rises) >= BAR, seeds=SEEDS, details=details,
    )  # fmt: skip


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Every cell, then one figure per algorithm."""
    if arguments.tune:
        tune(arguments.cells, arguments.only)
    knobs = json.loads(TUNED.read_text())
    for name in arguments.only:
        yield figure(arguments.cells, name, knobs[name]["knob"])


def options(parser: argparse.ArgumentParser) -> None:
    """This benchmark's own arguments."""
    parser.add_argument(
        "--tune", action="store_true", help="choose the learning rates first, on another seed and split"
    )
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), help="some of the algorithms")
    parser.add_argument(
        "--cells", type=Path, default=Path("runs/benchmark-algorithms"), help="where the runs go"
    )


if __name__ == "__main__":
    raise SystemExit(harness.main("algorithms", measure, options))
