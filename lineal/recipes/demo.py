"""The demonstration: a model taught by examples until it is half right, then by reinforcement learning alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.recipes.config import RunOptions

SUMMARY = "four minutes on a laptop: from random weights to right answers"
LOOP = "lineal.recipes.demo_loop"
ESSENTIAL = ("out", "seed", "demo_algorithm", "rl_seconds", "control")


@dataclass(frozen=True)
class DemoOptions:
    """How long each part may take, and which algorithm is shown."""

    demo_algorithm: str = "grpo"
    """The algorithm of the second part."""
    sft_accuracy: float = 0.4
    """The first part stops at this sampled accuracy on validation prompts."""
    sft_seconds: float = 100.0
    """The first part stops after this many seconds in any case."""
    rl_seconds: float = 170.0
    """Seconds of reinforcement learning; the control gets the same."""
    control: bool = True
    """Beside it, go on with supervised learning for the same time, on the other core."""


@dataclass(frozen=True)
class DemoConfig:
    """Everything the demonstration can be told."""

    demo: DemoOptions = field(default_factory=DemoOptions)
    run: RunOptions = field(default_factory=lambda: RunOptions(steps=10_000, save_every=50))


def default() -> DemoConfig:
    """Two-digit sums and differences, from random weights."""
    return DemoConfig()
