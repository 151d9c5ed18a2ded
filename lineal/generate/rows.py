"""What lies between the products of a one-token pass, on float32 rows: norm, rotation and attention, gate.

Compiled, each function is one run over memory. The NumPy form of each is in `lineal.generate.flat`, which chooses;
a property test holds the two together, and holds this file, run as Python, to them too.
"""

from __future__ import annotations

import cython

if cython.compiled:
    from cython.cimports.libc.math import expf, sqrtf, tanhf
else:
    from math import exp as expf
    from math import sqrt as sqrtf
    from math import tanh as tanhf

    prefetch = None
    """`rows.pxd` declares it: only the compiled form can ask for memory ahead of its use."""


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def add_norm(
    x: cython.float[:, ::1],
    added: cython.float[:, ::1] | None,
    weight: cython.float[::1] | None,
    bias: cython.float[::1] | None,
    out: cython.float[:, ::1],
    eps: cython.float,
) -> None:
    """x += added, then out = x / sqrt(mean(x^2) + eps) * weight row by row; with a bias, of x less its mean, plus it.

    added, weight: None leaves them out. out may be x.
    """
    rows: cython.Py_ssize_t = x.shape[0]
    width: cython.Py_ssize_t = x.shape[1]
    adds: cython.bint = added is not None
    weighs: cython.bint = weight is not None
    centres: cython.bint = bias is not None
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    total: cython.float
    mean: cython.float
    scale: cython.float
    with cython.nogil:
        for i in range(rows):
            if adds:
                for j in range(width):
                    x[i, j] += added[i, j]
            mean = 0.0
            if centres:
                for j in range(width):
                    mean += x[i, j]
                mean = mean / width
            total = 0.0
            for j in range(width):
                total += (x[i, j] - mean) * (x[i, j] - mean)
            scale = 1.0 / sqrtf(total / width + eps)
            for j in range(width):
                out[i, j] = (x[i, j] - mean) * scale
            if weighs:
                for j in range(width):
                    out[i, j] *= weight[j]
            if centres:
                for j in range(width):
                    out[i, j] += bias[j]


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def gate(up: cython.float[:, ::1], out: cython.float[:, ::1]) -> None:
    """out = silu(first half of up) * second half."""
    rows: cython.Py_ssize_t = out.shape[0]
    width: cython.Py_ssize_t = out.shape[1]
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    with cython.nogil:
        for i in range(rows):
            for j in range(width):
                out[i, j] = up[i, width + j] * up[i, j] / (1.0 + expf(-up[i, j]))


@cython.boundscheck(False)
@cython.wraparound(False)
def gelu(up: cython.float[:, ::1], out: cython.float[:, ::1]) -> None:
    """out = gelu(up) in its tanh form, x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    rows: cython.Py_ssize_t = out.shape[0]
    width: cython.Py_ssize_t = out.shape[1]
    i: cython.Py_ssize_t
    j: cython.Py_ssize_t
    x: cython.float
    root: cython.float = 0.7978845608028654
    cube: cython.float = 0.044715
    half: cython.float = 0.5
    one: cython.float = 1.0
    with cython.nogil:
        for i in range(rows):
            for j in range(width):
                x = up[i, j]
                out[i, j] = half * x * (one + tanhf(root * (x + cube * x * x * x)))


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def rotate(
    rows_NHD: cython.float[:, :, :],
    position_N: cython.longlong[::1],
    cos_SD: cython.float[:, ::1],
    sin_SD: cython.float[:, ::1],
) -> None:
    """x * cos + (second half, first half) * sin of each head, in place; `sin`'s first half is negative."""
    rows: cython.Py_ssize_t = rows_NHD.shape[0]
    heads: cython.Py_ssize_t = rows_NHD.shape[1]
    half: cython.Py_ssize_t = rows_NHD.shape[2] // 2
    i: cython.Py_ssize_t
    h: cython.Py_ssize_t
    j: cython.Py_ssize_t
    at: cython.Py_ssize_t
    first: cython.float
    second: cython.float
    with cython.nogil:
        for i in range(rows):
            at = position_N[i]
            for h in range(heads):
                for j in range(half):
                    first = rows_NHD[i, h, j]
                    second = rows_NHD[i, h, half + j]
                    rows_NHD[i, h, j] = first * cos_SD[at, j] + second * sin_SD[at, j]
                    rows_NHD[i, h, half + j] = second * cos_SD[at, half + j] + first * sin_SD[at, half + j]


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def attend(
    qkv_NHD: cython.float[:, :, ::1],
    store: cython.float[:, :, :, :, ::1],
    position_N: cython.longlong[::1],
    score_S: cython.float[::1],
    out_NHD: cython.float[:, :, ::1],
    first: cython.Py_ssize_t,
    last: cython.Py_ssize_t,
) -> None:
    """Write each row's key and value at its position, and mix the values up to it: softmax(q k' / sqrt(D)) v.

    qkv [N, queries + keys + values, D]; store [2, slots, keys, S, D] is the cache of one layer, row i its slot i.
    Only rows first..last-1, so that threads can share the work, each with its own `score_S` of at least span numbers.
    While keys are read, the values are fetched (16 numbers at a time, a line of a processor's cache), and while these are
    read, the next head's keys: a large cache is waited for half as long.
    """
    width: cython.Py_ssize_t = qkv_NHD.shape[2]
    keys: cython.Py_ssize_t = store.shape[2]
    group: cython.Py_ssize_t = out_NHD.shape[1] // keys
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    q: cython.Py_ssize_t
    t: cython.Py_ssize_t
    j: cython.Py_ssize_t
    span: cython.Py_ssize_t
    next_keys: cython.p_float
    total: cython.float
    most: cython.float
    scale: cython.float
    x: cython.float
    s0: cython.float
    s1: cython.float
    s2: cython.float
    s3: cython.float
    with cython.nogil:
        scale = 1.0 / sqrtf(width)
        for i in range(first, last):
            span = position_N[i] + 1
            for k in range(keys):
                for j in range(width):
                    store[0, i, k, span - 1, j] = qkv_NHD[i, (group + 0) * keys + k, j]
                    store[1, i, k, span - 1, j] = qkv_NHD[i, (group + 1) * keys + k, j]
                for q in range(k * group, (k + 1) * group):
                    most = -3e38
                    for t in range(0, span - 3, 4):
                        if cython.compiled:
                            for j in range(0, 4 * width, 16):
                                prefetch(cython.address(store[1, i, k, t, 0]) + j)
                        s0 = s1 = s2 = s3 = 0.0
                        for j in range(width):
                            x = qkv_NHD[i, q, j]
                            s0 += x * store[0, i, k, t, j]
                            s1 += x * store[0, i, k, t + 1, j]
                            s2 += x * store[0, i, k, t + 2, j]
                            s3 += x * store[0, i, k, t + 3, j]
                        score_S[t] = s0
                        score_S[t + 1] = s1
                        score_S[t + 2] = s2
                        score_S[t + 3] = s3
                    for t in range(span - span % 4, span):
                        total = 0.0
                        for j in range(width):
                            total += qkv_NHD[i, q, j] * store[0, i, k, t, j]
                        score_S[t] = total
                    for t in range(span):
                        most = score_S[t] if score_S[t] > most else most
                    total = 0.0
                    for t in range(span):
                        score_S[t] = expf((score_S[t] - most) * scale)
                        total += score_S[t]
                    if cython.compiled:
                        if k + 1 < keys:
                            next_keys = cython.address(store[0, i, k + 1, 0, 0])
                        else:
                            next_keys = cython.address(store[0, i + 1 if i + 1 < last else i, 0, 0, 0])
                    for j in range(width):
                        out_NHD[i, q, j] = 0.0
                    for t in range(0, span - 3, 4):
                        s0 = score_S[t]
                        s1 = score_S[t + 1]
                        s2 = score_S[t + 2]
                        s3 = score_S[t + 3]
                        if cython.compiled:
                            for j in range(0, 4 * width, 16):
                                prefetch(next_keys + t * width + j)
                        for j in range(width):
                            out_NHD[i, q, j] += (
                                s0 * store[1, i, k, t, j]
                                + s1 * store[1, i, k, t + 1, j]
                                + s2 * store[1, i, k, t + 2, j]
                                + s3 * store[1, i, k, t + 3, j]
                            )
                    for t in range(span - span % 4, span):
                        x = score_S[t]
                        for j in range(width):
                            out_NHD[i, q, j] += x * store[1, i, k, t, j]
                    total = 1.0 / total
                    for j in range(width):
                        out_NHD[i, q, j] *= total
