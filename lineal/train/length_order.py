"""Which rows each step takes when batches are of rows of like length: a function of (seed, step)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lineal.train.order import hash64

Ints = NDArray[np.int64]
POOL = 64
"""Batches whose rows are sorted by length together. More would mean less padding, and the same neighbours in every epoch."""


class LengthOrder:
    """Every epoch all rows once, in batches of like length.

    An epoch is a permutation of its rows by their hashes, cut into pools; each pool is sorted by length and cut into
    batches; the batches of the epoch are permuted. So a resumed run sees what it would have seen, and nothing is stored.

    ROW, BATCH: set the hashes of rows and of batches apart.
    """

    ROW: ClassVar[int]
    BATCH: ClassVar[int]

    def __init__(self, seed: int):
        self.seed = seed
        self._ends: list[int] = []
        self._current: tuple[int, list[Ints]] = (-1, [])

    def rows(self, epoch: int) -> int:
        """How many rows an epoch has."""
        raise NotImplementedError

    def cut(self, epoch: int, row_N: Ints) -> Iterator[Ints]:
        """The permuted rows of an epoch in batches of like length, pool by pool."""
        raise NotImplementedError

    def batch(self, step: int) -> Ints:
        """The rows of a step (the first is 0)."""
        epoch, position = self.place(step)
        return self.epoch(epoch)[position]

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step and its position there."""
        while not self._ends or self._ends[-1] <= step:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(self.epoch(len(self._ends))))
        epoch = bisect_right(self._ends, step)
        return epoch, step - (self._ends[epoch - 1] if epoch else 0)

    def epoch(self, epoch: int) -> list[Ints]:
        """The batches of an epoch in their order."""
        if self._current[0] != epoch:
            batches = list(self.cut(epoch, self._permutation(self.ROW, epoch, self.rows(epoch))))
            turn = self._permutation(self.BATCH, epoch, len(batches))
            self._current = epoch, [batches[i] for i in turn]
        return self._current[1]

    def _permutation(self, salt: int, epoch: int, count: int) -> Ints:
        return np.argsort(hash64(self.seed, salt, epoch, np.arange(count, dtype=np.uint64)), kind="stable")


def parts_of(row_B: Ints, longest: int, budget: int) -> Iterator[Ints]:
    """A batch in parts of at most `budget` tokens, padding up to its longest row included."""
    size = max(1, budget // longest)
    for start in range(0, len(row_B), size):
        yield row_B[start : start + size]
