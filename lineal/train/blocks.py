"""Token blocks for next-token training: documents packed into one stream, cut into inputs and targets.

Documents are never joined without a separator between them, so no text continues another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lineal.errors import DataError
from lineal.train.order import choose


@dataclass(frozen=True)
class Blocks:
    """Inputs and the tokens that follow them.

    input_BT: token ids. target_BT: the id after each; mask_BT: False where there is none (padding).
    """

    input_BT: Int[Tensor, "B T"]
    target_BT: Int[Tensor, "B T"]
    mask_BT: Bool[Tensor, "B T"]


def pack(documents: Iterable[Sequence[int]], separator: int | None) -> Int[Tensor, " N"]:
    """All documents as one stream of ids, `separator` (end-of-text) after each; empty documents are left out.

    separator: may be None for a single document only. Raises DataError when there is nothing, or several
    documents and no separator.
    """
    parts: list[Tensor] = []
    end = [] if separator is None else [separator]
    for document in documents:
        if len(document):
            if parts and separator is None:
                raise DataError(
                    "several documents would run into each other: this tokenizer has no end-of-text token. "
                    "Give one text file, or a tokenizer that has one."
                )
            parts.append(torch.tensor([*document, *end], dtype=torch.int32))
    if not parts:
        raise DataError("there is no text to train on: every document is empty.")
    return torch.cat(parts)


def split_stream(stream_N: Int[Tensor, " N"], share: float) -> tuple[Int[Tensor, " M"], Int[Tensor, " K"]]:
    """The stream without its last `share`, and that last part, to validate on (nanoGPT: the last tenth)."""
    cut = int(len(stream_N) * (1 - share))
    return stream_N[:cut], stream_N[cut:]


def random_blocks(
    stream_N: Int[Tensor, " N"], length: int, rows: Iterable[int], *, seed: int, step: int
) -> Blocks:
    """Windows of a stream at places chosen by hash(seed, step, row), uniformly over all places, as nanoGPT
    does.

    rows: which rows of the step's batch to make; a process of several makes only its own.
    """
    places = len(stream_N) - length
    if places < 1:
        raise DataError(
            f"the text has {len(stream_N)} tokens, and a block of {length} needs {length + 1}: use more text "
            "or a smaller --block."
        )
    start_B = torch.tensor(choose(places, seed, step, rows), dtype=torch.int64)
    window_BT = stream_N[start_B[:, None] + torch.arange(length + 1)].long()
    full = torch.ones(len(start_B), length, dtype=torch.bool)
    return Blocks(window_BT[:, :-1], window_BT[:, 1:], full)


def sequential_blocks(stream_N: Int[Tensor, " N"], length: int, batch: int) -> Iterator[Blocks]:
    """The whole stream in windows that do not overlap: every token but the first is a target once."""
    yield from _batches(_windows(stream_N.long(), length), length, batch)


def document_blocks(
    documents: Iterable[Sequence[int]], separator: int | None, length: int, batch: int
) -> Iterator[Blocks]:
    """Each document by itself, in windows of at most `length`: no window holds parts of two documents."""
    end = [] if separator is None else [separator]
    streams = (torch.tensor([*document, *end], dtype=torch.int64) for document in documents if len(document))
    yield from _batches((window for stream in streams for window in _windows(stream, length)), length, batch)


def _windows(stream_N: Tensor, length: int) -> Iterator[Tensor]:
    for start in range(0, len(stream_N) - 1, length):
        yield stream_N[start : start + length + 1]


def _batches(windows: Iterable[Tensor], length: int, batch: int) -> Iterator[Blocks]:
    waiting: list[Tensor] = []
    for window in windows:
        waiting.append(window)
        if len(waiting) == batch:
            yield _stack(waiting, length)
            waiting = []
    if waiting:
        yield _stack(waiting, length)


def _stack(windows: list[Tensor], length: int) -> Blocks:
    input_BT = torch.zeros(len(windows), length, dtype=torch.int64)
    target_BT, mask_BT = torch.zeros_like(input_BT), torch.zeros_like(input_BT, dtype=torch.bool)
    for row, window in enumerate(windows):
        size = len(window) - 1
        input_BT[row, :size], target_BT[row, :size], mask_BT[row, :size] = window[:-1], window[1:], True
    return Blocks(input_BT, target_BT, mask_BT)
