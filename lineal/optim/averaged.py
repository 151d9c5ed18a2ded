"""Averaged stochastic gradient descent, and the rule that starts the averaging (Merity et al. 2018, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from lineal.errors import UsageError


class AveragedSGD(torch.optim.Optimizer):
    """w <- w - rate (g + weight_decay w); from `start_average` on, average <- average + (w - average) / k at its k-th step.

    The average is what the model is judged and saved with (`exchange`); torch's own ASGD takes a changed learning rate a
    step late, which a rate that follows each window's length does not bear.
    """

    def __init__(self, parameters: Iterable[Any], learning_rate: float, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay, "averaging": False})

    def start_average(self) -> None:
        """Average from the next step on."""
        for group in self.param_groups:
            group["averaging"] = True

    @property
    def averaging(self) -> bool:
        """Whether the average has begun."""
        return any(group["averaging"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * parameter.grad)
                if group["averaging"]:
                    state = self.state[parameter]
                    count = state["count"] = state.get("count", 0) + 1
                    if count == 1:
                        state["average"] = parameter.clone()
                    else:
                        state["average"].add_(parameter - state["average"], alpha=1 / count)

    @torch.no_grad()
    def exchange(self) -> None:
        """Averages into the parameters and the parameters in their place; twice is as if never."""
        for group in self.param_groups:
            for parameter in group["params"]:
                average = self.state.get(parameter, {}).get("average")
                if average is not None:
                    held = parameter.clone()
                    parameter.copy_(average)
                    average.copy_(held)


def no_longer_improves(losses: Sequence[float], patience: int) -> bool:
    """Whether the newest of the held-out losses is above the least of those more than `patience` evaluations old.

    The non-monotonic trigger: t > n and v_t > min(v_1 .. v_{t-n-1}), n = patience.
    """
    if patience < 1:
        raise UsageError(f"a patience of {patience} evaluations: use 1 or more.")
    return len(losses) > patience + 1 and losses[-1] > min(losses[: -patience - 1])
