# cython: boundscheck=False, wraparound=False, cdivision=True, legacy_implicit_noexcept=True
"""How often words are near each other, summed in a table: `lineal.representations.near.count`, compiled.

A slot of the table is one more than a pair's key and its sum; 0, 0 where it is free, and the next is tried when it is taken by
another pair. While the pairs of one word are added, the slots of the next word's are fetched.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    prefetch = None
    """`near.pxd` declares it: only the compiled form can ask for memory ahead of its use."""


@cython.cfunc
@cython.inline
@cython.nogil
def _slot(key: cython.ulonglong, mask: cython.ulonglong) -> cython.ulonglong:
    """The first slot to try for a key."""
    factor: cython.ulonglong = 0x9E3779B97F4A7C15
    ones: cython.ulonglong = 0xFFFFFFFFFFFFFFFF
    mixed: cython.ulonglong = (key * factor) & ones
    return (mixed >> 20 ^ mixed >> 44) & mask


@cython.cfunc
@cython.inline
@cython.nogil
def _add(
    slots: cython.longlong[::1], key: cython.longlong, slot: cython.ulonglong, amount: cython.longlong
) -> cython.bint:
    """Add to the sum of a pair, from its first slot on; whether it is a new one."""
    mask: cython.ulonglong = len(slots) // 2 - 1
    while slots[2 * slot] != key and slots[2 * slot] != 0:
        slot = (slot + 1) & mask
    slots[2 * slot + 1] += amount
    if slots[2 * slot] == key:
        return False
    slots[2 * slot] = key
    return True


def count(
    ids: cython.const[cython.int][::1],
    place: cython.Py_ssize_t,
    weight: cython.const[cython.longlong][::1],
    symmetric: cython.bint,
    slots: cython.longlong[::1],
    used: cython.Py_ssize_t,
    work: cython.longlong[:, ::1],
) -> tuple[int, int]:
    """Add each word from `place` on with those before it: weight[d - 1] at distance d; (where it stopped, slots in use).

    It stops where the table could be three quarters full. work: [2, 3 * window + 1] numbers to work in.
    """
    window: cython.Py_ssize_t = len(weight)
    mask: cython.ulonglong = len(slots) // 2 - 1
    most: cython.Py_ssize_t = len(slots) // 8 * 3 - 2 * window
    end: cython.Py_ssize_t = len(ids)
    half: cython.Py_ssize_t = 0
    d: cython.Py_ssize_t
    n: cython.Py_ssize_t
    one: cython.longlong
    other: cython.longlong
    key: cython.longlong
    amount: cython.longlong
    with cython.nogil:
        work[0, 0] = 0
        work[1, 0] = 0
        while place < end and used < most:
            n = 0
            other = ids[place]
            if other >= 0:
                for d in range(1, window + 1):
                    if d > place or ids[place - d] < 0:
                        break
                    one = ids[place - d]
                    amount = weight[d - 1]
                    if symmetric and one >= other:
                        amount = 2 * amount if one == other else amount
                        key = (other << 32 | one) + 1
                    else:
                        key = (one << 32 | other) + 1
                    work[half, 3 * n + 1] = key
                    work[half, 3 * n + 2] = _slot(key, mask)
                    work[half, 3 * n + 3] = amount
                    if cython.compiled:
                        prefetch(cython.address(slots[2 * work[half, 3 * n + 2]]))
                    n += 1
            work[half, 0] = n
            half = 1 - half
            for n in range(work[half, 0]):
                used += _add(slots, work[half, 3 * n + 1], work[half, 3 * n + 2], work[half, 3 * n + 3])
            place += 1
        half = 1 - half
        for n in range(work[half, 0]):
            used += _add(slots, work[half, 3 * n + 1], work[half, 3 * n + 2], work[half, 3 * n + 3])
    return place, used


def place_all(slots: cython.longlong[::1], old: cython.const[cython.longlong][::1]) -> None:
    """Put all pairs of one table into another, empty one."""
    mask: cython.ulonglong = len(slots) // 2 - 1
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(0, len(old), 2):
            if old[i] != 0:
                _add(slots, old[i], _slot(old[i], mask), old[i + 1])


def sort(
    slots: cython.const[cython.longlong][::1],
    keys: cython.longlong[:, ::1],
    sums: cython.longlong[:, ::1],
    starts: cython.Py_ssize_t[::1],
) -> None:
    """The pairs of a table and their sums by rising keys, into row 0 of both: dealt by their second words, then by their first.

    keys, sums: [2, pairs in the table]; row 1 is work space. starts: one more than there are words, to work in.
    """
    i: cython.Py_ssize_t
    at: cython.Py_ssize_t
    key: cython.longlong
    low: cython.longlong = 0xFFFFFFFF
    with cython.nogil:
        starts[:] = 0
        for i in range(0, len(slots), 2):
            if slots[i] != 0:
                starts[((slots[i] - 1) & low) + 1] += 1
        for i in range(1, len(starts)):
            starts[i] += starts[i - 1]
        for i in range(0, len(slots), 2):
            if slots[i] != 0:
                key = slots[i] - 1
                at = starts[key & low]
                starts[key & low] = at + 1
                keys[1, at] = key
                sums[1, at] = slots[i + 1]
        starts[:] = 0
        for i in range(keys.shape[1]):
            starts[(keys[1, i] >> 32) + 1] += 1
        for i in range(1, len(starts)):
            starts[i] += starts[i - 1]
        for i in range(keys.shape[1]):
            key = keys[1, i]
            at = starts[key >> 32]
            starts[key >> 32] = at + 1
            keys[0, at] = key
            sums[0, at] = sums[1, i]
