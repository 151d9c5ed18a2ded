"""BERT's normalisation of a UTF-8 text: each character becomes none to three others, by a table.

The table is in pages of 256 characters, made when they are first needed. The Python form is `Bert` in
`lineal.tokenizers.text.normalise`.
"""

from __future__ import annotations

import cython


@cython.boundscheck(False)
@cython.wraparound(False)
def replace_characters(
    data: cython.const[cython.uchar][::1],
    plain: cython.const[cython.uchar][::1],
    page_start: cython.const[cython.int][::1],
    made: cython.const[cython.longlong][::1],
    out: cython.uchar[::1],
    state: cython.longlong[::1],
) -> None:
    """Write what each character of valid UTF-8 becomes, as far as the table goes.

    plain [128]: what ASCII becomes, 255 for nothing. page_start: where in `made` the page of a character starts, -1 where
    it is missing. made: up to three characters in 21 bits each, the first lowest; -1 where the neighbours matter.
    out: at least three times as long as `data`. state: bytes read, bytes written, and the character that it stopped at
    (-1 at the end); it goes on from there.
    """
    size: cython.Py_ssize_t = data.shape[0]
    at: cython.Py_ssize_t = state[0]
    to: cython.Py_ssize_t = state[1]
    byte: cython.uint
    code: cython.uint
    width: cython.Py_ssize_t
    page: cython.int
    left: cython.longlong
    stopped: cython.longlong = -1
    with cython.nogil:
        while at < size:
            byte = data[at]
            if byte < 128:
                out[to] = plain[byte]
                to += plain[byte] < 128
                at += 1
                continue
            if byte < 0xE0:
                width = 2
                code = (byte & 31) << 6 | data[at + 1] & 63
            elif byte < 0xF0:
                width = 3
                code = (byte & 15) << 12 | (data[at + 1] & 63) << 6 | data[at + 2] & 63
            else:
                width = 4
                code = (
                    (byte & 7) << 18
                    | (data[at + 1] & 63) << 12
                    | (data[at + 2] & 63) << 6
                    | data[at + 3] & 63
                )
            page = page_start[code >> 8]
            left = -1 if page < 0 else made[page + (code & 255)]
            if left < 0:
                stopped = code
                break
            while left:
                code = left & 0x1FFFFF
                left >>= 21
                if code < 0x80:
                    out[to] = code
                    to += 1
                elif code < 0x800:
                    out[to] = 0xC0 | code >> 6
                    out[to + 1] = 0x80 | code & 63
                    to += 2
                elif code < 0x10000:
                    out[to] = 0xE0 | code >> 12
                    out[to + 1] = 0x80 | code >> 6 & 63
                    out[to + 2] = 0x80 | code & 63
                    to += 3
                else:
                    out[to] = 0xF0 | code >> 18
                    out[to + 1] = 0x80 | code >> 12 & 63
                    out[to + 2] = 0x80 | code >> 6 & 63
                    out[to + 3] = 0x80 | code & 63
                    to += 4
            at += width
    state[0], state[1], state[2] = at, to, stopped
