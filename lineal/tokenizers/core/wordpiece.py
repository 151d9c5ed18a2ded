"""WordPiece encoding: the longest match by a tree of bytes, with a memory for short words.

The tree's edges stand in one open hash table: edges[2 i] is node * 256 + byte + 1 (0 where empty), edges[2 i + 1] the node
that it leads to. Node 0 starts a word, node 1 goes on with it. The Python form is `WordPiece.segment`.
"""

from __future__ import annotations

import cython

if cython.compiled:
    from cython.cimports.cpython.list import PyList_New, PyList_SET_ITEM
    from cython.cimports.cpython.ref import Py_INCREF
    from cython.cimports.libc.string import memcpy


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def place(edges: cython.int[::1], key: cython.longlong, mask: cython.longlong) -> cython.longlong:
    """Where an edge stands, or where it would."""
    at: cython.longlong = ((key & 0xFFFF) * 40503 + (key >> 16) * 60493) & mask
    while edges[2 * at] != 0 and edges[2 * at] != key:
        at = (at + 1) & mask
    return at


@cython.boundscheck(False)
@cython.wraparound(False)
def grow(
    edges: cython.int[::1],
    ids: cython.int[::1],
    data: cython.const[cython.uchar][::1],
    ends: cython.const[cython.longlong][::1],
    prefix: cython.const[cython.uchar][::1],
) -> int:
    """Build the tree of tokens; how many nodes it has. The tokens stand one behind the other in `data`, token i up to ends[i].

    edges: zeros, a power of two of pairs, at least twice as many as edges there will be. ids [nodes]: becomes the
    token that ends at each node; must hold -1. Of equal tokens the last counts.
    """
    mask: cython.longlong = edges.shape[0] // 2 - 1
    nodes: cython.int = 2
    token: cython.Py_ssize_t
    start: cython.Py_ssize_t = 0
    i: cython.Py_ssize_t
    turn: cython.int
    node: cython.longlong
    at: cython.longlong
    key: cython.longlong
    goes_on: cython.bint
    width: cython.Py_ssize_t = prefix.shape[0]
    with cython.nogil:
        for token in range(ends.shape[0]):
            goes_on = ends[token] - start > width
            for i in range(width):
                goes_on = goes_on and data[start + i] == prefix[i]
            for turn in range(2):
                if ends[token] == start or (turn == 1 and not goes_on):
                    break
                node = turn
                for i in range(start + turn * width, ends[token]):
                    key = node * 256 + data[i] + 1
                    at = place(edges, key, mask)
                    if edges[2 * at] == 0:
                        edges[2 * at] = key
                        edges[2 * at + 1] = nodes
                        nodes += 1
                    node = edges[2 * at + 1]
                ids[node] = token
            start = ends[token]
    return nodes


@cython.boundscheck(False)
@cython.wraparound(False)
def move(edges: cython.int[::1], to: cython.int[::1]) -> None:
    """Move the edges to another table, of zeros."""
    mask: cython.longlong = to.shape[0] // 2 - 1
    i: cython.Py_ssize_t
    at: cython.longlong
    with cython.nogil:
        for i in range(0, edges.shape[0], 2):
            if edges[i] != 0:
                at = place(to, edges[i], mask)
                to[2 * at] = edges[i]
                to[2 * at + 1] = edges[i + 1]


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def _match(
    edges: cython.int[::1],
    ids: cython.int[::1],
    data: cython.const[cython.uchar][::1],
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    longest_word: cython.longlong,
    unknown: cython.int,
    out: cython.int[::1],
    count: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """Write the tokens of one word from out[count] on; how many ids there are then."""
    mask: cython.longlong = edges.shape[0] // 2 - 1
    first: cython.Py_ssize_t = count
    at: cython.Py_ssize_t
    i: cython.Py_ssize_t
    best: cython.Py_ssize_t
    token: cython.int
    node: cython.longlong = 0
    found: cython.longlong
    characters: cython.longlong = 0
    for i in range(start, end):
        characters += (data[i] & 0xC0) != 0x80
    at = start
    while at < end:
        best = at
        token = unknown
        if characters <= longest_word:
            node = at > start
            i = at
            while i < end:
                found = place(edges, node * 256 + data[i] + 1, mask)
                if edges[2 * found] == 0:
                    break
                node = edges[2 * found + 1]
                i += 1
                if ids[node] >= 0:
                    token = ids[node]
                    best = i
        if best == at:
            out[first] = unknown
            return first + 1
        out[count] = token
        count += 1
        at = best
    return count


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.boundscheck(False)
@cython.wraparound(False)
def packed(
    data: cython.const[cython.uchar][::1], start: cython.Py_ssize_t, count: cython.Py_ssize_t
) -> cython.longlong:
    """Up to seven bytes as one number."""
    made: cython.longlong = 0
    one: cython.longlong = 1
    i: cython.Py_ssize_t
    if cython.compiled and start + 8 <= data.shape[0]:
        memcpy(cython.address(made), cython.address(data[start]), 8)
        return made & ((one << 8 * count) - 1)
    for i in range(start + count - 1, start - 1, -1):
        made = made << 8 | data[i]
    return made


@cython.boundscheck(False)
@cython.wraparound(False)
def encode(
    edges: cython.int[::1],
    ids: cython.int[::1],
    data: cython.const[cython.uchar][::1],
    spans: cython.const[cython.int][::1],
    longest_word: cython.longlong,
    unknown: cython.int,
    memory: cython.longlong[::1],
    out: cython.int[::1],
) -> int:
    """Write the ids of the pieces to `out`, which must have room for one of each byte and three more; how many there are.

    memory: for words of up to 13 bytes and six tokens; a power of two of slots of four: the word's first seven bytes; the
    others, its length and, from bit 56 on, the number of its ids; these, three and three in 21 bits each. A word has the
    choice of two slots. For one thread at a time.
    """
    mask: cython.longlong = memory.shape[0] // 8 - 1
    count: cython.Py_ssize_t = 0
    piece: cython.Py_ssize_t
    start: cython.Py_ssize_t
    end: cython.Py_ssize_t
    middle: cython.Py_ssize_t
    i: cython.Py_ssize_t
    slot: cython.longlong
    low: cython.longlong
    high: cython.longlong
    left: cython.longlong
    before: cython.Py_ssize_t
    known: cython.longlong = 1
    known = (known << 56) - 1
    with cython.nogil:
        for piece in range(0, spans.shape[0] - 1, 2):
            start = spans[piece]
            end = spans[piece + 1]
            if end - start > 13:
                count = _match(edges, ids, data, start, end, longest_word, unknown, out, count)
                continue
            middle = end if end - start < 7 else start + 7
            low = packed(data, start, middle - start)
            high = packed(data, middle, end - middle) | (end - start) << 48
            slot = (low & 0xFFFFFFF) * 668265263 + (low >> 28) * 374761393
            slot += (high & 0xFFFFFFF) * 1640531513 + (high >> 28) * 326648991
            slot = 8 * ((slot >> 32 ^ slot >> 17) & mask)
            # Which of the two it is can't be foretold: no branch.
            slot += 4 * (((memory[slot] ^ low) | ((memory[slot + 1] & known) ^ high)) != 0)
            if memory[slot] == low and memory[slot + 1] & known == high and high > 0:
                # Three at once, though fewer may count: a loop's end can't be foretold.
                left = memory[slot + 2]
                for i in range(3):
                    out[count + i] = (left >> 21 * i) & 0x1FFFFF
                if memory[slot + 1] >> 56 > 3:
                    left = memory[slot + 3]
                    for i in range(3):
                        out[count + 3 + i] = (left >> 21 * i) & 0x1FFFFF
                count += memory[slot + 1] >> 56
                continue
            before = count
            count = _match(edges, ids, data, start, end, longest_word, unknown, out, count)
            if count - before > 6:
                continue
            slot -= slot & 4
            for i in range(4):
                memory[slot + 4 + i] = memory[slot + i]
            memory[slot] = low
            memory[slot + 1] = high | cython.cast(cython.longlong, count - before) << 56
            left = 0
            for i in range(min(count, before + 3) - 1, before - 1, -1):
                left = left << 21 | out[i]
            memory[slot + 2] = left
            left = 0
            for i in range(count - 1, before + 2, -1):
                left = left << 21 | out[i]
            memory[slot + 3] = left
    return count


@cython.boundscheck(False)
@cython.wraparound(False)
def listed(out: cython.const[cython.int][::1], count: cython.Py_ssize_t, numbers: tuple) -> list:
    """The first ids as a list of the very objects in `numbers` (0, 1, 2, ...): to make new ones takes twice as long."""
    i: cython.Py_ssize_t
    if not cython.compiled:
        return [numbers[out[i]] for i in range(count)]
    found: list = PyList_New(count)
    for i in range(count):
        number: object = numbers[out[i]]
        Py_INCREF(number)
        PyList_SET_ITEM(found, i, number)
    return found
