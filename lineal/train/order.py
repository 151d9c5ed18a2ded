"""The order of data as a function of (seed, epoch, position): nothing to store, nothing to replay.

Each epoch is a permutation of the items. Up to `FEW` of them are sorted by their hashes. More are never listed:
the item at a position comes from a Feistel network of keyed hashes over the smallest power of two that holds all
items, walked until it lands on one (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). So a
resumed run, or one with more processes, sees the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineal.errors import DataError

Words = NDArray[np.uint64]
FEW = 1024
"""Up to here sorting is faster, and a network so small would favour some orders (a test measures it)."""
ROUNDS = 8
GOLDEN = 0x9E3779B97F4A7C15
WORD = (1 << 64) - 1
START = int.from_bytes(b"order")
"""Sets these hashes apart from the ones that sample tokens under the same seed."""


def hash64(*words: int | Words) -> Words:
    """A 64-bit hash of integers (arrays are hashed element by element): SplitMix64's finaliser over a chain.

    h_0 = START, h_i = mix(h_{i-1} + golden + word_i) mod 2^64 (Steele, Lea and Flood, "Fast splittable
    pseudorandom number generators", 2014). Integers are taken modulo 2^64.
    """
    result = np.full(1, START, dtype=np.uint64)
    for word in words:
        if isinstance(word, int):
            word = np.array([word & WORD], dtype=np.uint64)
        result = _mix(result + np.uint64(GOLDEN) + word.astype(np.uint64))
    return result


def _mix(x: Words) -> Words:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Order:
    """Endless passes over `count` items, each pass in its own order; equal for equal seeds.

    Raises DataError when there are no items.
    """

    count: int
    seed: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DataError(
                "there are no rows to train on: check the data file and the rows that were skipped."
            )

    def item(self, epoch: int, position: int) -> int:
        """The item at a position (0 .. count - 1) of an epoch."""
        return int(self._permute(epoch, np.array([position], dtype=np.uint64))[0])

    def batch(self, step: int, size: int) -> list[int]:
        """The `size` items of a step (the first is 0); a batch may run over the end of an epoch."""
        return self.items(step * size, size)

    def items(self, position: int, size: int) -> list[int]:
        """The `size` items from a position counted over all epochs."""
        items: list[int] = []
        while len(items) < size:
            epoch, start = divmod(position, self.count)
            stop = min(self.count, start + size - len(items))
            items += self._permute(epoch, np.arange(start, stop, dtype=np.uint64)).tolist()
            position += stop - start
        return items

    def share(self, step: int, size: int, rank: int, world: int) -> list[int]:
        """The part of `batch(step, size)` that process `rank` of `world` takes: every world-th item."""
        return self.batch(step, size)[rank::world]

    def epoch(self, step: int, size: int) -> float:
        """How many passes are done before a step."""
        return step * size / self.count

    def _permute(self, epoch: int, position_N: Words) -> Words:
        if self.count <= FEW:
            hash_C = hash64(self.seed, epoch, np.arange(self.count, dtype=np.uint64))
            return np.argsort(hash_C, kind="stable").astype(np.uint64)[position_N]
        bits = (self.count - 1).bit_length()
        x_N = _feistel(position_N, bits, self.seed, epoch)
        while (outside_N := x_N >= self.count).any():
            x_N[outside_N] = _feistel(x_N[outside_N], bits, self.seed, epoch)
        return x_N


def _feistel(x_N: Words, bits: int, seed: int, epoch: int) -> Words:
    """A permutation of 0 .. 2^bits - 1; its halves may differ by a bit, so they take turns, not places."""
    low = bits // 2
    left_N, right_N = x_N >> np.uint64(low), x_N & np.uint64((1 << low) - 1)
    for turn in range(0, ROUNDS, 2):
        left_N = left_N ^ (hash64(seed, epoch, turn, right_N) & np.uint64((1 << (bits - low)) - 1))
        right_N = right_N ^ (hash64(seed, epoch, turn + 1, left_N) & np.uint64((1 << low) - 1))
    return (left_N << np.uint64(low)) | right_N


def choose(count: int, seed: int, step: int, rows: Iterable[int]) -> list[int]:
    """For each row of a step a number in 0 .. count - 1, with replacement: a function of the arguments."""
    row_N = np.fromiter(rows, dtype=np.uint64)
    return (hash64(seed, step, row_N) % np.uint64(count)).tolist()
