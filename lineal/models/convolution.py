"""Convolutional networks whose parameters lie in rows of a flat matrix [K, P], as those of the perceptrons do.

So whatever steps on flat parameters (fused Adam, TRPO's step, checkpoints) takes both alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lineal.errors import UsageError
from lineal.models.perceptron import ACTIVATIONS, orthogonal_matrix

Filters = tuple[tuple[int, int, int], ...]
"""(filters, side, stride) of each convolution."""
NATURE: Filters = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Mnih et al. 2015, for pictures of 84 pixels."""
SMALL: Filters = ((16, 3, 1), (32, 3, 2))
"""For pictures of fewer than 36 pixels, on which those do not fit."""
Pieces = list[Tensor]
"""Weight, bias, weight, bias, ... of one network."""


def filters_of(words: Sequence[str], image: tuple[int, int, int]) -> Filters:
    """What FILTERSxSIDE/STRIDE words say; without any, the usual ones for pictures of this size."""
    if not words:
        return NATURE if min(image[1:]) >= 36 else SMALL
    found = [re.fullmatch(r"(\d+)x(\d+)/(\d+)", word) for word in words]
    for word, match in zip(words, found, strict=True):
        if match is None or min(map(int, match.groups())) < 1:
            raise UsageError(f"--convolutions {word}: write FILTERSxSIDE/STRIDE, as in 32x8/4.")
    return tuple((int(m[1]), int(m[2]), int(m[3])) for m in found if m is not None)


@dataclass(frozen=True)
class ConvolutionShape:
    """Convolutions, then layers of `hidden` widths, then the outputs; where each lies in a row of P numbers.

    image: channels, height, width. extra: numbers at the end that are no layer's (a policy's log-std).
    """

    image: tuple[int, int, int]
    filters: Filters
    hidden: tuple[int, ...]
    outputs: int
    activation: str = "relu"
    extra: int = 0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation is {self.activation!r}. Use one of: {', '.join(ACTIVATIONS)}.")
        if min(min(size) for size in self.planes) < 1:
            words = " ".join(f"{n}x{side}/{stride}" for n, side, stride in self.filters)
            raise UsageError(
                f"convolutions {words} do not fit on pictures of {self.image[1]} x {self.image[2]}: nothing is left of "
                "them. Use smaller or fewer --convolutions, or --network perceptron."
            )

    @property
    def planes(self) -> list[tuple[int, int]]:
        """Height and width after each convolution."""
        height, width = self.image[1:]
        found = []
        for _, side, stride in self.filters:
            height, width = ((x - side) // stride + 1 if x >= side else 0 for x in (height, width))
            found.append((height, width))
        return found or [(height, width)]

    @property
    def weights(self) -> list[tuple[int, ...]]:
        """The shape of each weight, [out, in, side, side] or [out, in]."""
        channels, found = self.image[0], []
        for filters, side, _ in self.filters:
            found.append((filters, channels, side, side))
            channels = filters
        width = channels * math.prod(self.planes[-1])
        for high in (*self.hidden, self.outputs):
            found.append((high, width))
            width = high
        return found

    @property
    def count(self) -> int:
        """P, the numbers of one network with its extra ones."""
        return sum(math.prod(shape) + shape[0] for shape in self.weights) + self.extra

    def pieces(self, theta_P: Float[Tensor, " P"]) -> Pieces:
        """Weight and bias of each layer, views of one row."""
        found, start = [], 0
        for shape in self.weights:
            middle = start + math.prod(shape)
            found += [theta_P[start:middle].view(shape), theta_P[middle : middle + shape[0]]]
            start = middle + shape[0]
        return found

    def __call__(self, pieces: Pieces, image_NCHW: Tensor) -> Float[Tensor, "N O"]:
        """The outputs for pictures of uint8, which are scaled to 0..1 here."""
        x = image_NCHW.to(pieces[0].dtype) / 255
        activate = torch.relu if self.activation == "relu" else torch.tanh
        pairs = list(zip(pieces[::2], pieces[1::2], strict=True))
        for (weight, bias), (_, _, stride) in zip(pairs, self.filters, strict=False):
            x = activate(F.conv2d(x, weight, bias, stride))
        x_NH = x.flatten(1)
        dense = pairs[len(self.filters) :]
        for weight, bias in dense[:-1]:
            x_NH = activate(F.linear(x_NH, weight, bias))
        return F.linear(x_NH, *dense[-1])

    def start(
        self, gains: Sequence[tuple[int, float]], orthogonal: bool, generator: torch.Generator
    ) -> Float[Tensor, " P"]:
        """Fresh parameters in float64: biases 0, weights orthogonal, sqrt 2 in hidden layers.

        gains: (how many, gain) of the outputs, in order; those beyond stay 0. Not orthogonal: uniform in
        ±1/sqrt(inputs), as torch's own layers.
        """
        theta_P = torch.zeros(self.count, dtype=torch.float64)
        pieces = self.pieces(theta_P)
        for index, (weight, bias) in enumerate(zip(pieces[::2], pieces[1::2], strict=True)):
            last, begin = 2 * index + 2 == len(pieces), 0
            for many, gain in gains if last else [(weight.shape[0], math.sqrt(2.0))]:
                _fill(weight[begin : begin + many], bias[begin : begin + many], gain, orthogonal, generator)
                begin += many
        return theta_P


def _fill(weight: Tensor, bias: Tensor, gain: float, orthogonal: bool, generator: torch.Generator) -> None:
    flat = weight.flatten(1)
    if orthogonal:
        flat.copy_(gain * orthogonal_matrix(flat.shape[0], flat.shape[1], generator))
        return
    bound = 1 / math.sqrt(flat.shape[1])
    for part in (flat, bias):
        part.copy_((torch.rand(part.shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound)


def as_tuple(x: Any) -> Any:
    """Lists as tuples, all the way down: what JSON made lists of."""
    return tuple(map(as_tuple, x)) if isinstance(x, list) else x
