"""What the loop of ulmfit needs of a stage."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from lineal.train.guard import Guard
from lineal.train.run import Run


@runtime_checkable
class Stage(Protocol):
    """A stage of training.

    steps: how many there are. shown: the figures of the progress line.
    """

    optimiser: torch.optim.Optimizer
    steps: int
    shown: tuple[str, ...]

    @property
    def module(self) -> nn.Module:
        """All that a checkpoint holds beside the optimiser."""
        ...

    def before(self) -> dict[str, float]:
        """Figures of the model that the stage begins from; {} for none."""
        ...

    def rate_scale(self, step: int) -> float:
        """What the learning rate of a step (from 1) is multiplied by."""
        ...

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """Take a step (from 1); its metrics, `tokens` among them."""
        ...

    def epoch(self, step: int) -> float:
        """Passes over the data that are done after a step."""
        ...

    def evaluate(self, whole: bool) -> dict[str, float]:
        """Held-out figures; whole: on all there is. `eval/loss` is among them."""
        ...

    def finish(self, run: Run, step: int) -> None:
        """Log the final figures and write the final folder."""
        ...
