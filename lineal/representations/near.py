"""How often words are near each other in a corpus of ids, for GloVe: counted in bounded memory, spilled to disk and merged.

    X_ij = sum over all places of i and j in one sentence, at a distance d <= window, of 1 / d

(Pennington et al., 2014, §4.2), over both sides or (`symmetric=False`) with i before j. Sums are of whole numbers, units of
2^-28, so that they do not depend on the order in which parts of a corpus are counted, spilled and merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from lineal.errors import UsageError
from lineal.native import compiled
from lineal.representations.draws import GOLDEN, mix
from lineal.representations.words import END

UNIT = 1 << 28
PAIR = np.dtype([("row", "<i4"), ("column", "<i4"), ("count", "<f4")])
"""A co-occurrence as it lies on the disk."""
FIRST_SLOTS = 1 << 16
SLOT = 16
"""Bytes of a slot of the table."""
Part = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Keys (row << 32 | column), ascending, and their sums in units."""


@cache
def core() -> ModuleType | None:
    """The compiled table, or None."""
    return compiled("lineal.representations.core.near")


def weights(window: int) -> NDArray[np.int64]:
    """1 / d in units, for d = 1 .. window."""
    return np.rint(UNIT / np.arange(1, window + 1)).astype(np.int64)


def count(ids_N: NDArray[np.int32], window: int, symmetric: bool = True, memory: int = 512) -> Iterator[Part]:
    """The sums of a corpus, each time as many as fit into the memory; a pair may come in several parts.

    memory: MiB of the table. With `symmetric` a pair is counted under its lower id first, and stands for both.
    """
    if memory < 1 or window < 1:
        raise UsageError(
            f"window {window}, memory {memory} MiB: words can't be counted so; give at least 1 of each."
        )
    native = core()
    if native is None:
        yield from _count_plainly(ids_N, window, symmetric, memory)
        return
    most = 1 << ((memory << 20) // SLOT).bit_length() - 1
    weight, work = weights(window), np.zeros((2, 3 * window + 1), np.int64)
    # As many as a corpus of this length is likely to need, so that the table seldom has to grow.
    likely = max(FIRST_SLOTS, 1 << (2 * len(ids_N)).bit_length())
    slots = np.zeros(2 * max(min(most, likely), 1 << (16 * window).bit_length()), np.int64)
    starts = np.empty(int(ids_N.max(initial=0)) + 2, np.intp)
    place = used = 0
    while place < len(ids_N):
        place, used = native.count(ids_N, place, weight, symmetric, slots, used, work)
        if place == len(ids_N):
            break
        if len(slots) < 2 * most:
            larger = np.zeros(2 * len(slots), np.int64)
            native.place_all(larger, slots)
            slots = larger
        else:
            yield _sorted(slots, used, starts)
            slots[:] = 0
            used = 0
    if used:
        yield _sorted(slots, used, starts)


def _sorted(slots: NDArray[np.int64], used: int, starts: NDArray[np.intp]) -> Part:
    native = core()
    assert native is not None
    keys, sums = np.empty((2, used), np.int64), np.empty((2, used), np.int64)
    native.sort(slots, keys, sums, starts)
    return keys[0], sums[0]


def _count_plainly(ids_N: NDArray[np.int32], window: int, symmetric: bool, memory: int) -> Iterator[Part]:
    """What `core.near.count` does, word by word."""
    found: Counter[int] = Counter()
    weight = weights(window).tolist()
    near: list[int] = []
    for word in ids_N.tolist():
        if word == END:
            near = []
            continue
        for d, other in enumerate(reversed(near)):
            one, two = (min(word, other), max(word, other)) if symmetric else (other, word)
            found[one << 32 | two] += weight[d] * (2 if symmetric and one == two else 1)
        near = [*near[-window + 1 :], word] if window > 1 else [word]
        if len(found) * 200 > memory << 20:
            yield _part(found)
            found = Counter()
    if found:
        yield _part(found)


def _part(found: Counter[int]) -> Part:
    keys = sorted(found)
    return np.array(keys, np.int64), np.array([found[key] for key in keys], np.int64)


def spill(parts: Iterator[Part], folder: Path) -> list[Part]:
    """The parts, in memory when there is one, else mapped from files that are written into the folder."""
    kept: list[Part] = []
    for number, part in enumerate(parts):
        kept.append(part)
        if number == 0:
            continue
        # There is a second one: from now on none stays in memory.
        for at in (0, number) if number == 1 else (number,):
            kept[at] = _on_disk(kept[at], folder, at)
    return kept


def _on_disk(part: Part, folder: Path, number: int) -> Part:
    folder.mkdir(parents=True, exist_ok=True)
    keys, sums = (folder / f"{number}.{kind}" for kind in ("keys", "sums"))
    part[0].tofile(keys)
    part[1].tofile(sums)
    return np.memmap(keys, np.int64, "r"), np.memmap(sums, np.int64, "r")


def merged(parts: Sequence[Part], block: int = 1 << 22) -> Iterator[Part]:
    """The sum of parts, in the order of keys, about `block` entries at a time: each range of keys is read from all parts."""
    if len(parts) < 2:
        for key, total in parts:
            yield from ((key[a : a + block], total[a : a + block]) for a in range(0, len(key), block))
        return
    at = [0] * len(parts)
    while any(at[i] < len(keys) for i, (keys, _) in enumerate(parts)):
        # Up to the least of the keys that lie a share of the block ahead: no part gives more than that.
        step = max(1, block // len(parts))
        ahead = [int(keys[min(at[i] + step, len(keys)) - 1]) for i, (keys, _) in enumerate(parts)
                 if at[i] < len(keys)]  # fmt: skip
        stops = [int(np.searchsorted(keys, min(ahead), "right")) for keys, _ in parts]
        key = np.concatenate([keys[a:b] for (keys, _), a, b in zip(parts, at, stops)])
        total = np.concatenate([sums[a:b] for (_, sums), a, b in zip(parts, at, stops)])
        order = np.argsort(key, kind="stable")
        key, total = key[order], total[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        yield key[first], np.add.reduceat(total, first)
        at = stops


def pairs_of(parts: Iterator[Part], symmetric: bool = True) -> Iterator[np.ndarray]:
    """The co-occurrences as rows, columns and float32 counts; of a symmetric pair of two words both ways."""
    for key, total in parts:
        found = np.empty(len(key), PAIR)
        found["row"], found["column"], found["count"] = key >> 32, key & 0xFFFFFFFF, total / UNIT
        yield found
        if symmetric:
            turned = found[found["row"] != found["column"]]
            turned["row"], turned["column"] = turned["column"].copy(), turned["row"].copy()
            yield turned


def shuffled(
    blocks: Iterator[np.ndarray], seed: int, folder: Path, memory: int = 512
) -> Iterator[np.ndarray]:
    """All of them in an order that a seed decides; what does not fit into the memory (MiB) goes through files in the folder.

    Each is dealt to a heap by its hash, and each heap is sorted by hashes: one pass over the disk, whatever the size.
    """
    limit = max(1, (memory << 20) // (4 * PAIR.itemsize))
    held: list[np.ndarray] = []
    size = 0
    heaps: list[Path] = []
    key = np.uint64(mix(seed ^ 0x6465616C))
    for block in blocks:
        held.append(block)
        size += len(block)
        if size > limit and not heaps:
            folder.mkdir(parents=True, exist_ok=True)
            heaps = [folder / f"heap-{i}" for i in range(64)]
            for path in heaps:
                path.unlink(missing_ok=True)
        if heaps:
            for part in held:
                _deal(part, key, heaps)
            held = []
    if not heaps:
        yield from _turned(held, key)
        return
    for path in heaps:
        if path.exists():
            yield from _turned([np.fromfile(path, PAIR)], key)
            path.unlink()


def _hash(pairs: np.ndarray, key: np.uint64) -> NDArray[np.uint64]:
    """A hash of each pair's words, which are its own."""
    x = (pairs["row"].astype(np.uint64) << np.uint64(32)) | pairs["column"].astype(np.uint64)
    x = key + (x + np.uint64(1)) * np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _deal(pairs: np.ndarray, key: np.uint64, heaps: Sequence[Path]) -> None:
    heap = (_hash(pairs, key) >> np.uint64(58)).astype(np.int64)
    order = np.argsort(heap, kind="stable")
    bounds = np.searchsorted(heap[order], np.arange(len(heaps) + 1))
    for path, a, b in zip(heaps, bounds, bounds[1:]):
        with open(path, "ab") as file:
            file.write(pairs[order[a:b]].tobytes())


def _turned(held: Sequence[np.ndarray], key: np.uint64) -> Iterator[np.ndarray]:
    if held:
        pairs = np.concatenate(held)
        yield pairs[np.argsort(_hash(pairs, key), kind="stable")]
