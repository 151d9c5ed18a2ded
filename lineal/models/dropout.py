"""Dropout whose masks are a function of (seed, step): cheap on a CPU, and the same after a resume."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class Masks:
    """A stream of dropout masks for one training step: SFC64 seeded by the given integers; no state outlives the step.

    torch draws each mask on a CPU from a serial generator, 64 bits a number: at width 128 that takes ten times as long
    as a layer norm. Here an element costs 16 bits, so that p is rounded to a multiple of 2^-16 below 1 (and the scale is exact
    for the rounded p). On a GPU torch's own dropout is used, seeded by the same integers.
    """

    def __init__(self, *seed: int) -> None:
        self._random = np.random.Generator(
            np.random.SFC64(np.random.SeedSequence([s & (2**64 - 1) for s in seed]))
        )
        self._seeded = False

    def __call__(self, x: Float[Tensor, "*N"], p: float) -> Float[Tensor, "*N"]:
        """x * m / (1 - p), m Bernoulli(1 - p) (Srivastava et al. 2014)."""
        if _cut(p) == 0:
            return x
        if x.device.type != "cpu":
            if not self._seeded:
                torch.manual_seed(int(self._random.integers(2**63)))
                self._seeded = True
            return F.dropout(x, p)
        bits = np.frombuffer(self._random.bytes(2 * x.numel()), dtype=np.int16)
        return _thinned(x, torch.from_numpy(bits >= _cut(p) - 32768), p)


def drop(x: Float[Tensor, "*N"], p: float) -> Float[Tensor, "*N"]:
    """x * m / (1 - p), m Bernoulli(1 - p), from torch's own generator, which the caller seeds for each step.

    On a CPU an element costs 16 bits of it, as with `Masks`.
    """
    if x.device.type != "cpu":
        return F.dropout(x, p)
    if _cut(p) == 0:
        return x
    drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return _thinned(x, drawn.view(torch.int16)[: x.numel()] >= _cut(p) - 32768, p)


def _cut(p: float) -> int:
    """How many of the 2^16 numbers fall below p."""
    return min(round(p * 65536), 65535)


def _thinned(x: Tensor, kept_N: Tensor, p: float) -> Tensor:
    return x * kept_N.view(x.shape).to(x.dtype).mul_(65536 / (65536 - _cut(p)))
