"""Weights on the way: the last few for their mean, and the best by validation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from lineal.errors import CheckpointError
from lineal.train.checkpoint import load_checkpoint, save_checkpoint, steps
from lineal.train.console import warn
from lineal.train.run import Run


def snapshot(run: Run, model: nn.Module, step: int, keep: int, name: str = "snapshots") -> None:
    """Keep the weights of a step in RUN/NAME, verified like a checkpoint; the last `keep` of them stay."""
    save_checkpoint(run.path / name, step, dict(model.named_parameters()), {}, keep_last=keep)


def average(run: Run, count: int, upto: int, name: str = "snapshots") -> dict[str, Tensor]:
    """The mean, in float64, of the last `count` snapshots up to a step; empty where there is none.

    (Section 6.1 of the paper: the last 5 or 20 checkpoints.) A damaged one is named and passed over.
    """
    folder = run.path / name
    found = [step for step in steps(folder) if step <= upto][-count:]
    parts = list(_whole(folder, found))
    if not parts:
        return {}
    mean = {key: torch.stack([part[key].double() for part in parts]).mean(0) for key in parts[0]}
    return {key: value.to(parts[0][key].dtype) for key, value in mean.items()}


def _whole(folder: Path, found: Iterable[int]) -> Iterable[dict[str, Tensor]]:
    for step in found:
        try:
            yield load_checkpoint(folder / f"step-{step}").tensors
        except CheckpointError as error:
            warn(f"{error} The average is made without it.")


@torch.no_grad()
def put(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model these weights."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
