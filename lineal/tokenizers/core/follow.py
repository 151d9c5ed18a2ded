# cython: boundscheck=False, wraparound=False, legacy_implicit_noexcept=True
"""Where pieces start and end in UTF-8 bytes, from piece to piece: the rules of `lineal.tokenizers.text.patterns` but GPT-2's.

They go by the classes of the characters, which `lineal.tokenizers.core.scan.classify` wrote for every byte.
"""

from __future__ import annotations

from array import array

import cython

CHUNK = 1 << 14

# The bits of `lineal.tokenizers.text.unicode_table`, and one for the second and later bytes of a character.
LETTER = cython.declare(cython.int, 1)
NUMBER = cython.declare(cython.int, 2)
SPACE = cython.declare(cython.int, 4)
UPPER = cython.declare(cython.int, 8)
LOWER = cython.declare(cython.int, 16)
PUNCTUATION = cython.declare(cython.int, 32)
WORD = cython.declare(cython.int, 64)
INSIDE = cython.declare(cython.int, 128)


SPARE: list = []
"""Room that no call is using: a call takes some and gives it back, so that threads never share it."""


def scratch() -> tuple:
    """Room for one run: the place, and some pieces."""
    out = array("i", bytes(4 * CHUNK))
    return array("q", (0, 0, 0)), out, memoryview(out).cast("B")


def follow(
    data: bytes, kinds: bytearray, rule: int, settings: tuple[int, int, int], lines: bool, within: array
) -> array:
    """The pieces by a rule; settings: the bits of what is dropped, and two numbers that the rule knows (see `_end`).

    lines: each line is a text of its own. within: start, end, ... of the texts, when they are not the whole or its lines.
    """
    try:
        room = SPARE.pop()
    except IndexError:
        room = scratch()
    place, out, raw = room
    place[0] = place[1] = place[2] = 0
    found, count = array("i"), 1
    while count:
        count = _follow(data, kinds, rule, settings, lines, within, place, out)
        found.frombytes(raw[: 4 * count])
    SPARE.append(room)
    return found


@cython.cfunc
@cython.exceptval(-1)
def _follow(
    data: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
    rule: cython.int,
    settings: tuple,
    lines: cython.bint,
    within: cython.const[cython.int][::1],
    place: cython.longlong[::1],
    out: cython.int[::1],
) -> cython.Py_ssize_t:
    """Pieces from place[0] on, of the text that ends at place[1], until `out` is full or there are no more.

    place[2]: how many of the texts `within` were begun.
    """
    n: cython.Py_ssize_t = len(data)
    room: cython.Py_ssize_t = len(out) - 1
    texts: cython.Py_ssize_t = len(within) // 2
    found: cython.Py_ssize_t = 0
    at: cython.Py_ssize_t = place[0]
    stop: cython.Py_ssize_t = place[1]
    begun: cython.Py_ssize_t = place[2]
    drop: cython.int = settings[0]
    first: cython.int = settings[1]
    second: cython.int = settings[2]
    with cython.nogil:
        while found < room:
            if at == stop:
                if begun < texts:
                    at = within[2 * begun]
                    stop = within[2 * begun + 1]
                    begun += 1
                    continue
                if stop == n or texts > 0:
                    break
                stop = _line(data, at, n) if lines else n
            if drop:
                at = _run(kinds, at, stop, drop)
                if at == stop:
                    continue
            out[found] = at
            at = _end(data, kinds, at, stop, rule, first, second)
            out[found + 1] = at
            found += 2
    place[0] = at
    place[1] = stop
    place[2] = begun
    return found


@cython.cfunc
@cython.nogil
def _line(
    data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t, n: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """The end of the line at `at`, with its line break."""
    while at < n and data[at] != 10:
        at += 1
    return at + 1 if at < n else n


@cython.cfunc
@cython.nogil
def _end(
    data: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
    rule: cython.int,
    first: cython.int,
    second: cython.int,
) -> cython.Py_ssize_t:
    """The end of the piece at `at` in a text that ends at `n`; the rules are numbered as in `lineal.tokenizers.text.split`.

    cl100k and o200k: `first` digits at most; `second` for one piece of whitespace at the end, or for contractions. Matches:
    of bits `first`, `second` the behaviour by its place in `patterns.BEHAVIOURS`.
    """
    if rule == 0:
        return _cl100k(data, kinds, at, n, first, second)
    if rule == 1:
        return _o200k(data, kinds, at, n, first, second)
    if rule == 5:
        return _gpt2(data, kinds, at, n)
    if rule == 2:
        return _run(kinds, at, n, WORD) if kinds[at] & WORD else _until(kinds, at, n, WORD | SPACE)
    if rule == 3:
        return _next(kinds, at, n) if kinds[at] & PUNCTUATION else _until(kinds, at, n, PUNCTUATION | SPACE)
    return _segment(kinds, at, n, first, second)


@cython.cfunc
@cython.inline
@cython.nogil
def _run(
    kinds: cython.uchar[::1], at: cython.Py_ssize_t, n: cython.Py_ssize_t, bits: cython.int
) -> cython.Py_ssize_t:
    """The end of the characters that have one of these bits."""
    while at < n and kinds[at] & bits:
        at += 1
    return at


@cython.cfunc
@cython.inline
@cython.nogil
def _until(
    kinds: cython.uchar[::1], at: cython.Py_ssize_t, n: cython.Py_ssize_t, bits: cython.int
) -> cython.Py_ssize_t:
    """The end of the characters that have none of these bits."""
    while at < n and not kinds[at] & bits:
        at += 1
    return at


@cython.cfunc
@cython.inline
@cython.nogil
def _next(kinds: cython.uchar[::1], at: cython.Py_ssize_t, n: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The end of the character at `at`."""
    at += 1
    while at < n and kinds[at] & INSIDE:
        at += 1
    return at


@cython.cfunc
@cython.nogil
def _segment(
    kinds: cython.uchar[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
    bits: cython.int,
    behaviour: cython.int,
) -> cython.Py_ssize_t:
    """The end of a match, or of what lies between two, with what the behaviour joins to it."""
    match: cython.bint = (kinds[at] & bits) != 0
    end: cython.Py_ssize_t = _next(kinds, at, n) if match else _until(kinds, at, n, bits)
    if behaviour == 2 and not match and end < n:
        return _next(kinds, end, n)
    if behaviour == 3 and match:
        return _until(kinds, end, n, bits)
    if behaviour == 4 and match:
        return _run(kinds, end, n, bits)
    return end


@cython.cfunc
@cython.nogil
def _contraction(
    data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t, n: cython.Py_ssize_t, fold: cython.int
) -> cython.Py_ssize_t:
    """The end of a contraction, else `at`; fold: 32 for any case, where the long s, U+017F, is an s too, or 0."""
    one: cython.int
    two: cython.int
    if at + 1 >= n or data[at] != 39:
        return at
    one = data[at + 1] | fold
    if one == 115 or one == 116 or one == 109 or one == 100:
        return at + 2
    if at + 2 >= n:
        return at
    if fold and data[at + 1] == 0xC5 and data[at + 2] == 0xBF:
        return at + 3
    two = data[at + 2] | fold
    if ((one == 114 or one == 118) and two == 101) or (one == 108 and two == 108):
        return at + 3
    return at


@cython.cfunc
@cython.nogil
def _gpt2(
    data: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """`patterns.gpt2`, for texts that are parts of a text; whole ones go through `scan.gpt2`."""
    first: cython.Py_ssize_t = at + 1 if data[at] == 32 and at + 1 < n else at
    end: cython.Py_ssize_t = _contraction(data, at, n, 0)
    if end > at:
        return end
    if kinds[first] & LETTER:
        return _run(kinds, first, n, LETTER)
    if kinds[first] & NUMBER:
        return _run(kinds, first, n, NUMBER)
    if not kinds[first] & SPACE:
        return _until(kinds, first, n, LETTER | NUMBER | SPACE)
    return _whitespace(kinds, at, n)


@cython.cfunc
@cython.nogil
def _whitespace(kinds: cython.uchar[::1], at: cython.Py_ssize_t, n: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The end of whitespace, without its last character where text follows."""
    end: cython.Py_ssize_t = _run(kinds, at, n, SPACE)
    last: cython.Py_ssize_t = end - 1
    while kinds[last] & INSIDE:
        last -= 1
    return end if end == n or last == at else last


@cython.cfunc
@cython.nogil
def _cl100k(
    data: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
    digits: cython.int,
    whole: cython.int,
) -> cython.Py_ssize_t:
    """`patterns.cl100k`."""
    first: cython.Py_ssize_t = at
    end: cython.Py_ssize_t
    if not (kinds[at] & (LETTER | NUMBER) or data[at] == 13 or data[at] == 10):
        end = _contraction(data, at, n, 32)
        if end > at:
            return end
        first = _next(kinds, at, n)
    if first < n and kinds[first] & LETTER:
        return _run(kinds, first, n, LETTER)
    return _no_word(data, kinds, at, n, digits, whole, 10)


@cython.cfunc
@cython.nogil
def _o200k(
    data: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
    digits: cython.int,
    contractions: cython.int,
) -> cython.Py_ssize_t:
    """`patterns.o200k`: with a character in front, then without; with a small letter, then of capitals alone."""
    bare: cython.bint = (kinds[at] & (LETTER | NUMBER)) != 0 or data[at] == 13 or data[at] == 10
    first: cython.Py_ssize_t = at if bare else _next(kinds, at, n)
    end: cython.Py_ssize_t = _small(kinds, first, n)
    if end == first:
        end = at if bare else _small(kinds, at, n)
    if end == at:
        end = _run(kinds, first, n, UPPER)
        if end == first:
            end = at if bare else _run(kinds, at, n, UPPER)
    if end == at:
        return _no_word(data, kinds, at, n, digits, 0, 47)
    return _contraction(data, end, n, 32) if contractions else end


@cython.cfunc
@cython.nogil
def _small(kinds: cython.uchar[::1], at: cython.Py_ssize_t, n: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The end of capitals and then small letters, of which there must be one, else `at`."""
    capitals: cython.Py_ssize_t = _run(kinds, at, n, UPPER)
    end: cython.Py_ssize_t = _run(kinds, capitals, n, LOWER)
    if end > capitals:
        return end
    while capitals > at and not kinds[capitals - 1] & LOWER:
        capitals -= 1
    return capitals


@cython.cfunc
@cython.nogil
def _no_word(
    data: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
    at: cython.Py_ssize_t,
    n: cython.Py_ssize_t,
    digits: cython.int,
    whole: cython.int,
    after: cython.uchar,
) -> cython.Py_ssize_t:
    """The end of numbers, of marks with line breaks and `after` behind them, or of whitespace."""
    end: cython.Py_ssize_t = at
    last: cython.Py_ssize_t
    if kinds[at] & NUMBER:
        while end < n and kinds[end] & NUMBER and digits > 0:
            end = _next(kinds, end, n)
            digits -= 1
        return end
    last = at + 1 if data[at] == 32 else at
    end = _until(kinds, last, n, LETTER | NUMBER | SPACE)
    if end > last:
        while end < n and (data[end] == 13 or data[end] == 10 or data[end] == after):
            end += 1
        return end
    end = _run(kinds, at, n, SPACE)
    if not (whole and end == n):
        last = end
        while last > at and data[last - 1] != 10 and data[last - 1] != 13:
            last -= 1
        if last > at:
            return last
    return _whitespace(kinds, at, n)
