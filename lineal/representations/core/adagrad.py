# cython: boundscheck=False, wraparound=False, cdivision=True, legacy_implicit_noexcept=True
"""GloVe's steps on float32 rows: `lineal.representations.glove.learn`, which says what is computed, compiled.

A row of a table is a word's vector and after it, at half its length, the squared gradients that AdaGrad has summed.
"""

from __future__ import annotations

import cython

if cython.compiled:
    from cython.cimports.libc.math import expf, logf, sqrtf
else:
    from math import exp as expf
    from math import log as logf
    from math import sqrt as sqrtf

    prefetch = None
    """`adagrad.pxd` declares it: only the compiled form can ask for memory ahead of its use."""


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
def _move(x: cython.float[:, ::1], i: cython.Py_ssize_t, y: cython.float[:, ::1], k: cython.Py_ssize_t,
          size: cython.Py_ssize_t, gain: cython.float) -> cython.void:  # fmt: skip
    """AdaGrad's step of two vectors along each other, and of their sums."""
    j: cython.Py_ssize_t
    up: cython.float
    down: cython.float
    for j in range(size):
        up = gain * y[k, j]
        down = gain * x[i, j]
        x[i, j] -= up / sqrtf(x[i, size + j])
        y[k, j] -= down / sqrtf(y[k, size + j])
        x[i, size + j] += up * up
        y[k, size + j] += down * down


def learn(
    tables: tuple,
    rows: cython.const[cython.int][::1],
    columns: cython.const[cython.int][::1],
    counts: cython.const[cython.float][::1],
    settings: tuple,
    first: cython.Py_ssize_t,
    last: cython.Py_ssize_t,
) -> float:
    """Train on the pairs first .. last - 1; gives the sum of their losses.

    tables: (words, contexts, word biases, context biases). settings: (rate, x_max, alpha).
    """
    x: cython.float[:, ::1] = tables[0]
    y: cython.float[:, ::1] = tables[1]
    b: cython.float[:, ::1] = tables[2]
    c: cython.float[:, ::1] = tables[3]
    rate: cython.float = settings[0]
    x_max: cython.float = settings[1]
    alpha: cython.float = settings[2]
    size: cython.Py_ssize_t = x.shape[1] // 2
    total: cython.double = 0.0
    one: cython.float = 1.0
    half: cython.float = 0.5
    n: cython.Py_ssize_t
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    j: cython.Py_ssize_t
    off: cython.float
    weight: cython.float
    gain: cython.float
    with cython.nogil:
        for n in range(first, last):
            if n + 2 < last:
                _fetch(x, rows[n + 2])
                _fetch(y, columns[n + 2])
            i = rows[n]
            k = columns[n]
            off = 0.0
            for j in range(size):
                off += x[i, j] * y[k, j]
            off += b[i, 0] + c[k, 0] - logf(counts[n])
            weight = one if counts[n] >= x_max else expf(alpha * logf(counts[n] / x_max))
            total += half * weight * off * off
            gain = rate * weight * off
            _move(x, i, y, k, size, gain)
            b[i, 0] -= gain / sqrtf(b[i, 1])
            c[k, 0] -= gain / sqrtf(c[k, 1])
            b[i, 1] += gain * gain
            c[k, 1] += gain * gain
    return total
