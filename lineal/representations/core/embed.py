# cython: boundscheck=False, wraparound=False, cdivision=True, legacy_implicit_noexcept=True
"""word2vec's steps on float32 rows: `lineal.representations.steps.learn`, which says what is computed, compiled.

Rows are a multiple of 16 numbers long. While one word is learned, the rows of the next are fetched: the tables are larger
than the caches that are near, and a step is shorter than the wait for one row.
"""

from __future__ import annotations

import cython

if cython.compiled:
    from cython.cimports.libc.math import expf, logf
else:
    from math import exp as expf
    from math import log as logf

    prefetch = None
    """`embed.pxd` declares it: only the compiled form can ask for memory ahead of its use."""


@cython.cfunc
@cython.inline
@cython.nogil
def _mix(x: cython.ulonglong) -> cython.ulonglong:
    """SplitMix64's finaliser."""
    ones: cython.ulonglong = 0xFFFFFFFFFFFFFFFF
    one: cython.ulonglong = 0xBF58476D1CE4E5B9
    other: cython.ulonglong = 0x94D049BB133111EB
    x = ((x ^ (x >> 30)) * one) & ones
    x = ((x ^ (x >> 27)) * other) & ones
    return x ^ (x >> 31)


@cython.cfunc
@cython.inline
@cython.nogil
def _fetch(table: cython.float[:, ::1], row: cython.Py_ssize_t) -> cython.void:
    """Ask for a row ahead of its use, a line of 16 numbers at a time."""
    j: cython.Py_ssize_t
    if cython.compiled:
        for j in range(0, table.shape[1], 16):
            prefetch(cython.address(table[row, j]))


@cython.cfunc
@cython.inline
@cython.nogil
def _dots(
    x: cython.float[:, ::1],
    i: cython.Py_ssize_t,
    y: cython.float[:, ::1],
    rows: cython.int[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
    out: cython.float[::1],
    to: cython.Py_ssize_t,
) -> cython.void:
    """out[to + k] = x[i] . y[rows[at + k]] for n rows, four at a time."""
    width: cython.Py_ssize_t = x.shape[1]
    j: cython.Py_ssize_t
    k: cython.Py_ssize_t = 0
    a: cython.Py_ssize_t
    b: cython.Py_ssize_t
    c: cython.Py_ssize_t
    d: cython.Py_ssize_t
    s0: cython.float
    s1: cython.float
    s2: cython.float
    s3: cython.float
    while k + 4 <= n:
        a = rows[at + k]
        b = rows[at + k + 1]
        c = rows[at + k + 2]
        d = rows[at + k + 3]
        s0 = s1 = s2 = s3 = 0.0
        for j in range(width):
            s0 += x[i, j] * y[a, j]
            s1 += x[i, j] * y[b, j]
            s2 += x[i, j] * y[c, j]
            s3 += x[i, j] * y[d, j]
        out[to + k] = s0
        out[to + k + 1] = s1
        out[to + k + 2] = s2
        out[to + k + 3] = s3
        k += 4
    if k + 2 <= n:
        a = rows[at + k]
        b = rows[at + k + 1]
        s0 = s1 = 0.0
        for j in range(width):
            s0 += x[i, j] * y[a, j]
            s1 += x[i, j] * y[b, j]
        out[to + k] = s0
        out[to + k + 1] = s1
        k += 2
    if k < n:
        a = rows[at + k]
        s0 = 0.0
        for j in range(width):
            s0 += x[i, j] * y[a, j]
        out[to + k] = s0


@cython.cfunc
@cython.inline
@cython.nogil
def _mixed(
    to: cython.float[:, ::1],
    i: cython.Py_ssize_t,
    y: cython.float[:, ::1],
    rows: cython.int[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
    gain: cython.float[::1],
    first: cython.Py_ssize_t,
    each: cython.Py_ssize_t,
    adds: cython.bint,
) -> cython.void:
    """to[i] = sum over k of gain[first + k each] y[rows[at + k]], or += where `adds`; four rows at a time."""
    width: cython.Py_ssize_t = y.shape[1]
    j: cython.Py_ssize_t
    k: cython.Py_ssize_t = 0
    a: cython.Py_ssize_t
    b: cython.Py_ssize_t
    c: cython.Py_ssize_t
    d: cython.Py_ssize_t
    g0: cython.float
    g1: cython.float
    g2: cython.float
    g3: cython.float
    if not adds:
        for j in range(width):
            to[i, j] = 0.0
    while k + 4 <= n:
        a = rows[at + k]
        b = rows[at + k + 1]
        c = rows[at + k + 2]
        d = rows[at + k + 3]
        g0 = gain[first + k * each]
        g1 = gain[first + (k + 1) * each]
        g2 = gain[first + (k + 2) * each]
        g3 = gain[first + (k + 3) * each]
        for j in range(width):
            to[i, j] += g0 * y[a, j] + g1 * y[b, j] + g2 * y[c, j] + g3 * y[d, j]
        k += 4
    if k + 2 <= n:
        a = rows[at + k]
        b = rows[at + k + 1]
        g0 = gain[first + k * each]
        g1 = gain[first + (k + 1) * each]
        for j in range(width):
            to[i, j] += g0 * y[a, j] + g1 * y[b, j]
        k += 2
    if k < n:
        a = rows[at + k]
        g0 = gain[first + k * each]
        for j in range(width):
            to[i, j] += g0 * y[a, j]


@cython.cfunc
@cython.inline
@cython.nogil
def _exchange(x: cython.float[:, ::1], y: cython.float[:, ::1], rows: cython.int[::1], at: cython.Py_ssize_t,
              n: cython.Py_ssize_t, gain: cython.float[::1], change: cython.float[:, ::1]) -> cython.void:  # fmt: skip
    """change[0] = sum over k of gain[k] y[rows[at + k]], then y[rows[at + k]] += gain[k] x[0], in one go: no row comes twice."""
    width: cython.Py_ssize_t = y.shape[1]
    j: cython.Py_ssize_t
    k: cython.Py_ssize_t = 0
    a: cython.Py_ssize_t
    b: cython.Py_ssize_t
    g0: cython.float
    g1: cython.float
    y0: cython.float
    y1: cython.float
    for j in range(width):
        change[0, j] = 0.0
    while k + 2 <= n:
        a = rows[at + k]
        b = rows[at + k + 1]
        g0 = gain[k]
        g1 = gain[k + 1]
        for j in range(width):
            y0 = y[a, j]
            y1 = y[b, j]
            change[0, j] += g0 * y0 + g1 * y1
            y[a, j] = y0 + g0 * x[0, j]
            y[b, j] = y1 + g1 * x[0, j]
        k += 2
    if k < n:
        a = rows[at + k]
        g0 = gain[k]
        for j in range(width):
            y0 = y[a, j]
            change[0, j] += g0 * y0
            y[a, j] = y0 + g0 * x[0, j]


@cython.cfunc
@cython.inline
@cython.nogil
def _gains(gain: cython.float[::1], sign: cython.float[::1], loss: cython.float[::1], size: cython.Py_ssize_t,
           rate: cython.float) -> cython.double:  # fmt: skip
    """Products become gains, rate s sigmoid(-s product); gives the sum of losses. Both arrays have room for 16 more."""
    t: cython.Py_ssize_t
    k: cython.Py_ssize_t
    z: cython.float
    e: cython.float
    far: cython.float = 60.0
    one: cython.float = 1.0
    total: cython.double = 0.0
    for k in range(size, size + 16):
        gain[k] = 0.0
    for t in range(0, size, 16):
        # A count that the compiler knows: one instruction for sixteen of them.
        for k in range(16):
            z = sign[t + k] * gain[t + k]
            z = z if z < far else far
            z = z if z > -far else -far
            e = expf(-z)
            gain[t + k] = rate * sign[t + k] * e / (one + e)
            loss[t + k] = logf(one + e)
    for t in range(size):
        total += loss[t]
    return total


@cython.cfunc
@cython.inline
@cython.nogil
def _mean(to: cython.float[:, ::1], i: cython.Py_ssize_t, x: cython.float[:, ::1], bag: cython.int[::1],
          start: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.void:  # fmt: skip
    """to[i] = the mean of the rows bag[start .. end - 1] of x."""
    width: cython.Py_ssize_t = x.shape[1]
    share: cython.float = 1.0
    j: cython.Py_ssize_t
    k: cython.Py_ssize_t
    row: cython.Py_ssize_t = bag[start]
    for j in range(width):
        to[i, j] = x[row, j]
    if end - start > 1:
        for k in range(start + 1, end):
            row = bag[k]
            for j in range(width):
                to[i, j] += x[row, j]
        share = share / (end - start)
        for j in range(width):
            to[i, j] *= share


@cython.cfunc
@cython.inline
@cython.nogil
def _spread(
    x: cython.float[:, ::1],
    bag: cython.int[::1],
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    change: cython.float[:, ::1],
    i: cython.Py_ssize_t,
    whole: cython.bint,
) -> cython.void:
    """Add change[i] to the rows of a bag: to each its share, or the whole to each."""
    width: cython.Py_ssize_t = x.shape[1]
    share: cython.float = 1.0
    j: cython.Py_ssize_t
    k: cython.Py_ssize_t
    row: cython.Py_ssize_t
    if not whole:
        share = share / (end - start)
    for k in range(start, end):
        row = bag[k]
        for j in range(width):
            x[row, j] += share * change[i, j]


@cython.cfunc
@cython.inline
@cython.nogil
def _step(
    x: cython.float[:, ::1],
    y: cython.float[:, ::1],
    bag: cython.int[::1],
    each: cython.int[::1],
    m: cython.Py_ssize_t,
    rows: cython.int[::1],
    signs: cython.float[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
    rate: cython.float,
    whole: cython.bint,
    distinct: cython.bint,
    old: cython.float[:, ::1],
    change: cython.float[:, ::1],
    order: cython.int[::1],
    gain: cython.float[::1],
    sign: cython.float[::1],
    loss: cython.float[::1],
) -> cython.double:
    """One step of m inputs against n output rows (`steps.update`); everything is read before it is written.

    distinct: no output row comes twice, so that each may be written as soon as it was read.
    """
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    start: cython.Py_ssize_t = 0
    total: cython.double
    for i in range(m):
        _mean(old, i, x, bag, start, each[i])
        start = each[i]
    for i in range(m):
        _dots(old, i, y, rows, at, n, gain, i * n)
        for k in range(n):
            sign[i * n + k] = signs[at + k]
    total = _gains(gain, sign, loss, m * n, rate)
    if distinct and m == 1:
        _exchange(old, y, rows, at, n, gain, change)
    else:
        for i in range(m):
            _mixed(change, i, y, rows, at, n, gain, i * n, 1, False)
        for k in range(n):
            _mixed(y, rows[at + k], old, order, 0, m, gain, k, n, True)
    start = 0
    for i in range(m):
        _spread(x, bag, start, each[i], change, i, whole)
        start = each[i]
    return total


def learn(
    job: object,
    ids: cython.const[cython.int][::1],
    first: cython.Py_ssize_t,
    last: cython.Py_ssize_t,
    key: cython.ulonglong,
    done: cython.double,
) -> tuple[float, int]:
    """Train on the sentences that begin in first .. last - 1; gives the sum of losses and how many words were predicted.

    job: `word2vec.Flat`. key: of this epoch's draws. done: places that came before this epoch.
    """
    x: cython.float[:, ::1] = job.inputs
    y: cython.float[:, ::1] = job.outputs
    keep: cython.longlong[::1] = job.keep
    head: cython.longlong[::1] = job.head
    other: cython.int[::1] = job.other
    way_ends: cython.longlong[::1] = job.way_ends
    way_nodes: cython.int[::1] = job.way_nodes
    way_codes: cython.schar[::1] = job.way_codes
    part_ends: cython.longlong[::1] = job.part_ends
    part_rows: cython.int[::1] = job.part_rows
    words: cython.int[::1] = job.words
    bits: cython.ulonglong[::1] = job.bits
    rows: cython.int[::1] = job.rows
    row_ends: cython.int[:, ::1] = job.row_ends
    row_signs: cython.float[::1] = job.row_signs
    around: cython.int[:, ::1] = job.around
    order: cython.int[::1] = job.order
    bag: cython.int[::1] = job.bag_rows
    each: cython.int[::1] = job.each
    old: cython.float[:, ::1] = job.old
    change: cython.float[:, ::1] = job.change
    gain: cython.float[::1] = job.gain
    sign: cython.float[::1] = job.sign
    loss: cython.float[::1] = job.loss
    window: cython.ulonglong = job.window
    dynamic: cython.bint = job.dynamic
    negatives: cython.Py_ssize_t = job.negatives
    shared: cython.bint = job.shared
    bagged: cython.bint = job.bag
    tree: cython.bint = len(way_ends) > 0
    parted: cython.bint = len(part_ends) > 0
    highest: cython.double = job.rate
    final: cython.double = job.final_rate
    slope: cython.double = job.slope
    ones: cython.ulonglong = 0xFFFFFFFFFFFFFFFF
    low_half: cython.ulonglong = 0xFFFFFFFF
    golden: cython.ulonglong = 0x9E3779B97F4A7C15
    slots: cython.ulonglong = len(head)
    total: cython.double = 0.0
    predicted: cython.longlong = 0
    end: cython.Py_ssize_t = len(ids)
    place: cython.Py_ssize_t = first
    size: cython.Py_ssize_t
    i: cython.Py_ssize_t
    m: cython.Py_ssize_t
    n: cython.Py_ssize_t
    g: cython.Py_ssize_t
    k: cython.Py_ssize_t
    t: cython.Py_ssize_t
    half: cython.Py_ssize_t
    low: cython.Py_ssize_t
    high: cython.Py_ssize_t
    reach: cython.Py_ssize_t
    groups: cython.Py_ssize_t
    room: cython.Py_ssize_t = len(rows) // 2
    inputs: cython.Py_ssize_t
    at: cython.Py_ssize_t
    word: cython.int
    row: cython.int
    state: cython.ulonglong
    drawn: cython.ulonglong
    slot: cython.ulonglong
    rate: cython.double
    with cython.nogil:
        if place > 0:
            while place < end and ids[place - 1] != -1:
                place += 1
        while place < last and place < end:
            rate = highest - slope * (done + place)
            rate = rate if rate > final else final
            size = 0
            while place < end and ids[place] != -1:
                state = _mix((key + golden * (place + 1)) & ones)
                word = ids[place]
                if cython.cast(cython.longlong, state >> 32) < keep[word]:
                    words[size] = word
                    bits[size] = state
                    size += 1
                place += 1
            place += 1
            for i in range(size + 1):
                if i < size:
                    # What the i-th word will need, while the one before it is learned.
                    half = i & 1
                    state = bits[i]
                    word = words[i]
                    reach = window - ((state & 0xFFFF) * window >> 16 if dynamic else 0)
                    low = i - reach if i > reach else 0
                    high = i + reach + 1 if i + reach + 1 < size else size
                    around[half, 0] = low
                    around[half, 1] = high
                    groups = (1 if shared or bagged else high - low - 1) if high - low > 1 else 0
                    around[half, 2] = groups
                    if i + window < size and not parted:
                        _fetch(x, words[i + window])
                    at = half * room
                    if tree:
                        for t in range(way_ends[word - 1] if word > 0 else 0, way_ends[word]):
                            rows[at] = way_nodes[t]
                            row_signs[at] = 1 - 2 * way_codes[t]
                            _fetch(y, way_nodes[t])
                            at += 1
                        for g in range(groups):
                            row_ends[half, g] = at
                    else:
                        _fetch(y, word)
                        for g in range(groups):
                            rows[at] = word
                            row_signs[at] = 1.0
                            at += 1
                            for _ in range(negatives):
                                state = (state + golden) & ones
                                drawn = _mix(state)
                                slot = ((drawn >> 32) * slots) >> 32
                                if cython.cast(cython.longlong, drawn & low_half) < head[slot]:
                                    row = slot
                                else:
                                    row = other[slot]
                                if row != word:
                                    rows[at] = row
                                    row_signs[at] = -1.0
                                    _fetch(y, row)
                                    at += 1
                            row_ends[half, g] = at
                if i > 0:
                    half = (i - 1) & 1
                    t = around[half, 0]
                    high = around[half, 1]
                    at = half * room
                    for g in range(around[half, 2]):
                        # The inputs of this step: all of the window, or the next of them.
                        inputs = m = 0
                        while t < high and (shared or bagged or m == 0):
                            if t != i - 1:
                                word = words[t]
                                if parted:
                                    for k in range(part_ends[word - 1] if word > 0 else 0, part_ends[word]):
                                        bag[inputs] = part_rows[k]
                                        inputs += 1
                                else:
                                    bag[inputs] = word
                                    inputs += 1
                                m = m if bagged and m == 1 else m + 1
                                each[m - 1] = inputs
                            t += 1
                        n = row_ends[half, g] - at
                        total += _step(x, y, bag, each, m, rows, row_signs, at, n, rate, parted, tree,
                                       old, change, order, gain, sign, loss)  # fmt: skip
                        predicted += m
                        at = at if tree else row_ends[half, g]
    return total, predicted
