# cython: boundscheck=False, wraparound=False, legacy_implicit_noexcept=True
"""A table of pieces and their counts on flat arrays: the pieces one after another, where each ends, how often each occurs.

A slot of the table is a key and one more than the number of a piece; 0, 0 where it is free, and the next is tried when it
is taken by another (open addressing). The key of a piece of up to seven bytes is the piece itself with its length, so that
finding it never looks at the pieces; that of a longer one is a hash of it, and the bytes decide.
"""

from __future__ import annotations

import cython


@cython.cfunc
@cython.inline
@cython.nogil
def _eight(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.ulonglong:
    """Eight bytes as a number, the first the lowest: one load, where the compiler sees it."""
    return (
        cython.cast(cython.ulonglong, data[at])
        | cython.cast(cython.ulonglong, data[at + 1]) << 8
        | cython.cast(cython.ulonglong, data[at + 2]) << 16
        | cython.cast(cython.ulonglong, data[at + 3]) << 24
        | cython.cast(cython.ulonglong, data[at + 4]) << 32
        | cython.cast(cython.ulonglong, data[at + 5]) << 40
        | cython.cast(cython.ulonglong, data[at + 6]) << 48
        | cython.cast(cython.ulonglong, data[at + 7]) << 56
    )


@cython.cfunc
@cython.inline
@cython.nogil
def _key(
    data: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    factor: cython.ulonglong,
    ones: cython.ulonglong,
) -> cython.ulonglong:
    """The key of a piece; below 2^60, and the piece itself where it is below 2^59."""
    one: cython.ulonglong = 1
    word: cython.ulonglong = 0
    i: cython.Py_ssize_t
    if size < 8:
        if at + 8 <= len(data):
            word = _eight(data, at) & ((one << (8 * size)) - 1)
        else:
            for i in range(size):
                word |= cython.cast(cython.ulonglong, data[at + i]) << (8 * i)
        return word | cython.cast(cython.ulonglong, size) << 56
    for i in range(0, size - 8, 8):
        word = ((word ^ _eight(data, at + i)) * factor) & ones
        word ^= word >> 29
    word = ((word ^ _eight(data, at + size - 8)) * factor) & ones
    return (word >> 8) | one << 59


@cython.cfunc
@cython.inline
@cython.nogil
def _same(
    data: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    arena: cython.uchar[::1],
    ends: cython.longlong[::1],
    piece: cython.Py_ssize_t,
) -> cython.bint:
    """Whether a stretch of `data` is the piece of that number."""
    start: cython.Py_ssize_t = ends[piece - 1] if piece > 0 else 0
    i: cython.Py_ssize_t = 0
    if ends[piece] - start != size:
        return False
    while i < size and arena[start + i] == data[at + i]:
        i += 1
    return i == size


def tally(
    data: cython.const[cython.uchar][::1],
    spans: cython.const[cython.int][::1],
    weights: cython.const[cython.longlong][::1],
    done: cython.Py_ssize_t,
    slots: cython.longlong[::1],
    arena: cython.uchar[::1],
    ends: cython.longlong[::1],
    counts: cython.longlong[::1],
) -> cython.Py_ssize_t:
    """Count the pieces `spans` of `data` from the `done`-th on, each once or `weights` times; how many were done, or -1.

    -1 is for a piece that lies outside of `data`.

    counts: in its last place how many pieces there are. It stops before a piece for which there is no room in `arena`,
    or in `ends`, which is to be half as long as there are slots (a power of two) at most.
    """
    n: cython.Py_ssize_t = len(spans) // 2
    weighs: cython.bint = len(weights) > 0
    last: cython.Py_ssize_t = len(counts) - 1
    pieces: cython.Py_ssize_t = counts[last]
    used: cython.Py_ssize_t = ends[pieces - 1] if pieces > 0 else 0
    mask: cython.Py_ssize_t = len(slots) // 2 - 1
    factor: cython.ulonglong = 0x9E3779B97F4A7C15
    ones: cython.ulonglong = 0xFFFFFFFFFFFFFFFF
    at: cython.Py_ssize_t
    size: cython.Py_ssize_t
    slot: cython.Py_ssize_t
    piece: cython.Py_ssize_t
    i: cython.Py_ssize_t
    key: cython.longlong
    with cython.nogil:
        while done < n:
            at = spans[2 * done]
            size = spans[2 * done + 1] - at
            if size > 0:
                if at < 0 or size > len(data) - at:
                    done = -1
                    break
                key = _key(data, at, size, factor, ones)
                slot = _slot(key, mask, factor, ones)
                while slots[2 * slot] != 0 and (
                    slots[2 * slot] != key
                    or (size > 7 and not _same(data, at, size, arena, ends, slots[2 * slot + 1]))
                ):
                    slot = (slot + 1) & mask
                piece = slots[2 * slot + 1]
                if slots[2 * slot] == 0:
                    if pieces == last or used + size > len(arena):
                        break
                    for i in range(size):
                        arena[used + i] = data[at + i]
                    used += size
                    piece = pieces
                    pieces += 1
                    ends[piece] = used
                    counts[piece] = 0
                    slots[2 * slot] = key
                    slots[2 * slot + 1] = piece
                counts[piece] += weights[done] if weighs else 1
            done += 1
    counts[last] = pieces
    return done


@cython.cfunc
@cython.inline
@cython.nogil
def _slot(
    key: cython.ulonglong, mask: cython.Py_ssize_t, factor: cython.ulonglong, ones: cython.ulonglong
) -> cython.Py_ssize_t:
    """The first slot to try for a key."""
    mixed: cython.ulonglong = (key * factor) & ones
    return cython.cast(cython.Py_ssize_t, (mixed ^ mixed >> 32) >> 7 & cython.cast(cython.ulonglong, mask))


def place(
    slots: cython.longlong[::1],
    arena: cython.const[cython.uchar][::1],
    ends: cython.const[cython.longlong][::1],
    pieces: cython.Py_ssize_t,
) -> None:
    """Fill an empty table with all pieces."""
    mask: cython.Py_ssize_t = len(slots) // 2 - 1
    factor: cython.ulonglong = 0x9E3779B97F4A7C15
    ones: cython.ulonglong = 0xFFFFFFFFFFFFFFFF
    start: cython.Py_ssize_t = 0
    slot: cython.Py_ssize_t
    piece: cython.Py_ssize_t
    key: cython.longlong
    with cython.nogil:
        for piece in range(pieces):
            key = _key(arena, start, ends[piece] - start, factor, ones)
            slot = _slot(key, mask, factor, ones)
            while slots[2 * slot] != 0:
                slot = (slot + 1) & mask
            slots[2 * slot] = key
            slots[2 * slot + 1] = piece
            start = ends[piece]


def keep(
    arena: cython.uchar[::1],
    ends: cython.longlong[::1],
    counts: cython.longlong[::1],
    floor: cython.longlong,
    ties: cython.Py_ssize_t,
) -> cython.longlong:
    """Keep the pieces that occur more than `floor` times, and the first `ties` of those that occur so often.

    Returns how many occurrences went with the others. The table must be filled anew.
    """
    last: cython.Py_ssize_t = len(counts) - 1
    pieces: cython.Py_ssize_t = counts[last]
    kept: cython.Py_ssize_t = 0
    used: cython.Py_ssize_t = 0
    start: cython.Py_ssize_t = 0
    end: cython.Py_ssize_t
    piece: cython.Py_ssize_t
    i: cython.Py_ssize_t
    dropped: cython.longlong = 0
    with cython.nogil:
        for piece in range(pieces):
            end = ends[piece]
            if counts[piece] > floor or (counts[piece] == floor and ties > 0):
                ties -= counts[piece] == floor
                for i in range(start, end):
                    arena[used] = arena[i]
                    used += 1
                ends[kept] = used
                counts[kept] = counts[piece]
                kept += 1
            else:
                dropped += counts[piece]
            start = end
    counts[last] = kept
    return dropped
