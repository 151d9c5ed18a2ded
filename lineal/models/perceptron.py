"""K perceptrons of one shape as one batched matrix product, their parameters one flat matrix [K, P].

A policy and its critic are tiny, so what costs time is the number of operations, not their size: one product serves
both, and the gradient is written out by hand straight into a flat matrix that the optimiser steps on as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError

ACTIVATIONS = ("tanh", "relu")


@dataclass(frozen=True)
class Shape:
    """Where each weight lies in a row of P numbers: layer by layer weight [in, out], then bias [out], then `extra`.

    sizes: inputs, hidden widths, outputs. extra: numbers at the end that are no layer's (a policy's log-std).
    """

    sizes: tuple[int, ...]
    activation: str = "tanh"
    extra: int = 0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation is {self.activation!r}. Use one of: {', '.join(ACTIVATIONS)}.")
        if min(self.sizes) < 1:
            raise UsageError(f"the layers' widths are {self.sizes}: each must be at least 1.")

    @property
    def count(self) -> int:
        """P, the numbers of one perceptron with its extra ones."""
        return sum((low + 1) * high for low, high in pairwise(self.sizes)) + self.extra

    def layers(self, theta_KP: Float[Tensor, "K P"]) -> list[tuple[Tensor, Tensor]]:
        """(weight_KIO, bias_K1O) of each layer, views of the flat matrix."""
        found, start, k = [], 0, theta_KP.shape[0]
        for low, high in pairwise(self.sizes):
            middle, end = start + low * high, start + (low + 1) * high
            found.append(
                (theta_KP[:, start:middle].view(k, low, high), theta_KP[:, middle:end].view(k, 1, high))
            )
            start = end
        return found

    def tail(self, theta_KP: Float[Tensor, "K P"]) -> Float[Tensor, "K E"]:
        """The extra numbers."""
        return theta_KP[:, self.count - self.extra :]


def forward(
    theta_KP: Float[Tensor, "K P"], input_NF: Float[Tensor, "N F"], shape: Shape
) -> Float[Tensor, "K N O"]:
    """The outputs of all K perceptrons on the same inputs; differentiable once, in theta."""
    return _Forward.apply(theta_KP, input_NF, shape)


def activations(theta_KP: Tensor, input_NF: Tensor, shape: Shape) -> list[Tensor]:
    """What enters each layer, [K, N, width], and last the outputs; plain operations, so differentiable at will."""
    entering = input_NF.expand(theta_KP.shape[0], *input_NF.shape)
    found = [entering]
    layers = shape.layers(theta_KP)
    for index, (weight_KIO, bias_K1O) in enumerate(layers):
        entering = torch.baddbmm(bias_K1O, entering, weight_KIO)
        if index + 1 < len(layers):
            entering = entering.tanh() if shape.activation == "tanh" else entering.relu()
        found.append(entering)
    return found


def tangent(
    theta_KP: Tensor, direction_KP: Float[Tensor, "K P"], entered: Sequence[Tensor], shape: Shape
) -> Float[Tensor, "K N O"]:
    """J v: how the outputs move when theta moves along v; `entered` are `activations` at theta."""
    moved: Tensor | None = None
    layers = zip(shape.layers(theta_KP), shape.layers(direction_KP), strict=True)
    for index, ((weight_KIO, _), (weight_along_KIO, bias_along_K1O)) in enumerate(layers):
        through = torch.baddbmm(bias_along_K1O, entered[index], weight_along_KIO)
        if moved is not None:
            through = torch.baddbmm(through, moved, weight_KIO)
        moved = through if index + 2 == len(entered) else _slope(through, entered[index + 1], shape)
    assert moved is not None
    return moved


def cotangent(
    theta_KP: Tensor, output_KNO: Float[Tensor, "K N O"], entered: Sequence[Tensor], shape: Shape
) -> Float[Tensor, "K P"]:
    """J' u: the gradient of Σ u · outputs in theta, 0 in the extra numbers."""
    gradient_KP = torch.empty_like(theta_KP)
    if shape.extra:
        shape.tail(gradient_KP).zero_()
    slope = output_KNO
    layers = list(zip(shape.layers(theta_KP), shape.layers(gradient_KP), strict=True))
    for index in range(len(layers) - 1, -1, -1):
        (weight_KIO, _), (to_weight_KIO, to_bias_K1O) = layers[index]
        torch.bmm(entered[index].mT, slope, out=to_weight_KIO)
        torch.sum(slope, 1, keepdim=True, out=to_bias_K1O)
        if index:
            slope = _slope(torch.bmm(slope, weight_KIO.mT), entered[index], shape)
    return gradient_KP


def _slope(x: Tensor, activated: Tensor, shape: Shape) -> Tensor:
    """x times the activation's derivative, which both activations give from their own value."""
    if shape.activation == "tanh":
        return torch.ops.aten.tanh_backward(x, activated)
    return torch.ops.aten.threshold_backward(x, activated, 0)


class _Forward(torch.autograd.Function):
    """The outputs, with `cotangent` as their gradient: one node for autograd instead of a dozen."""

    @staticmethod
    def forward(ctx: Any, theta_KP: Tensor, input_NF: Tensor, shape: Shape) -> Tensor:
        found = activations(theta_KP, input_NF, shape)
        ctx.save_for_backward(theta_KP, *found[:-1])
        ctx.shape = shape
        return found[-1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, output_KNO: Tensor) -> tuple[Tensor, None, None]:
        theta_KP, *entered = ctx.saved_tensors
        return cotangent(theta_KP, output_KNO, [*entered, output_KNO], ctx.shape), None, None


def start(
    shape: Shape, outputs: Sequence[int], gains: Sequence[float], orthogonal: bool, generator: torch.Generator
) -> Float[Tensor, "K P"]:
    """Fresh parameters in float64: biases 0; weights orthogonal, sqrt 2 in hidden layers and `gains[k]` in the last.

    outputs: how many of the last layer's outputs each perceptron uses; the others stay 0. Not orthogonal: weights and
    biases uniform in ±1/sqrt(inputs), as torch's Linear.
    """
    theta_KP = torch.zeros(len(outputs), shape.count, dtype=torch.float64)
    for index, (weight_KIO, bias_K1O) in enumerate(shape.layers(theta_KP)):
        last = index + 2 == len(shape.sizes)
        for k, used in enumerate(outputs):
            low, high = shape.sizes[index], used if last else shape.sizes[index + 1]
            if orthogonal:
                gain = gains[k] if last else math.sqrt(2.0)
                weight_KIO[k, :, :high] = gain * _orthogonal(low, high, generator)
            else:
                bound = 1 / math.sqrt(low)
                for part in (weight_KIO[k, :, :high], bias_K1O[k, :, :high]):
                    part.copy_((torch.rand(part.shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound)
    return theta_KP


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Orthonormal rows or columns, whichever are fewer  (Saxe et al. 2014)."""
    wide = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(wide)
    q = q * torch.diagonal(r).sign()
    return q if rows >= columns else q.T
