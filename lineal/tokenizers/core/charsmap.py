# cython: boundscheck=False, wraparound=False, cdivision=True
"""SentencePiece's normalisation of UTF-8 bytes in one run; the obvious form is in `lineal.tokenizers.text.charsmap`."""

from __future__ import annotations

import cython


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def longest_rule(
    data: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    units: cython.const[cython.uint][::1],
) -> cython.longlong:
    """The longest rule that matches at a position: 2^31 times its length, plus where its text begins; 0 for none.

    units: a double array as Darts-clone lays it out: from a node, byte c leads to node ^ offset ^ c if the label there is c.
    """
    size: cython.Py_ssize_t = len(units)
    i: cython.Py_ssize_t
    node: cython.uint
    unit: cython.uint
    byte: cython.uint
    # Literals that don't fit a signed int would become Python objects.
    label: cython.uint = (cython.cast(cython.uint, 128) << 24) | 255
    value: cython.uint = (cython.cast(cython.uint, 128) << 24) - 1
    found: cython.longlong = 0
    length: cython.longlong
    if size == 0:
        return found
    unit = units[0]
    node = (unit >> 10) << ((unit & 512) >> 6)
    for i in range(at, end):
        byte = data[i]
        node ^= byte
        if node >= size:
            break
        unit = units[node]
        if unit & label != byte:
            break
        node ^= (unit >> 10) << ((unit & 512) >> 6)
        if node >= size:
            break
        if (unit >> 8) & 1:
            length = i + 1 - at
            found = (length << 31) | (units[node] & value)
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def kept_length(
    data: cython.const[cython.uchar][::1],
    at: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    nodes: cython.const[cython.int][::1],
) -> cython.Py_ssize_t:
    """The length of the longest kept string that starts at a position, 0 for none."""
    longest: cython.Py_ssize_t = 0
    i: cython.Py_ssize_t
    node: cython.int = 0
    to: cython.int
    for i in range(at, end):
        to = nodes[4 * node] + data[i]
        if nodes[4 * to + 1] != node:
            return longest
        node = to
        if nodes[4 * node + 2] >= 0:
            longest = i + 1 - at
    return longest


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def character(byte: cython.int) -> cython.int:
    """The length of a character by its first byte."""
    if byte < 192:
        return 1
    if byte < 224:
        return 2
    return 3 if byte < 240 else 4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_space(out: cython.uchar[::1], at: cython.Py_ssize_t, escape: cython.bint) -> cython.Py_ssize_t:
    """Write a space, or the symbol for it, and return where the next byte goes."""
    if not escape:
        out[at] = 32
        return at + 1
    out[at] = 226
    out[at + 1] = 150
    out[at + 2] = 129
    return at + 3


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def without_trailing(out: cython.uchar[::1], at: cython.Py_ssize_t, escape: cython.bint) -> cython.Py_ssize_t:
    """The length of what was written less the spaces at its end."""
    if not escape:
        while at >= 1 and out[at - 1] == 32:
            at -= 1
        return at
    while at >= 3 and out[at - 3] == 226 and out[at - 2] == 150 and out[at - 1] == 129:
        at -= 3
    return at


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def first_kept(
    data: cython.const[cython.uchar][::1],
    end: cython.Py_ssize_t,
    units: cython.const[cython.uint][::1],
    texts: cython.const[cython.uchar][::1],
    keeps: cython.bint,
    nodes: cython.const[cython.int][::1],
) -> cython.Py_ssize_t:
    """Where a text begins when the spaces at its front are left out."""
    at: cython.Py_ssize_t = 0
    start: cython.Py_ssize_t
    found: cython.longlong
    start_mask: cython.longlong = 1
    start_mask = (start_mask << 31) - 1
    while at < end:
        if keeps and kept_length(data, at, end, nodes) > 0:
            return at
        found = longest_rule(data, at, end, units)
        start = found & start_mask
        if found == 0:
            if data[at] != 32:
                return at
            at += 1
        elif texts[start] == 32 and texts[start + 1] == 0:
            at += found >> 31
        else:
            return at
    return at


def beyond(units: cython.const[cython.uint][::1], size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The first unit that leads to a text that is not there, among `size` bytes of them; -1 when all are."""
    at: cython.Py_ssize_t
    wrong: cython.Py_ssize_t = -1
    leaf: cython.uint
    label: cython.uint = cython.cast(cython.uint, 128) << 24
    with cython.nogil:
        for at in range(len(units)):
            if (units[at] >> 8) & 1 and not units[at] & label:
                leaf = cython.cast(cython.uint, at) ^ ((units[at] >> 10) << ((units[at] & 512) >> 6))
                if leaf < len(units) and (units[leaf] & (label - 1)) >= size:
                    wrong = at
                    break
    return wrong


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def normalise(
    data: cython.const[cython.uchar][::1],
    units: cython.const[cython.uint][::1],
    texts: cython.const[cython.uchar][::1],
    plain: cython.const[cython.uchar][::1],
    nodes: cython.const[cython.int][::1],
    how: cython.int,
    out: cython.uchar[::1],
) -> cython.Py_ssize_t:
    """Write the normalised form of `data` to `out` and return its length, or -1 where `out` is too small."""
    keeps: cython.bint = len(nodes) > 0
    prefix: cython.bint = (how & 9) == 1
    extra: cython.bint = (how & 2) != 0
    escape: cython.bint = (how & 4) != 0
    suffix: cython.bint = (how & 9) == 9
    end: cython.Py_ssize_t = len(data)
    room: cython.Py_ssize_t = len(out)
    at: cython.Py_ssize_t = 0
    to: cython.Py_ssize_t = 0
    length: cython.Py_ssize_t
    source: cython.Py_ssize_t
    byte: cython.int
    found: cython.longlong
    start_mask: cython.longlong = 1
    start_mask = (start_mask << 31) - 1
    after_space: cython.bint = extra
    if extra:
        at = first_kept(data, end, units, texts, keeps, nodes)
    suffix = suffix and at < end
    if prefix and at < end and room >= 3:
        to = put_space(out, to, escape)
    while at < end:
        if to + 8 > room:
            to = -1
            break
        byte = data[at]
        if byte < 128 and plain[byte] and not keeps and (at + 1 == end or data[at + 1] < 128):
            at += 1
            if byte != 32:
                out[to] = byte
                to += 1
                after_space = False
            elif not after_space:
                to = put_space(out, to, escape)
                after_space = extra
            continue
        length = 0
        if keeps:
            length = kept_length(data, at, end, nodes)
        if length == 0:
            found = longest_rule(data, at, end, units)
            if found > 0:
                at += found >> 31
                source = found & start_mask
                while after_space and texts[source] == 32:
                    source += 1
                while texts[source] != 0 and to + 8 <= room:
                    after_space = texts[source] == 32
                    if after_space:
                        to = put_space(out, to, escape)
                    else:
                        out[to] = texts[source]
                        to += 1
                    source += 1
                if texts[source] != 0:
                    to = -1
                    break
                after_space = after_space and extra
                continue
            length = character(byte)
        if length > end - at:
            length = end - at
        if to + 3 * length + 3 > room:
            to = -1
            break
        source = at
        at += length
        while after_space and source < at and data[source] == 32:
            source += 1
        while source < at:
            byte = data[source]
            after_space = byte == 32
            if after_space:
                to = put_space(out, to, escape)
            else:
                out[to] = byte
                to += 1
            source += 1
        after_space = after_space and extra
    if to > 0 and extra:
        to = without_trailing(out, to, escape)
    if suffix and to >= 0:
        to = put_space(out, to, escape) if to + 3 <= room else -1
    return to


@cython.cclass
class Rewriter:
    """A normaliser of `lineal.tokenizers.text.charsmap`, ready to run; for any number of threads.

    units, texts: the charsmap's double array, and its replacements with a zero byte after each. plain: 1 for the
    bytes below 128 that no rule touches while the next byte is below 128 too. nodes: a trie (`double_array`) of strings
    that pass as they are, empty for none. how: 1 a space in front, 2 extra spaces removed, 4 spaces become their
    symbol, 8 the space goes to the end.
    """

    units: cython.const[cython.uint][::1]
    texts: cython.const[cython.uchar][::1]
    plain: cython.const[cython.uchar][::1]
    nodes: cython.const[cython.int][::1]
    how: cython.int

    def __init__(self, units: object, texts: bytes, plain: bytes, nodes: object, how: int):
        self.units, self.texts, self.plain, self.nodes, self.how = units, texts, plain, nodes, how

    def convert(self, data: bytes) -> bytes:
        """The normalised form of UTF-8 bytes."""
        view: cython.const[cython.uchar][::1] = data
        room: cython.Py_ssize_t = 3 * len(data) + 64
        length: cython.Py_ssize_t = -1
        while length < 0:
            memory = bytearray(room)
            out: cython.uchar[::1] = memory
            with cython.nogil:
                length = normalise(view, self.units, self.texts, self.plain, self.nodes, self.how, out)
            room *= 4
        if cython.compiled:
            return cython.cast(cython.p_char, cython.address(out[0]))[:length]
        return bytes(memory[:length])
