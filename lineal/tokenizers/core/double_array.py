# cython: boundscheck=False, wraparound=False, cdivision=True
"""A trie of byte strings in two flat arrays: from `node`, byte c leads to base[node] + c if check there is `node`."""

from __future__ import annotations

import cython


def build(
    data: cython.const[cython.uchar][::1],
    ends: cython.const[cython.longlong][::1],
    base: cython.int[::1],
    check: cython.int[::1],
    leaf: cython.int[::1],
    stack: cython.longlong[::1],
) -> cython.Py_ssize_t:
    """Fill the arrays for sorted keys that differ, and return how many places are used; -1 where they don't suffice.

    data, ends: the keys one after another, and where each ends. leaf: at the node of key k, k. The arrays come in
    filled with base 0, check -1, leaf -1; check[0] becomes -2. stack: room for 4 numbers for each of 256 children of
    each byte of the longest key. (J. Aoe 1989, "An efficient digital search algorithm by using a double-array structure".)
    """
    room: cython.Py_ssize_t = len(base)
    # After so many places a node with several children is found room further on, and so are those that follow.
    patience: cython.int = 256
    kids: cython.int[257]
    firsts: cython.longlong[257]
    height: cython.Py_ssize_t = 0
    used: cython.Py_ssize_t = 512
    free: cython.Py_ssize_t = 256
    several: cython.Py_ssize_t = 256
    node: cython.longlong
    left: cython.longlong
    right: cython.longlong
    depth: cython.longlong
    key: cython.longlong
    start: cython.longlong
    place: cython.longlong
    count: cython.int
    tries: cython.int
    byte: cython.int
    i: cython.int
    fits: cython.bint
    if not cython.compiled:
        kids, firsts = [0] * 257, [0] * 257
    if room < 512 or len(ends) == 0:
        return -1 if room < 512 else used
    with cython.nogil:
        check[0] = -2
        stack[0] = 0
        stack[1] = 0
        stack[2] = len(ends)
        stack[3] = 0
        height = 1
        while height > 0:
            height -= 1
            node = stack[4 * height]
            left = stack[4 * height + 1]
            right = stack[4 * height + 2]
            depth = stack[4 * height + 3]
            start = ends[left - 1] if left > 0 else 0
            if ends[left] - start == depth:
                leaf[node] = cython.cast(cython.int, left)
                left += 1
            count = 0
            for key in range(left, right):
                start = ends[key - 1] if key > 0 else 0
                byte = data[start + depth]
                if count == 0 or kids[count - 1] != byte:
                    kids[count] = byte
                    firsts[count] = key
                    count += 1
            if count == 0:
                continue
            firsts[count] = right
            while check[free] != -1:
                free += 1
                if free + 512 > room:
                    break
            place = free if count == 1 or free > several else several
            tries = 0
            while True:
                if place + 512 > room:
                    used = -1
                    break
                if check[place] == -1:
                    fits = True
                    for i in range(1, count):
                        if check[place - kids[0] + kids[i]] != -1:
                            fits = False
                            break
                    if fits:
                        break
                tries += 1
                place += 1
                if tries == patience and count > 1:
                    several = place
            if used < 0:
                break
            place -= kids[0]
            base[node] = cython.cast(cython.int, place)
            if place + 256 > used:
                used = place + 256
            for i in range(count):
                check[place + kids[i]] = cython.cast(cython.int, node)
                stack[4 * height] = place + kids[i]
                stack[4 * height + 1] = firsts[i]
                stack[4 * height + 2] = firsts[i + 1]
                stack[4 * height + 3] = depth + 1
                height += 1
    return used
