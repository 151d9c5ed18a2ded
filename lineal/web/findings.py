"""What a diagnosis is made of, and the checks that hold for every kind of run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lineal.web.read import RunView


@dataclass(frozen=True)
class Finding:
    """One observation. level: bad (nothing can be learned), warn (learning is hampered) or good. remedy: to try."""

    level: str
    text: str
    remedy: str = ""


def late_mean(run: RunView, name: str) -> float | None:
    """Mean of the last quarter of a number's finite values; None when there are none."""
    values = run.values(name)
    tail = values[-max(1, len(values) // 4) :]
    return math.fsum(tail) / len(tail) if tail else None


def clipping(run: RunView) -> list[Finding]:
    """Most terms gave no gradient."""
    share = late_mean(run, "clip_ratio/region_mean")
    if share is None or share < 0.3:
        return []
    return [
        Finding(
            "warn",
            f"{share:.0%} of the terms were clipped: most of each rollout is not used.",
            "Fewer --epochs or --minibatches, or a lower --learning-rate.",
        )
    ]


def refused(run: RunView) -> list[Finding]:
    """Steps that were not finite."""
    lines = [
        line for line in run.metrics if any(isinstance(v, float) and math.isnan(v) for v in line.values())
    ]
    steps = [int(line["step"]) for line in lines if math.isnan(float(line.get("grad_norm") or 0.0))]
    if not steps:
        return []
    listed = ", ".join(map(str, steps[:5])) + (" ..." if len(steps) > 5 else "")
    return [
        Finding(
            "bad",
            f"{len(steps)} steps were refused because something was not finite (steps {listed}).",
            "The batches are in refused/. Lower --learning-rate, set --max-grad-norm, or use --dtype float32.",
        )
    ]


def damaged(run: RunView) -> list[Finding]:
    """Lines that could not be read."""
    if not run.damaged:
        return []
    return [Finding("warn", f"{run.damaged} lines of the logs could not be read and are not shown.")]
