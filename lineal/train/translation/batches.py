"""Batches of similar length, as many tokens in each; which pairs a step takes is a function of (seed, step)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from lineal.errors import UsageError
from lineal.generate.translate import Ids
from lineal.tokenizers import Tokenizer
from lineal.train.length_order import POOL, Ints, LengthOrder, parts_of
from lineal.train.translation.pairs import Pairs

STRIPS = 8
"""Into how many strips of similar targets a pool is cut, each sorted by its sources: 8 % padding on Multi30k, 13 % in pools of
half the size."""
EXTRA = 5
"""Added to both lengths before their ratio is taken: of sentences of a word or two any ratio is fair."""


@dataclass(frozen=True)
class Encoded:
    """Pairs as ids, each side ending in the end token; short numbers in one array each.

    source_N, target_N: all ids. source_at, target_at: where each row begins, and the end. bytes: of the targets' text.
    dropped: pairs left out, by reason. rows: which of the pairs are here.
    """

    source_N: NDArray[np.int32]
    target_N: NDArray[np.int32]
    source_at: Ints
    target_at: Ints
    bytes: int
    dropped: dict[str, int]
    rows: list[int]

    def __len__(self) -> int:
        return len(self.source_at) - 1

    def source(self, row: int) -> list[int]:
        """Ids of a source."""
        return self.source_N[self.source_at[row] : self.source_at[row + 1]].tolist()

    def target(self, row: int) -> list[int]:
        """Ids of a target."""
        return self.target_N[self.target_at[row] : self.target_at[row + 1]].tolist()


def encode(
    pairs: Pairs, tokenizer: Tokenizer, end: int, *, longest: int | None = None, ratio: float = 0.0
) -> Encoded:
    """All pairs as ids. longest, ratio: leave out pairs with a longer side, or with sides of so different length."""
    # Flat from the start: lists of numbers would take ten times the memory.
    flat, at = (array("i"), array("i")), ([0], [0])
    dropped, size, rows = {**pairs.dropped, "too long": 0, "ratio": 0}, 0, []
    for row, texts in enumerate(zip(pairs.sources, pairs.targets, strict=True)):
        both = [tokenizer.encode(text) for text in texts]
        shorter, longer = sorted(map(len, both))
        if longest is not None and longer > longest:
            dropped["too long"] += 1
        elif ratio and longer + EXTRA > ratio * (shorter + EXTRA):
            dropped["ratio"] += 1
        else:
            for side, ids in enumerate(both):
                flat[side].extend([*ids, end])
                at[side].append(len(flat[side]))
            size += len(texts[1].encode())
            rows.append(row)
    if not rows:
        raise UsageError(
            f"{pairs.name}: of {len(pairs):,} pairs none is left after cleaning ({dropped['too long']:,} too long, "
            f"{dropped['ratio']:,} of unequal length): raise --max-tokens or --max-ratio."
        )
    source_N, target_N = (np.frombuffer(side, dtype=np.int32) for side in flat)
    source_at, target_at = (np.array(ends, dtype=np.int64) for ends in at)
    return Encoded(source_N, target_N, source_at, target_at, size, dropped, rows)


@dataclass(frozen=True)
class Batch:
    """Rows of sources and targets as rectangles, padded on the right.

    source_mask: 0 and -inf [B, 1, 1, S], None without padding. input_BT: the start token and the target but its last.
    target_BT: what follows each; mask_BT: where there is something.
    """

    source_BS: Int[Tensor, "B S"]
    source_mask: Tensor | None
    input_BT: Int[Tensor, "B T"]
    target_BT: Int[Tensor, "B T"]
    mask_BT: Bool[Tensor, "B T"]


def make_batch(data: Encoded, rows: Ints, ids: Ids, device: torch.device) -> Batch:
    """The batch of some rows."""
    source_BS, there_BS = _rectangle(data.source_N, data.source_at, rows, ids.pad)
    target_BT, mask_BT = _rectangle(data.target_N, data.target_at, rows, ids.pad)
    input_BT = np.concatenate((np.full((len(rows), 1), ids.start), target_BT[:, :-1]), 1)
    hidden = None
    if not there_BS.all():
        hidden = torch.from_numpy(np.where(there_BS, np.float32(0), np.float32(-np.inf)))[:, None, None].to(
            device
        )
    source, given, target, mask = (
        torch.from_numpy(x).to(device) for x in (source_BS, input_BT, target_BT, mask_BT)
    )
    return Batch(source, hidden, given, target, mask)


def _rectangle(ids_N: NDArray[np.int32], at_N: Ints, rows: Ints, pad: int) -> tuple[Ints, NDArray[np.bool_]]:
    start_B = at_N[rows]
    length_B = at_N[rows + 1] - start_B
    across = np.arange(length_B.max())
    there_BT = across < length_B[:, None]
    place_BT = np.where(there_BT, start_B[:, None] + across, 0)
    return np.where(there_BT, ids_N[place_BT].astype(np.int64), pad), there_BT


class Order(LengthOrder):
    """Which pairs each step takes, in batches of similar length on both sides and at most `budget` tokens."""

    ROW, BATCH = 1, 2

    def __init__(self, data: Encoded, budget: int, seed: int):
        super().__init__(seed)
        self.source_N, self.target_N = np.diff(data.source_at), np.diff(data.target_at)
        self.budget = budget
        longest = int(max(self.source_N.max(), self.target_N.max()))
        if longest > budget:
            raise UsageError(
                f"--batch-tokens {budget}: a training pair has a side of {longest} tokens with its end, which fits into no "
                "batch: raise it, or lower --max-tokens."
            )

    def rows(self, epoch: int) -> int:
        """How many pairs there are, in every epoch."""
        return len(self.source_N)

    def cut(self, epoch: int, row_N: Ints) -> Iterator[Ints]:
        """Batches as large as the budget allows, from pools of about POOL of them."""
        mean = float(np.maximum(self.source_N, self.target_N).mean())
        size = max(1, round(POOL * self.budget / mean))
        for start in range(0, len(row_N), size):
            yield from self._cut(row_N[start : start + size])

    def _cut(self, pool_N: Ints) -> Iterator[Ints]:
        """A pool in batches of similar lengths on both sides, as large as the budget allows."""
        by_target_N = pool_N[np.argsort(self.target_N[pool_N], kind="stable")]
        strips = []
        for number, strip_N in enumerate(np.array_split(by_target_N, min(STRIPS, len(pool_N)))):
            sorted_N = strip_N[np.argsort(self.source_N[strip_N], kind="stable")]
            # Up and down in turn, so that a batch across two strips has similar sources too.
            strips.append(sorted_N[:: -1 if number % 2 else 1])
        row_N = np.concatenate(strips)
        length_N = np.maximum(self.source_N[row_N], self.target_N[row_N])
        start, most = 0, self.budget // int(length_N.min()) + 1
        while start < len(row_N):
            window = length_N[start : start + most]
            cost = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
            stop = start + max(1, int(np.searchsorted(cost, self.budget, side="right")))
            yield row_N[start:stop]
            start = stop


def micro_batches(rows: Ints, order: Order, budget: int) -> Iterator[Ints]:
    """A batch in parts of at most `budget` tokens of either side, padding included."""
    widest = int(max(order.source_N[rows].max(), order.target_N[rows].max()))
    return parts_of(rows, widest, budget)
