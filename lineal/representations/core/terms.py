# cython: boundscheck=False, wraparound=False, cdivision=True, legacy_implicit_noexcept=True
"""Counting the words and word n-grams of documents, on flat arrays.

A node is a word or an n-gram; an n-gram is its first n - 1 words, which are a node, and one word more. Columns of `nodes`:
where the word's bytes start in `arena`, where a line feed ends it, and how many they are (of an n-gram: the node before its last word, and -1 - the node of
that word); in how many documents it is (-1: a stop word, which is passed over); the last of them; its place in `out`.
A slot of the table is a key and one more than a node; 0, 0 where it is free.
"""

from __future__ import annotations

import cython

N_MIN = cython.declare(cython.int, 0)
N_MAX = cython.declare(cython.int, 1)
GROW = cython.declare(cython.int, 2)
NODES = cython.declare(cython.int, 3)
BYTES = cython.declare(cython.int, 4)
WRITTEN = cython.declare(cython.int, 5)
SERIAL = cython.declare(cython.int, 6)
DONE = cython.declare(cython.int, 7)
CHAIN = cython.declare(cython.int, 8)


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
def _word_key(
    data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.longlong:
    """Below 2^60; the word itself and its length up to seven bytes, a hash above 2^59 beyond. Seven bytes more must be there."""
    factor: cython.ulonglong = 0x9E3779B97F4A7C15
    ones: cython.ulonglong = 0xFFFFFFFFFFFFFFFF
    one: cython.ulonglong = 1
    word: cython.ulonglong = 0
    i: cython.Py_ssize_t
    if size < 8:
        word = _eight(data, at) & ((one << (8 * size)) - 1)
        return cython.cast(cython.longlong, word | cython.cast(cython.ulonglong, size) << 56)
    for i in range(0, size - 8, 8):
        word = ((word ^ _eight(data, at + i)) * factor) & ones
        word ^= word >> 29
    word = ((word ^ _eight(data, at + size - 8)) * factor) & ones
    return cython.cast(cython.longlong, (word >> 8) | one << 59)


@cython.cfunc
@cython.inline
@cython.nogil
def _slot(key: cython.longlong, mask: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The first slot to try for a key."""
    factor: cython.ulonglong = 0x9E3779B97F4A7C15
    ones: cython.ulonglong = 0xFFFFFFFFFFFFFFFF
    mixed: cython.ulonglong = (cython.cast(cython.ulonglong, key) * factor) & ones
    return cython.cast(cython.Py_ssize_t, (mixed ^ mixed >> 32) >> 7 & cython.cast(cython.ulonglong, mask))


@cython.cfunc
@cython.inline
@cython.nogil
def _same(
    data: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    arena: cython.uchar[::1],
    start: cython.Py_ssize_t,
) -> cython.bint:
    """Whether a stretch of `data` is one of `arena`."""
    i: cython.Py_ssize_t = 0
    while i < size and arena[start + i] == data[at + i]:
        i += 1
    return i == size


@cython.cfunc
@cython.inline
@cython.nogil
def _find_word(
    data: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    size: cython.Py_ssize_t,
    state: cython.longlong[::1],
    slots: cython.longlong[::1],
    nodes: cython.longlong[:, ::1],
    arena: cython.uchar[::1],
) -> cython.Py_ssize_t:
    """The node of a word, made where it is new and may be; -1 where it may not."""
    mask: cython.Py_ssize_t = slots.shape[0] // 2 - 1
    key: cython.longlong = _word_key(data, at, size)
    slot: cython.Py_ssize_t = _slot(key, mask)
    node: cython.Py_ssize_t
    i: cython.Py_ssize_t
    while slots[2 * slot + 1] != 0:
        if slots[2 * slot] == key:
            node = slots[2 * slot + 1] - 1
            if size < 8 or (nodes[node, 1] == size and _same(data, at, size, arena, nodes[node, 0])):
                return node
        slot = (slot + 1) & mask
    if state[GROW] == 0:
        return -1
    node = state[NODES]
    state[NODES] = node + 1
    nodes[node, 0] = state[BYTES]
    nodes[node, 1] = size
    nodes[node, 2] = 0
    nodes[node, 3] = -1
    for i in range(size):
        arena[state[BYTES] + i] = data[at + i]
    arena[state[BYTES] + size] = 10
    state[BYTES] += size + 1
    slots[2 * slot] = key
    slots[2 * slot + 1] = node + 1
    return node


@cython.cfunc
@cython.inline
@cython.nogil
def _find_gram(
    before: cython.longlong,
    word: cython.longlong,
    state: cython.longlong[::1],
    slots: cython.longlong[::1],
    nodes: cython.longlong[:, ::1],
) -> cython.Py_ssize_t:
    """The node of an n-gram, as `_find_word`; its key is exact."""
    mask: cython.Py_ssize_t = slots.shape[0] // 2 - 1
    one: cython.longlong = 1
    key: cython.longlong = one << 60 | before << 30 | word
    slot: cython.Py_ssize_t = _slot(key, mask)
    node: cython.Py_ssize_t
    while slots[2 * slot + 1] != 0:
        if slots[2 * slot] == key:
            return slots[2 * slot + 1] - 1
        slot = (slot + 1) & mask
    if state[GROW] == 0:
        return -1
    node = state[NODES]
    state[NODES] = node + 1
    nodes[node, 0] = before
    nodes[node, 1] = -1 - word
    nodes[node, 2] = 0
    nodes[node, 3] = -1
    slots[2 * slot] = key
    slots[2 * slot + 1] = node + 1
    return node


@cython.cfunc
@cython.inline
@cython.nogil
def _emit(
    node: cython.Py_ssize_t,
    state: cython.longlong[::1],
    nodes: cython.longlong[:, ::1],
    out: cython.int[:, ::1],
) -> cython.void:
    """Count an occurrence in the document under way."""
    if node < 0:
        return
    if nodes[node, 3] != state[SERIAL]:
        nodes[node, 3] = state[SERIAL]
        nodes[node, 4] = state[WRITTEN]
        nodes[node, 2] += state[GROW]
        out[state[WRITTEN], 0] = node
        out[state[WRITTEN], 1] = 0
        state[WRITTEN] += 1
    out[nodes[node, 4], 1] += 1


@cython.cfunc
@cython.inline
@cython.nogil
def _take(
    node: cython.Py_ssize_t,
    seen: cython.Py_ssize_t,
    state: cython.longlong[::1],
    slots: cython.longlong[::1],
    nodes: cython.longlong[:, ::1],
    out: cython.int[:, ::1],
) -> cython.Py_ssize_t:
    """Count a word, the `seen`-th of its document, and the n-grams that end with it; how many those are."""
    n: cython.Py_ssize_t
    terms: cython.Py_ssize_t = 0
    gram: cython.Py_ssize_t
    most: cython.Py_ssize_t = state[N_MAX]
    if state[N_MIN] == 1:
        _emit(node, state, nodes, out)
        terms = 1
    for n in range(most if seen + 1 > most else seen + 1, 1, -1):
        gram = state[CHAIN + n - 2]
        if gram >= 0 and node >= 0:
            gram = _find_gram(gram, node, state, slots, nodes)
        else:
            gram = -1
        if n < most:
            state[CHAIN + n - 1] = gram
        if n >= state[N_MIN]:
            _emit(gram, state, nodes, out)
            terms += 1
    state[CHAIN] = node
    return terms


def count(
    data: cython.const[cython.uchar][::1],
    kinds: cython.const[cython.uchar][::1],
    documents: cython.longlong[:, ::1],
    state: cython.longlong[::1],
    slots: cython.longlong[::1],
    nodes: cython.longlong[:, ::1],
    arena: cython.uchar[::1],
    out: cython.int[:, ::1],
) -> None:
    """Count the terms of documents that stand one after another in `data`, in UTF-8, with seven bytes more at the end.

    kinds: for each code point, 1 where it belongs to a word; a word has at least two characters. documents: column 0, where
    each ends in `data`; 1, where its rows of `out` (node, count) end; 2, how many terms it has. state: the shortest and the
    longest n-gram, whether new ones are taken, the nodes, bytes of `arena` and rows of `out` that are in use, the number of
    documents so far, how many of these are done, and room for as many nodes as the longest n-gram has words. It goes on with
    the first document that is not done, and stops before one that might have more new words than `nodes` and `arena` have
    room for; `slots` (a power of two, twice) must be four times as long as `nodes` at least, `out` have room for every n-gram.
    """
    i: cython.Py_ssize_t = documents[state[DONE] - 1, 0] if state[DONE] > 0 else 0
    most: cython.Py_ssize_t
    d: cython.Py_ssize_t
    end: cython.Py_ssize_t
    start: cython.Py_ssize_t
    size: cython.Py_ssize_t
    code: cython.Py_ssize_t
    letters: cython.Py_ssize_t
    seen: cython.Py_ssize_t
    terms: cython.Py_ssize_t
    node: cython.Py_ssize_t
    with cython.nogil:
        for d in range(state[DONE], documents.shape[0]):
            end = documents[d, 0]
            most = (end - i) // 2 + 1
            if state[GROW] != 0 and (
                state[NODES] + most * state[N_MAX] > nodes.shape[0]
                or state[BYTES] + end - i + 1 > arena.shape[0] - 8
            ):
                break
            seen = 0
            terms = 0
            letters = 0
            start = i
            while i < end:
                code = data[i]
                size = 1
                if code >= 0x80:
                    if code < 0xE0:
                        size = 2
                        code = (code & 31) << 6 | (data[i + 1] & 63)
                    elif code < 0xF0:
                        size = 3
                        code = (code & 15) << 12 | (data[i + 1] & 63) << 6 | (data[i + 2] & 63)
                    else:
                        size = 4
                        code = (
                            (code & 7) << 18
                            | (data[i + 1] & 63) << 12
                            | (data[i + 2] & 63) << 6
                            | (data[i + 3] & 63)
                        )
                if kinds[code]:
                    if letters == 0:
                        start = i
                    letters += 1
                    i += size
                    # Most letters are ASCII.
                    while i < end and data[i] < 0x80 and kinds[data[i]]:
                        letters += 1
                        i += 1
                    size = 0
                    if i < end:
                        if data[i] >= 0x80:
                            continue
                        size = 1
                if letters > 1:
                    node = _find_word(data, start, i - start, state, slots, nodes, arena)
                    if node < 0 or nodes[node, 2] >= 0:
                        terms += _take(node, seen, state, slots, nodes, out)
                        seen += 1
                letters = 0
                i += size
            documents[d, 1] = state[WRITTEN]
            documents[d, 2] = terms
            state[SERIAL] += 1
            state[DONE] += 1


def place(
    state: cython.longlong[::1],
    slots: cython.longlong[::1],
    nodes: cython.longlong[:, ::1],
    arena: cython.const[cython.uchar][::1],
) -> None:
    """Fill an empty table with all nodes; behind the words in `arena` must be seven bytes more."""
    mask: cython.Py_ssize_t = slots.shape[0] // 2 - 1
    one: cython.longlong = 1
    node: cython.Py_ssize_t
    slot: cython.Py_ssize_t
    key: cython.longlong
    with cython.nogil:
        for node in range(state[NODES]):
            if nodes[node, 1] < 0:
                key = one << 60 | nodes[node, 0] << 30 | (-1 - nodes[node, 1])
            else:
                key = _word_key(arena, nodes[node, 0], nodes[node, 1])
            slot = _slot(key, mask)
            while slots[2 * slot + 1] != 0:
                slot = (slot + 1) & mask
            slots[2 * slot] = key
            slots[2 * slot + 1] = node + 1
