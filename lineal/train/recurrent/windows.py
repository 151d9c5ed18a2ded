"""Truncated back-propagation through time: a text in columns that are read side by side, window after window.

Where a step's window lies and how long it is are functions of (seed, epoch, position): nothing is drawn that a resumed run
would have to draw again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from lineal.errors import DataError
from lineal.train.order import Order, Words, hash64

LEAST = 5
"""Tokens of the shortest window."""
SPREAD = 5.0
"""Standard deviation of a window's length."""
HALF = 0.05
"""Share of windows of about half the length."""


def uniform(*words: int | Words) -> NDArray[np.float64]:
    """Numbers in [0, 1), 53 bits each, as hashes of integers."""
    return (hash64(*words) >> np.uint64(11)) / 2.0**53


def lengths(count: int, mean: int, seed: int, epoch: int) -> list[int]:
    """`count` lengths of windows: about `mean` (95 %) or mean / 2 (5 %), N(that, 5), at least 5  (Merity et al. 2018,
    section 4.1).

    The normal number is Box and Muller's, of hashes of (seed, epoch, position).
    """
    place_N = np.arange(count, dtype=np.uint64)
    u, v, w = (uniform(seed, epoch, draw, place_N) for draw in range(3))
    base_N = np.where(u < 1 - HALF, mean, mean / 2)
    normal_N = np.sqrt(-2 * np.log(1 - v)) * np.cos(2 * np.pi * w)
    return np.maximum(LEAST, (base_N + SPREAD * normal_N).astype(np.int64)).tolist()


@dataclass(frozen=True)
class Window:
    """The inputs of one step, [B, T], and the tokens that follow them; first: whether the state starts at zero there."""

    input_BT: Int[Tensor, "B T"]
    target_BT: Int[Tensor, "B T"]
    first: bool


@dataclass
class Columns:
    """Documents as one stream, cut into `rows` columns of equal length that are read side by side.

    Each epoch has its own order of the documents. mean: tokens of a window; vary: whether windows differ in length, so
    that texts are not cut at the same places in each epoch. reverse: the stream is read from its end.
    """

    documents: Sequence[Tensor]
    rows: int
    mean: int
    seed: int
    vary: bool = True
    reverse: bool = False
    _epoch: int = -1
    _text_BN: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    _windows: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tokens < 2 * self.rows:
            raise DataError(
                f"the text has {self.tokens} tokens, too few for {self.rows} columns that are read side by side: use more "
                "text or a smaller --batch-size."
            )

    @property
    def tokens(self) -> int:
        """Tokens of an epoch, those that no window reads included."""
        return sum(map(len, self.documents))

    def windows(self, epoch: int) -> list[tuple[int, int]]:
        """(start, length) of each window of an epoch, within a column."""
        if epoch not in self._windows:
            there = self.tokens // self.rows - 1
            drawn = [self.mean] * (there // self.mean + 1)
            if self.vary:
                drawn = lengths(there // LEAST + 1, self.mean, self.seed, epoch)
            found, start = [], 0
            for length in drawn:
                if start >= there:
                    break
                found.append((start, min(length, there - start)))
                start += length
            self._windows[epoch] = found
        return self._windows[epoch]

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step (the first is 0), and which of its windows the step takes."""
        epoch = 0
        while step >= (size := len(self.windows(epoch))):
            epoch, step = epoch + 1, step - size
        return epoch, step

    def steps(self, epochs: float) -> int:
        """Windows of so many epochs."""
        whole = int(epochs)
        part = round((epochs - whole) * len(self.windows(whole)))
        return max(1, sum(len(self.windows(e)) for e in range(whole)) + part)

    def window(self, step: int) -> Window:
        """What a step reads."""
        epoch, index = self.place(step)
        start, length = self.windows(epoch)[index]
        text_BN = self._text(epoch)
        piece_BT = text_BN[:, start : start + length + 1].long()
        return Window(piece_BT[:, :-1], piece_BT[:, 1:], index == 0)

    def _text(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            count = len(self.documents)
            order = Order(count, self.seed).items(epoch * count, count)
            stream_N = torch.cat([self.documents[i] for i in order])
            stream_N = stream_N.flip(0) if self.reverse else stream_N
            column = len(stream_N) // self.rows
            self._text_BN, self._epoch = stream_N[: column * self.rows].view(self.rows, column), epoch
        return self._text_BN
