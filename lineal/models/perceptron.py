"""K perceptrons of one shape as one batched matrix product, their parameters one flat matrix [K, P].

A policy and its critic are tiny, so what costs time is the number of operations, not their size: one product serves
both, and the gradient is written out by hand straight into a flat matrix that the optimiser steps on as a whole.
Two operations are numpy's, on the same memory, because torch's are several times slower on a CPU: tanh (6x), and
products with a side below 16 (8x). Perceptrons live on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError

ACTIVATIONS = ("tanh", "relu")
Layers = list[tuple[Tensor, Tensor]]
"""(weight_KIO, bias_K1O) of each layer."""


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

    def layers(self, theta_KP: Float[Tensor, "K P"]) -> Layers:
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


def entered(layers: Layers, input_NF: Float[Tensor, "N F"], shape: Shape) -> list[Float[Tensor, "K N W"]]:
    """As `activations`, quickly, but not to be differentiated: what `tangent` and `cotangent` take as `inner`.

    layers: `shape.layers(theta_KP)`, detached; whoever calls often keeps them, for making views takes time too.
    """
    entering = input_NF.expand(layers[0][0].shape[0], *input_NF.shape)
    found = [entering]
    for index, (weight_KIO, bias_K1O) in enumerate(layers):
        entering = _product(entering, weight_KIO).add_(bias_K1O)
        if index + 1 < len(layers):
            entering = _activated(entering, shape)
        found.append(entering)
    return found


def _activated(x: Tensor, shape: Shape) -> Tensor:
    if shape.activation == "relu":
        return x.relu_()
    array = x.numpy()
    np.tanh(array, out=array)
    return x


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Batched a b, by whichever library is quick at it."""
    if min(a.shape[1], a.shape[2], b.shape[2]) >= NARROW:
        return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)
    if out is None:
        return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))
    np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    return out


NARROW = 16
"""Sides below this are numpy's."""


def tangent(layers: Layers, along: Layers, inner: Sequence[Tensor], shape: Shape) -> Float[Tensor, "K N O"]:
    """J v: how the outputs move when theta moves along v, whose layers are `along`."""
    moved: Tensor | None = None
    for index, ((weight_KIO, _), (weight_along_KIO, bias_along_K1O)) in enumerate(zip(layers, along)):
        through = _product(inner[index], weight_along_KIO).add_(bias_along_K1O)
        if moved is not None:
            through += _product(moved, weight_KIO)
        moved = through if index + 1 == len(layers) else _slope(through, inner[index + 1], shape)
    assert moved is not None
    return moved


def cotangent(
    layers: Layers, output_KNO: Float[Tensor, "K N O"], inner: Sequence[Tensor], into: Layers, shape: Shape
) -> None:
    """J' u: the gradient of Σ u · outputs in each weight and bias, written into the layers `into`."""
    slope = output_KNO
    for index in range(len(layers) - 1, -1, -1):
        to_weight_KIO, to_bias_K1O = into[index]
        _product(inner[index].mT, slope, to_weight_KIO)
        torch.sum(slope, 1, keepdim=True, out=to_bias_K1O)
        if index:
            slope = _slope(_product(slope, layers[index][0].mT), inner[index], shape)


def _slope(x: Tensor, activated: Tensor, shape: Shape) -> Tensor:
    """x times the activation's derivative, which both activations give from their own value."""
    if shape.activation == "tanh":
        return torch.ops.aten.tanh_backward(x, activated)
    return torch.ops.aten.threshold_backward(x, activated, 0)


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
                weight_KIO[k, :, :high] = gain * orthogonal_matrix(low, high, generator)
            else:
                bound = 1 / math.sqrt(low)
                for part in (weight_KIO[k, :, :high], bias_K1O[k, :, :high]):
                    part.copy_(
                        (torch.rand(part.shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
                    )
    return theta_KP


def orthogonal_matrix(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Orthonormal rows or columns, whichever are fewer  (Saxe et al. 2014)."""
    wide = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(wide)
    q = q * torch.diagonal(r).sign()
    return q if rows >= columns else q.T
