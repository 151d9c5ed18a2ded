"""From the options of a stage to its optimiser and schedule, and a step of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lineal.optim.averaged import AveragedSGD
from lineal.optim.layerwise import layer_groups
from lineal.optim.schedules import Schedule, SlantedTriangular, make_schedule
from lineal.train.guard import Guard
from lineal.train.recurrent.options import StepOptions

Layers = Sequence[Mapping[str, nn.Parameter]]


def make_optimiser(options: StepOptions, directions: Sequence[Layers]) -> torch.optim.Optimizer:
    """The optimiser over the layers of each direction, whose rates fall from the top layer by `discriminative`."""
    groups = [group for layers in directions for group in layer_groups(layers, options.discriminative)]
    if options.method == "adagrad":
        return torch.optim.Adagrad(
            groups, lr=options.learning_rate, weight_decay=options.weight_decay, initial_accumulator_value=1.0
        )
    if options.method != "adam":
        return AveragedSGD(groups, options.learning_rate, options.weight_decay)
    return torch.optim.AdamW(
        groups,
        lr=options.learning_rate,
        betas=(options.beta1, options.beta2),
        weight_decay=options.weight_decay,
    )


def stage_schedule(options: StepOptions, steps: int) -> Schedule:
    """The schedule over all steps; those that are not the slanted triangle end at 1/ratio of the peak too."""
    if options.schedule == "slanted":
        return SlantedTriangular(steps, options.cut_fraction, options.ratio)
    return make_schedule(options.schedule, steps, 0, 1 / options.ratio)


def take_step(
    optimiser: torch.optim.Optimizer,
    directions: Sequence[Layers],
    losses: Mapping[str, Tensor],
    limit: float,
    guard: Guard,
) -> float:
    """Clip each direction's gradient by itself and step, unless a number is not finite; the largest norm before clipping."""
    norms = []
    for layers in directions:
        moving = [p for layer in layers for p in layer.values() if p.grad is not None]
        norms.append(torch.nn.utils.clip_grad_norm_(moving, limit or math.inf))
    norm = float(torch.stack(norms).max())
    if guard.finite(norm, **losses):
        optimiser.step()
    return norm
