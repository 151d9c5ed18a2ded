"""What a training loop asks of what it trains: a step and its rate, what happens in between, and what is left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lineal.optim.schedules import Schedule
from lineal.train.distributed import ALONE, Ranks
from lineal.train.guard import Guard
from lineal.train.run import Run


class Stage:
    """Something to be trained in steps; `lineal.recipes.staged.train` takes them.

    module: all that a checkpoint holds beside the optimiser. name: the optimiser's there. steps: how many there are. shown:
    the figures of the progress line. peak, schedule: of the learning rate.
    """

    module: Any
    optimiser: torch.optim.Optimizer
    name: str = "policy"
    steps: int
    shown: tuple[str, ...]
    peak: float
    schedule: Schedule
    ranks: Ranks = ALONE

    def rate(self, step: int) -> float:
        """The learning rate of a step (from 1): the peak times the schedule."""
        return self.peak * self.schedule(step - 1)

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """Take a step (from 1); its metrics, `tokens` among them."""
        raise NotImplementedError

    def finish(self, run: Run, step: int) -> None:
        """Log the final figures and write the final folder."""
        raise NotImplementedError

    def before(self) -> dict[str, float]:
        """Figures of what the stage begins from; {} for none."""
        return {}

    def between(self, run: Run, step: int, last: bool) -> dict[str, float]:
        """What is due after a step, an evaluation for one; its figures. last: what follows is `finish`."""
        return {}

    def enough(self, metrics: Mapping[str, float]) -> bool:
        """Whether the metrics of a step say that it was the last."""
        return False

    def kept(self) -> dict[str, Any]:
        """What a checkpoint must hold beside module and optimiser, as JSON values."""
        return {}

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Take back what `kept` gave."""


def due(options: Any, step: int, last: bool) -> bool:
    """Whether an evaluation on the way is due after a step (the recipe's options of its run)."""
    return bool(options.eval_every) and step % options.eval_every == 0 and not last
