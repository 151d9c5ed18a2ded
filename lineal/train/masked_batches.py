"""Batches of masked pairs of like length: which pairs a step takes, and what is hidden in them, is a function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lineal.train.length_order import POOL, Ints, LengthOrder
from lineal.train.masking import Masking, Vocabulary, mask_rows
from lineal.train.sentence_pairs import Documents, PairRows, make_pairs


@dataclass(frozen=True)
class MaskedBatch:
    """Pairs with words hidden, padded on the right.

    mask_BT: False in the padding. at_M: the places of what is hidden, counted row by row over B x T; word_M: what stood there.
    random_B: 1 where the second text was taken from anywhere, 0 where it follows.
    """

    token_BT: Int[Tensor, "B T"]
    segment_BT: Int[Tensor, "B T"]
    mask_BT: Bool[Tensor, "B T"]
    at_M: Int[Tensor, " M"]
    word_M: Int[Tensor, " M"]
    random_B: Int[Tensor, " B"]

    def to(self, device: torch.device) -> MaskedBatch:
        """The same on a device."""
        return MaskedBatch(*(part.to(device) for part in vars(self).values()))


@dataclass
class Pairs:
    """The pairs of documents, made anew for each variant of the data.

    block: longest sequence. short: chance of a shorter aim. duplicates: how many variants there are, 0 for one per epoch.
    """

    data: Documents
    words: Vocabulary
    masking: Masking
    block: int
    short: float
    seed: int
    duplicates: int = 0
    _made: tuple[int, PairRows | None] = (-1, None)

    def variant(self, epoch: int) -> int:
        """Which variant of the data an epoch sees."""
        return epoch % self.duplicates if self.duplicates else epoch

    def of(self, variant: int) -> PairRows:
        """The pairs of a variant."""
        if self._made[0] != variant or self._made[1] is None:
            self._made = variant, make_pairs(self.data, self.block - 3, self.short, self.seed, variant)
        assert self._made[1] is not None
        return self._made[1]

    def batch(self, variant: int, row_B: Ints) -> MaskedBatch:
        """Some pairs of a variant, with its masks."""
        rows, words, source = self.of(variant), self.words, self.data.token_N
        a, b, c, d = rows.place_N4[row_B].T
        first_B, second_B = b - a, d - c
        length_B = first_B + second_B + 3
        across = np.arange(int(length_B.max()))[None]
        in_first = (across >= 1) & (across <= first_B[:, None])
        in_second = (across >= first_B[:, None] + 2) & (across < length_B[:, None] - 1)
        place = np.where(in_first, a[:, None] + across - 1, c[:, None] + across - first_B[:, None] - 2)
        maskable_BT = in_first | in_second
        mask_BT = across < length_B[:, None]
        token_BT = np.where(maskable_BT, source[np.where(maskable_BT, place, 0)], words.sep).astype(np.int64)
        token_BT[:, 0] = words.cls
        token_BT[~mask_BT] = words.pad
        segment_BT = ((across >= first_B[:, None] + 2) & mask_BT).astype(np.int64)
        hidden_BT, chosen_BT = mask_rows(
            token_BT, maskable_BT, row_B, words, self.masking, self.seed, variant
        )
        parts = (
            hidden_BT, segment_BT, mask_BT, np.flatnonzero(chosen_BT), token_BT[chosen_BT],
            rows.random_N[row_B].astype(np.int64),
        )  # fmt: skip
        return MaskedBatch(*map(torch.from_numpy, parts))


class PairOrder(LengthOrder):
    """Which pairs each step takes; every epoch those of its variant."""

    ROW, BATCH = 15, 16

    def __init__(self, pairs: Pairs, batch_size: int):
        super().__init__(pairs.seed)
        self.pairs, self.size = pairs, batch_size

    def drawn(self, step: int) -> tuple[int, Ints]:
        """The variant and the rows of a step (the first is 0)."""
        epoch, position = self.place(step)
        return self.pairs.variant(epoch), self.epoch(epoch)[position]

    def rows(self, epoch: int) -> int:
        """How many pairs the variant of an epoch has."""
        return len(self.pairs.of(self.pairs.variant(epoch)))

    def cut(self, epoch: int, row_N: Ints) -> Iterator[Ints]:
        """Batches of `batch_size` pairs; the last of a pool may be smaller."""
        return like_lengths(row_N, self.pairs.of(self.pairs.variant(epoch)).lengths(), self.size)


def like_lengths(row_N: Ints, length_N: Ints, size: int) -> Iterator[Ints]:
    """Rows in batches of `size` of like length, from pools of POOL batches; the last batch of a pool may be smaller."""
    for start in range(0, len(row_N), POOL * size):
        pool_N = row_N[start : start + POOL * size]
        pool_N = pool_N[np.argsort(length_N[pool_N], kind="stable")]
        yield from (pool_N[i : i + size] for i in range(0, len(pool_N), size))


def padding(batches: Sequence[Ints], length_N: Ints) -> float:
    """The share of tokens that are padding in these batches."""
    whole = sum(len(rows) * int(length_N[rows].max()) for rows in batches)
    return 1 - sum(int(length_N[rows].sum()) for rows in batches) / whole
