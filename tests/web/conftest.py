"""Run folders made of plain files, as a training loop leaves them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lineal.recipes.config import PolicyGradientConfig, to_json, with_options

MakeRun = Callable[..., Path]


def lines(records: list[dict[str, Any]]) -> str:
    """Records as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def curve(step: int, steps: int, seed: float) -> float:
    """Something that rises from 0 to 1 with a deterministic wobble."""
    x = step / steps
    return min(1.0, max(0.0, x**0.6 + 0.05 * math.sin(7.3 * step + seed) * (1 - x)))


def metrics(steps: int, start: float, gain: float) -> list[dict[str, Any]]:
    """What a policy-gradient loop logs."""
    held = {"eval/error": 0.01, "eval/length": 3.4, "eval/prompts": 500, "eval/final": True}
    records = [{"step": 0, "eval/accuracy": start, "eval/greedy": start + 0.1, **held}]
    for step in range(1, steps + 1):
        rise = curve(step, steps, start)
        records.append(
            {
                "step": step,
                "reward": start + gain * rise,
                "reward_std": 0.4 * (1 - rise),
                "frac_reward_zero_std": 0.8 * rise,
                "completions/mean_length": 3.5 - 0.2 * rise,
                "completions/clipped_ratio": 0.05 * (1 - rise),
                "tokens": 1750.0,
                "kl": 0.004 * (1 - 0.5 * rise),
                "entropy": 0.6 * (1 - 0.8 * rise),
                "grad_norm": 1.2 - rise + 0.2 * math.cos(step),
                "clip_ratio/low_mean": 0.01 * rise,
                "clip_ratio/high_mean": 0.02 * rise,
                "clip_ratio/region_mean": 0.03 * rise,
                "sampling/sampling_logp_difference/mean": 1e-7,
                "sampling/sampling_logp_difference/max": 2e-6,
                "learning_rate": 3e-4,
                "num_tokens": 1750 * step,
            }
        )
    end = {"eval/accuracy": start + gain, "eval/greedy": min(1.0, start + gain + 0.04)}
    return [*records, {"step": steps, **end, **held}]


def samples(steps: int) -> list[dict[str, Any]]:
    """Held-out completions at the start and at the end, right and wrong ones."""
    asked = [("12+34=", "64"), ("55-21=", "43"), ("08+09=", "71"), ("99+01=", "001"), ("45-45=", "0")]
    before = [
        {"completions": ["46", "99"], "rewards": [0.0, 0.0]},
        {"completions": ["43", "4"], "rewards": [1.0, 0.0]},
    ]
    records = []
    for i, (prompt, answer) in enumerate(asked):
        base = {"step": 0, "kind": "eval", "prompt": prompt, "answer": answer}
        records.append({**base, **before[i % 2]})
        rewards = [1.0, 0.0 if i == 3 else 1.0]
        last = {"completions": [answer, answer if rewards[1] else "010"], "rewards": rewards}
        records.append({**base, "step": steps, **last})
    return sorted(records, key=lambda record: record["step"])


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run folder: `make_run(name, recipe=..., metrics=[...], samples=[...], done=True)`."""

    def make(
        name: str = "grpo-1",
        *,
        recipe: str = "grpo",
        log: list[dict[str, Any]] | None = None,
        said: list[dict[str, Any]] | None = None,
        done: bool = True,
        **options: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = with_options(PolicyGradientConfig(), **{"algorithm": recipe, "steps": 120, **options})
        record = {
            "config": {"recipe": recipe, "options": to_json(config)},
            "device": {"kind": "cpu", "dtype": "float32", "threads": 1, "probe": {"float32 threads 1": 1.5}},
            "versions": {"python": "3.11.7", "torch": "2.13.0", "lineal": "0.1.0"},
            "created": "2026-01-02T03:04:05+0000",
            "keep": {"last": 2, "every": 0},
        }
        (folder / "config.json").write_text(json.dumps(record))
        logged = metrics(120, 0.45, 0.48) if log is None else log
        (folder / "metrics.jsonl").write_text(lines(logged))
        times = [
            {"step": r["step"], "time": 1.0, "step_time": 0.9, "tokens_per_second": 1900.0} for r in logged
        ]
        (folder / "timing.jsonl").write_text(lines(times))
        (folder / "samples.jsonl").write_text(lines(samples(120) if said is None else said))
        if done:
            (folder / "final").mkdir()
        return folder

    return make
