"""Two tables of pieces and their counts: a dict, and flat arrays for the compiled core. Both keep the order of first sight."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from types import ModuleType

from lineal.errors import DataError

Flat = tuple[bytes, "array[int]", "array[int]"]
"""The pieces one after another, where each ends (array "q") and how often it occurs (array "q")."""

NO_WEIGHTS = array("q")


def outside(data: bytes) -> DataError:
    """The error for a piece that is no part of a text."""
    return DataError(f"A piece lies outside the text of {len(data)} bytes: give the spans of this text.")


class DictTable:
    """The obvious form."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, data: bytes, spans: array[int], weights: array[int] = NO_WEIGHTS) -> None:
        """Count pieces of `data`, each once or by its weight; empty ones are none."""
        for i, (start, end) in enumerate(zip(spans[::2], spans[1::2])):
            if end > start:
                if start < 0 or end > len(data):
                    raise outside(data)
                piece = data[start:end]
                self.counts[piece] = self.counts.get(piece, 0) + (weights[i] if weights else 1)

    def flat(self) -> Flat:
        """All of it."""
        ends, at = array("q"), 0
        for piece in self.counts:
            at += len(piece)
            ends.append(at)
        return b"".join(self.counts), ends, array("q", self.counts.values())

    def keep(self, floor: int, ties: int) -> int:
        """Keep what occurs more than `floor` times and the first `ties` of what occurs so often; the occurrences lost."""
        kept: dict[bytes, int] = {}
        for piece, count in self.counts.items():
            if count > floor or (count == floor and ties > 0):
                ties -= count == floor
                kept[piece] = count
        lost = sum(self.counts.values()) - sum(kept.values())
        self.counts = kept
        return lost


class FlatTable:
    """The same for `core.count`: arrays that double when they are full. The last of `counts` is how many pieces there are."""

    def __init__(self, core: ModuleType, pieces: int = 1 << 10):
        self.core = core
        self.arena = bytearray(8 * pieces)
        self.ends = array("q", bytes(8 * pieces))
        self.counts = array("q", bytes(8 * pieces + 8))
        self.slots = array("q", bytes(32 * pieces))

    def __len__(self) -> int:
        return self.counts[-1]

    def add(self, data: bytes, spans: array[int], weights: array[int] = NO_WEIGHTS) -> None:
        """Count pieces of `data`, each once or by its weight; empty ones are none."""
        done, n = 0, len(spans) // 2
        while done < n:
            done = self.core.tally(data, spans, weights, done, self.slots, self.arena, self.ends, self.counts)
            if done < 0:
                raise outside(data)
            if done < n:
                self._grow(spans[2 * done + 1] - spans[2 * done])

    def flat(self) -> Flat:
        """All of it."""
        pieces = len(self)
        used = self.ends[pieces - 1] if pieces else 0
        return bytes(memoryview(self.arena)[:used]), self.ends[:pieces], self.counts[:pieces]

    def keep(self, floor: int, ties: int) -> int:
        """Keep what occurs more than `floor` times and the first `ties` of what occurs so often; the occurrences lost."""
        lost = self.core.keep(self.arena, self.ends, self.counts, floor, ties)
        self._fill(len(self.ends))
        return lost

    def _grow(self, size: int) -> None:
        """Make room for one more piece of that size."""
        pieces, used = len(self), self.ends[len(self) - 1] if len(self) else 0
        if used + size > len(self.arena):
            self.arena.extend(bytes(max(size, len(self.arena))))
        if pieces == len(self.ends):
            self.counts.pop()
            self.ends.frombytes(bytes(8 * pieces))
            self.counts.frombytes(bytes(8 * pieces))
            self.counts.append(pieces)
            self._fill(2 * pieces)

    def _fill(self, pieces: int) -> None:
        """The slots for so many pieces."""
        self.slots = array("q", bytes(32 * pieces))
        self.core.place(self.slots, self.arena, self.ends, len(self))


def spans_of(ends: Sequence[int]) -> array[int]:
    """Start, end, ... of pieces that follow one another."""
    found = array("i", bytes(8 * len(ends)))
    found[1::2] = array("i", ends)
    found[2::2] = array("i", ends[:-1])
    return found
