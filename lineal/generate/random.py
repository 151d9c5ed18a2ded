"""Randomness by counting: the random number of (seed, step, sample, position) is a hash of those four numbers.

No generator state exists, so the number depends neither on who else is in the batch, nor on the order in which
rows join it, nor on where a run was interrupted. The hash is SplitMix64 (Steele, Lea and Flood 2014): a row's key
mixes seed, step and sample; the row's numbers are the generator's stream from that key.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

BITS = 52
"""Random bits in one number: as many as a float64 softmax has in its mantissa."""

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def row_key(seed: int, step: int, sample: int) -> int:
    """The key of one completion, a signed 64-bit integer: mix(mix(mix(seed) ^ step) ^ sample), each after a constant."""
    key = 0
    for number in (seed, step, sample):
        key = _mix(((key + _GOLDEN) & _WORD) ^ (number & _WORD))
    return _signed(key)


def uniform_int(key: Int[Tensor, "*#shape"], position: Int[Tensor, "*#shape"]) -> Int[Tensor, ...]:
    """Uniform integers in [0, 2^52): the number that decides the token at `position` of the completion with `key`.

    key: from `row_key`. position: 0 for the completion's first token. The two broadcast.
    Equals `mix(key + (position + 1) * golden) >> 12` in 64-bit arithmetic that wraps.
    """
    word = key + (position + 1) * _signed(_GOLDEN)
    word = (word ^ _shift(word, 30)) * _signed(_FIRST)
    word = (word ^ _shift(word, 27)) * _signed(_SECOND)
    return _shift(word ^ _shift(word, 31), 64 - BITS)


def reference_uniform(key: int, position: int) -> int:
    """`uniform_int` of one number, in plain Python: slow, obvious, and what the tensor version is tested against."""
    return _mix((key + (position + 1) * _GOLDEN) & _WORD) >> (64 - BITS)


def keys(rows: list[tuple[int, int, int]], device: torch.device | str = "cpu") -> Int[Tensor, " B"]:
    """The keys of many (seed, step, sample) at once."""
    return torch.tensor([row_key(*row) for row in rows], dtype=torch.int64, device=device)


def _mix(word: int) -> int:
    word = ((word ^ (word >> 30)) * _FIRST) & _WORD
    word = ((word ^ (word >> 27)) * _SECOND) & _WORD
    return word ^ (word >> 31)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _shift(word: Tensor, by: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask drops the copies of the sign bit.
    return (word >> by) & ((1 << (64 - by)) - 1)
