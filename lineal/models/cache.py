"""Keys and values of the tokens already read, preallocated once and written in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lineal.errors import UsageError

_SAME_SIZE = {2: np.int16, 4: np.int32, 8: np.int64}

Rows = slice | Sequence[int] | None
"""Slots of a cache: a slice (no copies: the fast way), a list of slots, or None for the first B slots."""


@runtime_checkable
class Remembers(Protocol):
    """The shape of a model with a memory: what a cache must know of it."""

    @property
    def layers(self) -> int:
        """Layers that attend to earlier tokens."""
        ...

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        ...

    @property
    def head_width(self) -> int:
        """Width of one of them."""
        ...

    @property
    def context(self) -> int:
        """Most tokens of a row."""
        ...


@dataclass(frozen=True)
class Step:
    """Where one forward pass writes its tokens in a cache and what they may see; made once, shared by all layers.

    position_BT: position of each new token, or None when `start` says it for all rows.
    start: the position of the first new token when it is the same in every row, else None.
    slots: the rows as a slice, or as indices [B, 1].
    span: the tokens attend to positions 0..span-1 of the cache, as far as `mask` allows.
    mask: added to the attention scores [B, 1, T, span]; None when everything up to `span` is visible.
    fresh: all rows start at 0, so the new tokens see only each other (causally) and the cache is not read.
    """

    position_BT: Tensor | None
    start: int | None
    slots: slice | Tensor
    span: int
    mask: Tensor | None
    fresh: bool
    write_to: tuple[Tensor, ...] | None
    read_from: tuple[Tensor, ...] | None


class Slots:
    """Rows of a batch, each in a slot of some memory; slot i has read `lengths[i]` tokens.

    `lengths` lives on the host, so that planning a step never waits for a device. Keep the rows in use in front: `move`
    and `compact` fill the holes that finished rows leave.
    """

    def __init__(self, slots: int, length: int):
        self.slots, self.length = slots, length
        self.lengths = [0] * slots

    def plan(self, rows: Rows, count: int, width: int) -> Any:
        """What a pass must know that appends `width` tokens to each of `count` rows."""
        raise NotImplementedError

    def copy(self, source: int, targets: Sequence[int]) -> None:
        """Copy one row into others."""
        raise NotImplementedError

    def adopt(self, other: Any, sources: Sequence[int], first: int) -> None:
        """Copy rows of another memory of this kind (a source may repeat) into the slots from `first` on."""
        raise NotImplementedError

    def reorder(self, order: Sequence[int]) -> None:
        """Slot i gets what slot `order[i]` holds (a source may repeat); the slots beyond are emptied."""
        raise NotImplementedError

    def grow(self, length: int) -> None:
        """Make room for `length` tokens per slot."""
        raise NotImplementedError

    def row_numbers(self, rows: Rows, count: int) -> range | Sequence[int]:
        """The slots that `rows` means for a batch of `count` rows."""
        if rows is None:
            rows = slice(0, count)
        numbers = range(*rows.indices(self.slots)) if isinstance(rows, slice) else rows
        if len(numbers) != count:
            raise UsageError(f"{count} rows of tokens were given for {len(numbers)} slots of the cache.")
        return numbers

    def advance(self, rows: Rows, count: int, width: int) -> None:
        """Add `width` to the lengths of the rows; the decoder calls it after each pass."""
        for number in self.row_numbers(rows, count):
            self.lengths[number] += width

    def move(self, source: int, target: int) -> None:
        """Move a row to another slot; the source is empty afterwards."""
        if source != target:
            self.copy(source, [target])
            self.lengths[source] = 0

    def compact(self, keep: Sequence[int]) -> list[int]:
        """Bring the rows `keep` to slots 0..len(keep)-1, moving as few as possible, and empty all others.

        Returns the new order: the row now in slot i was in slot `order[i]`.
        """
        count = len(keep)
        kept = set(keep)
        movers = iter(sorted(slot for slot in kept if slot >= count))
        order = [slot if slot in kept else next(movers) for slot in range(count)]
        for slot, source in enumerate(order):
            self.move(source, slot)
        for slot in range(count, self.slots):
            self.lengths[slot] = 0
        return order


class KeyValueCache(Slots):
    """Keys and values of `slots` rows of at most `length` tokens: one tensor [L, 2, slots, Hkv, S, Dh].

    Slots and heads lie next to each other, so that one batched product serves them all without a copy.

    Passing the cache to a decoder appends the given tokens to the given rows and adds their number to `lengths`.
    A prompt shorter than its (right-padded) batch is cut back afterwards: `cut(rows, lengths)`; what lies beyond a
    row's length is never seen and is overwritten by the next tokens.

    Rows in a slice `[:n]` are read and written without copies.
    """

    def __init__(
        self,
        config: Remembers,
        slots: int,
        length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if length > config.context:
            raise UsageError(
                f"a cache of {length} tokens was asked for, but the model's context is {config.context}: "
                "shorten the prompt or max_new_tokens."
            )
        shape = (config.layers, 2, slots, config.kv_heads, length, config.head_width)
        # Zeros, not empty: a masked score is -inf, but -inf weights times a nan value would still be nan.
        self.store = zeros(shape, dtype, torch.device(device))
        super().__init__(slots, length)
        self._layers = self.store.unbind(0)

    @property
    def length_B(self) -> Tensor:
        """Tokens held by each slot, as a tensor on the cache's device."""
        return torch.tensor(self.lengths, device=self.store.device)

    @property
    def bytes(self) -> int:
        """Memory held by keys and values."""
        return self.store.numel() * self.store.element_size()

    def plan(self, rows: Rows, count: int, width: int, start_B: Sequence[int] | None = None) -> Step:
        """The step that appends `width` tokens to each of `count` rows; `start_B` first sets the rows' lengths."""
        numbers = self.row_numbers(rows, count)
        starts = [self.lengths[i] for i in numbers] if start_B is None else list(start_B)
        longest = max(starts)
        span = longest + width
        if span > self.length:
            raise UsageError(
                f"a row of {longest} tokens cannot take {width} more: the cache holds {self.length}."
            )
        for number, start in zip(numbers, starts, strict=True):
            self.lengths[number] = start
        uniform, dense = min(starts) == longest, isinstance(numbers, range) and numbers.step == 1
        read_from = write_to = None
        slots: slice | Tensor = slice(numbers[0], numbers[0] + count)
        if dense:
            read_from = self.store[:, :, slots, :, :span].unbind(0)
        if dense and uniform:
            write_to = self.store[:, :, slots, :, longest:span].unbind(0)
        else:
            slots = torch.tensor(numbers, device=self.store.device)[:, None]
        position_BT = None if write_to is not None else self._positions(starts, width)
        mask = None
        if not uniform or (width > 1 and longest > 0):
            seen_BT = self._positions(starts, width) if position_BT is None else position_BT
            mask = visible(seen_BT, span, self.store.dtype)
        start = longest if uniform else None
        return Step(position_BT, start, slots, span, mask, longest == 0, write_to, read_from)

    def _positions(self, starts: Sequence[int], width: int) -> Tensor:
        start_B1 = torch.tensor(starts, device=self.store.device)[:, None]
        return start_B1 if width == 1 else start_B1 + torch.arange(width, device=self.store.device)

    def plan_static(self, position_B1: Tensor) -> Step:
        """A one-token step for the first B slots with fixed shapes, for CUDA graphs: positions stay on the device.

        It attends to the whole cache under a mask computed from `position_B1`; `lengths` are the caller's to keep.
        """
        count = position_B1.shape[0]
        slots_B1 = torch.arange(count, device=position_B1.device)[:, None]
        read_from = self.store[:, :, :count].unbind(0)
        mask = visible(position_B1, self.length, self.store.dtype)
        return Step(position_B1, None, slots_B1, self.length, mask, False, None, read_from)

    def write(self, layer: int, step: Step, kv_BTKHD: Tensor) -> None:
        """Store one layer's new keys and values [B, T, 2, Hkv, Dh]."""
        if step.write_to is not None:
            step.write_to[layer].copy_(kv_BTKHD.permute(2, 0, 3, 1, 4))
        else:
            position_BT = step.position_BT
            # Indices split by slices put their axes first: the left side is [B, T, 2, Hkv, Dh].
            self._layers[layer][:, step.slots, :, position_BT] = kv_BTKHD.to(self.store.dtype)

    def read(self, layer: int, step: Step) -> tuple[Tensor, Tensor]:
        """One layer's keys and values [B, Hkv, span, Dh]: views when the rows are a slice, else copies."""
        if step.read_from is not None:
            key, value = step.read_from[layer].unbind(0)
        else:
            slots = step.slots[:, 0] if isinstance(step.slots, Tensor) else step.slots
            key, value = self._layers[layer][:, slots, :, : step.span].unbind(0)
        return key, value

    def cut(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Shorten rows to their true lengths (after a right-padded prefill); longer than now is refused."""
        for row, length in zip(rows, lengths, strict=True):
            if length > self.lengths[row]:
                raise UsageError(
                    f"slot {row} holds {self.lengths[row]} tokens; it cannot be cut to {length}."
                )
            self.lengths[row] = length

    def copy(self, source: int, targets: Sequence[int]) -> None:
        """Copy one row into others: a prompt read once is shared by its whole group."""
        targets = [t for t in targets if t != source]
        if not targets:
            return
        length = self.lengths[source]
        row = self.store[:, :, source : source + 1, :, :length]
        if targets == list(range(targets[0], targets[0] + len(targets))):
            self.store[:, :, targets[0] : targets[0] + len(targets), :, :length] = row
        else:
            self.store[:, :, torch.tensor(targets, device=self.store.device), :, :length] = row
        for target in targets:
            self.lengths[target] = length

    def adopt(self, other: KeyValueCache, sources: Sequence[int], first: int) -> None:
        """Copy rows of another cache (a source may repeat) into the slots from `first` on."""
        lengths = [other.lengths[source] for source in sources]
        width, last = max(lengths), first + len(sources)
        if self.store.device.type == "cpu" and self.store.dtype == other.store.dtype:
            # The first to touch this memory: one thread maps it in a tenth of the time that several need.
            _as_numpy(self.store)[:, :, first:last, :, :width] = _as_numpy(other.store)[
                :, :, sources, :, :width
            ]
        else:
            rows = other.store[:, :, torch.tensor(sources, device=other.store.device), :, :width]
            self.store[:, :, first:last, :, :width] = rows
        self.lengths[first:last] = lengths

    def reorder(self, order: Sequence[int]) -> None:
        """Slot i gets what slot `order[i]` holds (a source may repeat); the slots beyond are emptied."""
        count, lengths = len(order), [self.lengths[source] for source in order]
        width = max(lengths, default=0)
        if list(order) != list(range(count)):
            index = torch.tensor(order, device=self.store.device)
            self.store[:, :, :count, :, :width] = self.store[:, :, index, :, :width]
        self.lengths = lengths + [0] * (self.slots - count)

    def grow(self, length: int) -> None:
        """Make room for `length` tokens per slot; the old and the new memory exist together for a moment."""
        if length > self.length:
            *shape, _, width = self.store.shape
            wider = zeros((*shape, length, width), self.store.dtype, self.store.device)
            if self.store.device.type == "cpu":
                _as_numpy(wider)[..., : self.length, :] = _as_numpy(self.store)
            else:
                wider[..., : self.length, :] = self.store
            self.store, self.length, self._layers = wider, length, wider.unbind(0)


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros; on a CPU in NumPy's memory, which asks for huge pages and is ready 3 times as soon."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(shape, _SAME_SIZE[dtype.itemsize])).view(dtype)


def _as_numpy(tensor: Tensor) -> np.ndarray:
    # NumPy has no bfloat16: to be copied, bits are enough.
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    return tensor.view(kind).numpy()


def visible(position_BT: Tensor, span: int, dtype: torch.dtype) -> Tensor:
    """What attention adds to its scores [B, 1, T, span]: 0 up to each token's own position, -inf beyond it."""
    key_S = torch.arange(span, device=position_BT.device)
    mask = torch.zeros(*position_BT.shape, span, dtype=dtype, device=position_BT.device)
    return mask.masked_fill_(key_S > position_BT[..., None], float("-inf"))[:, None]
