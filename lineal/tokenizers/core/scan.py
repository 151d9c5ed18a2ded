# cython: boundscheck=False, wraparound=False, legacy_implicit_noexcept=True
"""Where pieces start and end in UTF-8 bytes: the rules of `lineal.tokenizers.text.patterns`, in runs over memory.

First every byte gets the code of its character (`classify`). GPT-2's pattern is then a matter of a few neighbours: whether
it cuts before a byte follows from the codes of that byte, of the three before it and of the one after, so that no branch
depends on the text (`gpt2`). The other patterns go from piece to piece (`follow`).
"""

from __future__ import annotations

from array import array

import cython

CHUNK = 1 << 14


def gpt2_codes(lines: bool) -> bytes:
    """GPT-2's code of each ASCII character, then of each class, then of the later bytes of a character of that code.

    Two bits are the class: 0 marks, 1 letter, 2 number, 3 whitespace. The space is 7, the apostrophe 8, a line break that
    ends a text (`lines`) 11, a later byte of whitespace 19. Letters of contractions have a bit: s t m d 16, r v 32, e 64,
    l 128.
    """
    codes = bytearray(128 + 256 + 256)
    for bits in range(256):
        codes[128 + bits] = 3 if bits & 4 else bits & 3
        codes[384 + bits] = 19 if bits == 3 else bits
    for code in (9, 10, 11, 12, 13, 32):
        codes[code] = 3
    for code in range(26):
        codes[65 + code] = codes[97 + code] = 1
    for code in range(48, 58):
        codes[code] = 2
    for letters, mark in ((b"stmd", 16), (b"rv", 32), (b"e", 64), (b"l", 128)):
        for code in letters:
            codes[code] |= mark
    codes[32], codes[39] = 7, 8
    codes[10] = 11 if lines else 3
    return bytes(codes)


GPT2_CODES = (gpt2_codes(False), gpt2_codes(True))


@cython.cfunc
@cython.inline
@cython.nogil
def _follows(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.bint:
    """Whether a byte continues a character."""
    return (data[at] & 192) == 128


@cython.cfunc
@cython.inline
@cython.nogil
def _decode(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t, n: cython.Py_ssize_t) -> cython.int:
    """The character at a byte above 127, times four, plus one less than its length; -1 where there is none (RFC 3629)."""
    first: cython.int = data[at]
    code: cython.int
    if first < 0xC2 or first > 0xF4 or at + 1 >= n or not _follows(data, at + 1):
        return -1
    code = data[at + 1] & 63
    if first < 0xE0:
        return ((first & 31) << 6 | code) << 2 | 1
    if at + 2 >= n or not _follows(data, at + 2):
        return -1
    code = code << 6 | (data[at + 2] & 63)
    if first < 0xF0:
        code |= (first & 15) << 12
        return -1 if code < 0x800 or (code >> 11) == 27 else code << 2 | 2
    if at + 3 >= n or not _follows(data, at + 3):
        return -1
    code = (first & 7) << 18 | code << 6 | (data[at + 3] & 63)
    return -1 if code < 0x10000 or code > 0x10FFFF else code << 2 | 3


def classify(
    data: cython.const[cython.uchar][::1],
    codes: cython.const[cython.uchar][::1],
    table: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
) -> None:
    """The code of every byte; codes: as of `gpt2_codes`. A byte of no character gets the code of class 0."""
    n: cython.Py_ssize_t = len(data)
    with cython.nogil:
        _classify(data, codes, table, kinds, 0, 0, n)


@cython.cfunc
@cython.nogil
def _classify(
    data: cython.const[cython.uchar][::1],
    codes: cython.const[cython.uchar][::1],
    table: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
    shift: cython.Py_ssize_t,
    at: cython.Py_ssize_t,
    stop: cython.Py_ssize_t,
) -> cython.bint:
    """The codes of the characters from `at` to before `stop`, `shift` places on; whether some are wide whitespace."""
    n: cython.Py_ssize_t = len(data)
    more: cython.Py_ssize_t
    wide: cython.int = 0
    found: cython.int
    bits: cython.int
    code: cython.uchar
    while at < stop:
        if data[at] < 128:
            kinds[at + shift] = codes[data[at]]
            at += 1
            continue
        found = _decode(data, at, n)
        bits = 0
        more = 0
        if found >= 0:
            bits = table[found >> 2]
            more = found & 3
        wide |= bits & 4
        code = codes[128 + bits]
        kinds[at + shift] = code
        at += 1
        code = codes[384 + code]
        while more > 0:
            kinds[at + shift] = code
            at += 1
            more -= 1
    return wide != 0


@cython.cfunc
@cython.nogil
def _begin(data: cython.const[cython.uchar][::1], at: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The first byte of the character that the byte at `at` belongs to."""
    n: cython.Py_ssize_t = len(data)
    back: cython.Py_ssize_t = 1
    found: cython.int
    while back < 4 and back <= at and _follows(data, at - back + 1):
        found = _decode(data, at - back, n) if data[at - back] > 127 else -1
        if found >= 0 and (found & 3) >= back:
            return at - back
        back += 1
    return at


def scratch() -> tuple:
    """Room for one run of `gpt2_cuts`: codes after three of whitespace and one more, contractions, cuts, places."""
    places = array("q", bytes(8 * CHUNK + 8))
    return (
        bytearray(b"\3") * (CHUNK + 40),
        bytearray(CHUNK + 3),
        bytearray(CHUNK),
        places,
        memoryview(places).cast("B"),
    )


SPARE: list = []
"""Room that no call is using: a call takes some and gives it back, so that threads never share it."""


def gpt2(data: bytes, table: bytes, lines: bool) -> array:
    """The pieces of GPT-2's pattern; lines: each line is a text of its own."""
    n = len(data)
    if n == 0:
        return array("i")
    try:
        room = SPARE.pop()
    except IndexError:
        room = scratch()
    kinds, shorts, cuts, places, raw = room
    codes, found = GPT2_CODES[lines], array("i", (0,))
    for low in range(1, n, CHUNK):
        count = gpt2_cuts(data, codes, table, kinds, shorts, cuts, low, places)
        found.frombytes(raw[: 8 * count])
    SPARE.append(room)
    found.append(n)
    return found


def gpt2_cuts(
    data: cython.const[cython.uchar][::1],
    codes: cython.const[cython.uchar][::1],
    table: cython.const[cython.uchar][::1],
    kinds: cython.uchar[::1],
    shorts: cython.uchar[::1],
    cuts: cython.uchar[::1],
    low: cython.Py_ssize_t,
    places: cython.longlong[::1],
) -> cython.Py_ssize_t:
    """Write to `places` where GPT-2's pattern cuts from `low` on, as far as there is room, and return how many there are.

    Each is written as two equal halves of 32 bits: the end of a piece and the start of the next.
    """
    n: cython.Py_ssize_t = len(data)
    size: cython.Py_ssize_t = len(cuts)
    found: cython.Py_ssize_t
    begin: cython.Py_ssize_t
    stop: cython.Py_ssize_t
    wide: cython.bint
    i: cython.Py_ssize_t
    if size > n - low:
        size = n - low
    with cython.nogil:
        begin = _begin(data, low - 4) if low > 4 else 0
        stop = low + size + 4
        if stop > n:
            stop = n
        wide = _classify(data, codes, table, kinds, 4 - begin, begin, stop)
        if stop == n:
            # The end of the text is like whitespace that goes on.
            for i in range(4):
                kinds[n - begin + 4 + i] = 3
        _shorts(kinds, shorts, low - begin, low - begin + size)
        _cuts(kinds, shorts, cuts, low - begin, low - begin + size)
        if wide:
            _wide_spaces(kinds, cuts, low - begin, low - begin + size)
        found = _place(cuts, low, low + size, places)
    return found


@cython.cfunc
@cython.nogil
def _shorts(
    kinds: cython.uchar[::1], shorts: cython.uchar[::1], low: cython.Py_ssize_t, high: cython.Py_ssize_t
) -> cython.void:
    """1 where 's, 't, 'm or 'd is a piece, 2 where 're, 've or 'll is, from the third byte before `low` on.

    An apostrophe starts a piece unless marks or a space (7) stand before it.
    """
    i: cython.Py_ssize_t
    before: cython.uchar
    one: cython.uchar
    two: cython.uchar
    starts: cython.uchar
    base: cython.Py_ssize_t = low + 1
    for i in range(high - low + 3):
        before = kinds[base + i - 1]
        one = kinds[base + i + 1]
        two = kinds[base + i + 2]
        starts = (kinds[base + i] == 8) & ((before & 3) != 0) & (before != 7)
        shorts[i] = starts * (
            ((one >> 4) & 1) | ((((one >> 5) & (two >> 6)) | ((one >> 7) & (two >> 7))) & 1) << 1
        )


@cython.cfunc
@cython.nogil
def _cuts(
    kinds: cython.uchar[::1],
    shorts: cython.uchar[::1],
    cuts: cython.uchar[::1],
    low: cython.Py_ssize_t,
    high: cython.Py_ssize_t,
) -> cython.void:
    """1 at each byte before which GPT-2's pattern cuts, else 0."""
    i: cython.Py_ssize_t
    last: cython.uchar
    here: cython.uchar
    following: cython.uchar
    was_space: cython.uchar
    space: cython.uchar
    space_follows: cython.uchar
    cut: cython.uchar
    for i in range(high - low):
        last = kinds[low + i + 3]
        here = kinds[low + i + 4]
        following = kinds[low + i + 5]
        was_space = (last & 3) == 3
        space = (here & 3) == 3
        space_follows = ((following & 3) == 3) | (here == 11)
        cut = (
            ((was_space ^ 1) & (((last ^ here) & 3) != 0))
            | (was_space & (space ^ 1) & (last != 7))
            | (was_space & space & (space_follows ^ 1))
            | (last == 11)
        )
        cut &= shorts[i + 2] == 0
        cuts[i] = cut | (shorts[i + 1] & 1) | (shorts[i] >> 1)


@cython.cfunc
@cython.nogil
def _wide_spaces(
    kinds: cython.uchar[::1], cuts: cython.uchar[::1], low: cython.Py_ssize_t, high: cython.Py_ssize_t
) -> cython.void:
    """Mend the cuts at whitespace of several bytes, of which only the first can be one."""
    i: cython.Py_ssize_t
    after: cython.Py_ssize_t
    for i in range(low + 4, high + 4):
        if kinds[i] == 19:
            cuts[i - low - 4] = 0
        elif kinds[i] == 3 and kinds[i + 1] == 19:
            after = i + 1
            while kinds[after] == 19:
                after += 1
            if (kinds[i - 1] & 3) == 3 and kinds[i - 1] != 11:
                cuts[i - low - 4] = (kinds[after] & 3) != 3


@cython.cfunc
@cython.nogil
def _place(
    cuts: cython.uchar[::1], low: cython.Py_ssize_t, high: cython.Py_ssize_t, out: cython.longlong[::1]
) -> cython.Py_ssize_t:
    """The places that are marked, without a branch: each is written, and stays where it is a cut."""
    i: cython.Py_ssize_t
    found: cython.Py_ssize_t = 0
    twice: cython.longlong = 4294967297
    for i in range(high - low):
        out[found] = (low + i) * twice
        found += cuts[i]
    return found


def cut_before(data: bytes, symbol: bytes) -> array:
    """The text cut before each place where the symbol stands."""
    n = len(data)
    found, out = array("i", [0] if n else []), array("q", bytes(8 * min(n, CHUNK) + 8))
    room = memoryview(out)
    for low in range(1, n, CHUNK):
        count = _symbols(data, symbol, low, min(n, low + CHUNK), out)
        found.frombytes(room[:count].cast("B"))
    if n:
        found.append(n)
    return found


@cython.cfunc
@cython.exceptval(-1)
def _symbols(
    data: cython.const[cython.uchar][::1],
    symbol: cython.const[cython.uchar][::1],
    low: cython.Py_ssize_t,
    high: cython.Py_ssize_t,
    out: cython.longlong[::1],
) -> cython.Py_ssize_t:
    """The places of the symbol, each as two equal halves."""
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    found: cython.Py_ssize_t = 0
    twice: cython.longlong = 4294967297
    width: cython.Py_ssize_t = len(symbol)
    n: cython.Py_ssize_t = len(data)
    first: cython.uchar = symbol[0]
    with cython.nogil:
        for i in range(low, high):
            if data[i] == first and i + width <= n:
                k = 1
                while k < width and data[i + k] == symbol[k]:
                    k += 1
                if k == width:
                    out[found] = i * twice
                    found += 1
    return found
