"""Puts the bytes of ids together: the inner loop of decoding. Its plain form is `b"".join` of a piece for each id."""

from __future__ import annotations

import cython

if cython.compiled:
    from cython.cimports.libc.string import memcpy


@cython.boundscheck(False)
@cython.wraparound(False)
def join(ids: list, data: cython.const[cython.uchar][::1], start: cython.longlong[::1]) -> bytearray:
    """The pieces of ids one after the other; piece i is data[start[i]:start[i + 1]]. Ids without one are passed over.

    data: with 16 bytes more than the pieces have, since short ones are copied sixteen at a time.
    """
    size: cython.Py_ssize_t = start.shape[0] - 1
    count: cython.Py_ssize_t = len(ids)
    total: cython.Py_ssize_t = 0
    i: cython.Py_ssize_t
    at: cython.Py_ssize_t
    wide: cython.Py_ssize_t
    for i in range(count):
        at = ids[i]
        if 0 <= at < size:
            total += start[at + 1] - start[at]
    joined: bytearray = bytearray(total)
    if total == 0:
        return joined
    out: cython.uchar[::1] = joined
    place: cython.Py_ssize_t = 0
    for i in range(count):
        at = ids[i]
        if 0 <= at < size:
            wide = start[at + 1] - start[at]
            if wide:
                if cython.compiled and wide <= 16 and place + 16 <= total:
                    # Of a known size this is two instructions; what is too much is written over by the next.
                    memcpy(cython.address(out[place]), cython.address(data[start[at]]), 16)
                elif cython.compiled:
                    memcpy(cython.address(out[place]), cython.address(data[start[at]]), wide)
                else:
                    out[place : place + wide] = data[start[at] : start[at] + wide]
            place += wide
    return joined
