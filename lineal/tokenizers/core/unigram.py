# cython: initializedcheck=False, boundscheck=False, wraparound=False, cdivision=True
"""Cutting text by the best sum of scores: Viterbi over a trie, with a memory of words; the plain form is in `unigram`.

Scores are added as SentencePiece adds them, in single precision from the start of a text, so that near ties fall as they do
there. A word met before is not cut again while its best cut is ahead of the second by more than rounding can make up.
"""

from __future__ import annotations

from array import array

import cython

from lineal.tokenizers.core.arrays import filled, untouched

if cython.compiled:
    from cython.cimports.cpython.list import PyList_New, PyList_SET_ITEM
    from cython.cimports.cpython.ref import Py_INCREF
    from cython.cimports.libc.math import fabs
    from cython.cimports.libc.string import memcpy
else:
    from math import fabs

    prefetch = None  # of `unigram.pxd`: only the compiled form can ask for memory ahead of its use


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def word(
    text: cython.pointer[cython.const[cython.uchar]], at: cython.Py_ssize_t, size: cython.Py_ssize_t
) -> cython.ulonglong:
    """`size` bytes as one number, the first the lowest."""
    value: cython.ulonglong = 0
    if cython.compiled:
        memcpy(cython.address(value), text + at, size)
    else:
        value = int.from_bytes(text[at : at + size], "little")
    return value


@cython.cclass
class Encoder:
    """One vocabulary and the memory to work with; for one thread at a time.

    nodes: the trie of `double_array`. scores: of each id, and after them of an unknown character. sizes: bytes of each piece.
    cuts: 1 for each byte between which and the space symbol no piece reaches. bytes_of: the id of each byte, or none.
    unknown: the id for unknown characters, -1 to drop them. fuse: a run of them gives one id.
    """

    nodes: cython.const[cython.int][::1]
    scores: cython.const[cython.double][::1]
    sizes: cython.const[cython.int][::1]
    cuts: cython.const[cython.uchar][::1]
    bytes_of: cython.const[cython.int][::1]
    unknown: cython.int
    fuse: cython.bint
    strange: cython.int
    longest: cython.Py_ssize_t
    worst: cython.double
    far: cython.double
    data: cython.const[cython.uchar][::1]
    # A path to each place: its score, the place before, the token between.
    best: cython.float[::1]
    before: cython.int[::1]
    token: cython.int[::1]
    # The two best scores of each place in a word, and edges of a lattice chained by where they end.
    top: cython.double[::1]
    # Words met before. A line of 8 numbers is a word of up to 31 bytes and its length, up to 4 ids, how far to trust them
    # and their score in single precision (also seen as `gains`), and the number of ids, 256 more if one is strange.
    # More ids stand in `more`. A word has the choice of two lines.
    lines: cython.ulonglong[::1]
    gains: cython.float[::1]
    more: cython.int[::1]
    cut: cython.int[::1]
    shift: cython.int
    masks: cython.ulonglong[::1]
    keys: cython.ulonglong[::1]
    factor: cython.ulonglong
    second: cython.ulonglong
    full: cython.ulonglong
    text: cython.pointer[cython.const[cython.uchar]]
    # What comes out: ids so far, up to which one the running score goes, the score, a bound of its size.
    out: cython.int[::1]
    rewritten: cython.int[::1]
    numbers: list
    count: cython.Py_ssize_t
    summed: cython.Py_ssize_t
    running: cython.float[::1]
    rough: cython.double
    strangers: cython.Py_ssize_t

    def __init__(
        self,
        nodes: object,
        scores: object,
        sizes: object,
        cuts: bytes,
        bytes_of: object,
        unknown: int,
        fuse: bool,
        bits: cython.int = 16,
    ):
        self.nodes, self.scores, self.sizes, self.cuts, self.bytes_of = nodes, scores, sizes, cuts, bytes_of
        self.unknown, self.fuse, self.strange = unknown, fuse, len(scores) - 1
        self.worst, self.longest = max(map(abs, scores)), max(4, max(sizes, default=0))
        self.far = 100000
        if not 0 < bits < 28:
            raise ValueError(f"{bits} bits: the memory of words takes 1 to 27")
        memory = untouched("B", 128 << bits)
        self.lines, self.gains, self.more = memory.cast("Q"), memory.cast("f"), untouched("i", 256 << bits)
        self.cut, self.shift = filled("i", 32), 64 - bits
        self.factor, self.second, self.full = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, (1 << 64) - 1
        masks = b"".join(b"\xff" * size + b"\0" * (32 - size) for size in range(32))
        self.masks, self.keys = memoryview(array("Q", masks)), filled("Q", 80)
        self.numbers = list(range(len(scores)))
        self.running, self.top = filled("f", 2), filled("d", 64)
        self.make_room(1 << 16, 1 << 16)

    def make_room(self, size: int, stretch: int):
        """Memory for a text of so many bytes, of which so many have to be cut at a time."""
        self.best, self.before, self.token = filled("f", stretch), filled("i", stretch), filled("i", stretch)
        # Four ids are put out at once, though fewer count.
        self.out, self.rewritten = filled("i", size + 4), filled("i", size)

    def encode(self, data: bytes, spans: cython.const[cython.int][::1]) -> list:
        """Ids of the pieces of a text; spans: start, end, start, end, ..., within the text and in order."""
        size: cython.Py_ssize_t = len(data)
        cython.declare(i=cython.Py_ssize_t)
        last: cython.Py_ssize_t = 0
        # Kept here, since handing a memoryview on costs more than looking a word up.
        self.data = self.text = data
        if size >= len(self.rewritten) or (
            size >= len(self.best) and self.longest_stretch() >= len(self.best)
        ):
            self.make_room(max(size + 1, len(self.rewritten)), max(1 << 16, self.longest_stretch() + 1))
        for i in range(len(spans)):
            if spans[i] < last or spans[i] > size:
                raise ValueError("spans lie outside the text or are out of order")
            last = spans[i]
        self.count = 0
        with cython.nogil:
            for i in range(0, len(spans) - 1, 2):
                self.span(spans[i], spans[i + 1])
        self.data = b""
        found: list = self.given()
        if size > 1 << 22:
            self.make_room(1 << 16, 1 << 16)
        return found

    @cython.cfunc
    def given(self) -> list:
        """What came out, as Python's integers."""
        cython.declare(i=cython.Py_ssize_t)
        if not cython.compiled:
            return [self.numbers[self.out[i]] for i in range(self.count)]
        numbers: list = self.numbers
        ids: list = PyList_New(self.count)
        for i in range(self.count):
            number: object = numbers[self.out[i]]
            Py_INCREF(number)
            PyList_SET_ITEM(ids, i, number)
        return ids

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def longest_stretch(self) -> cython.Py_ssize_t:
        """The longest stretch of the text between symbols for a space that no piece reaches over."""
        size: cython.Py_ssize_t = len(self.data)
        longest: cython.Py_ssize_t = 0
        begin: cython.Py_ssize_t = 0
        i: cython.Py_ssize_t
        for i in range(1, size - 2):
            if (
                self.data[i] == 226
                and self.data[i + 1] == 150
                and self.data[i + 2] == 129
                and self.cuts[self.data[i - 1]]
            ):
                longest = max(longest, i - begin)
                begin = i
        return max(longest, size - begin)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def span(self, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.void:
        """Append the ids of one piece, word by word."""
        first: cython.Py_ssize_t = self.count
        begin: cython.Py_ssize_t = at
        words: cython.Py_ssize_t = 0
        done: cython.Py_ssize_t = 0
        cython.declare(start=cython.Py_ssize_t, last=cython.Py_ssize_t, i=cython.Py_ssize_t)
        data: cython.const[cython.uchar][::1] = self.data
        cuts: cython.const[cython.uchar][::1] = self.cuts
        stops: cython.int[::1] = self.rewritten
        self.summed = self.count
        self.running[0] = 0
        self.rough = 0
        self.strangers = 0
        # Where words end is found first, and without branches, which nobody could foretell.
        for i in range(at + 1, end - 2):
            stops[words] = cython.cast(cython.int, i)
            words += (data[i] == 226) & (data[i + 1] == 150) & (data[i + 2] == 129) & (cuts[data[i - 1]] != 0)
        if at < end:
            stops[words] = cython.cast(cython.int, end)
            words += 1
        while done < words:
            # Sixteen words' lines are asked for, then read: memory takes its time.
            start = begin
            last = min(done + 16, words)
            for i in range(done, last):
                self.ask(start, stops[i], 5 * (i - done))
                start = stops[i]
            for i in range(done, last):
                if stops[i] - begin > 31 or not self.known(begin, stops[i], 5 * (i - done)):
                    self.exactly(begin, stops[i])
                begin = stops[i]
            done = last
        if self.strangers > 0:
            self.rewrite(at, first)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def ask(self, at: cython.Py_ssize_t, stop: cython.Py_ssize_t, key: cython.Py_ssize_t) -> cython.void:
        """Put a word as four numbers, and the first line where it may be, into `keys`."""
        size: cython.Py_ssize_t = min(stop - at, 31)
        text: cython.pointer[cython.const[cython.uchar]] = self.text
        full: cython.ulonglong = self.full
        cython.declare(a=cython.ulonglong, b=cython.ulonglong, c=cython.ulonglong, d=cython.ulonglong)
        if at + 32 <= len(self.data):
            a, b = word(text, at, 8), word(text, at + 8, 8)
            c, d = word(text, at + 16, 8), word(text, at + 24, 8)
        else:
            a = word(text, at, min(size, 8))
            b = word(text, at + 8, min(max(size - 8, 0), 8))
            c = word(text, at + 16, min(max(size - 16, 0), 8))
            d = word(text, at + 24, max(size - 24, 0))
        a &= self.masks[4 * size]
        b &= self.masks[4 * size + 1]
        c &= self.masks[4 * size + 2]
        d = (d & self.masks[4 * size + 3]) | cython.cast(cython.ulonglong, size) << 56
        self.keys[key], self.keys[key + 1], self.keys[key + 2], self.keys[key + 3] = a, b, c, d
        a = ((a ^ (b * self.second & full)) * self.factor) ^ ((c ^ (d * self.factor & full)) * self.second)
        a = 16 * ((a & full) >> self.shift)
        self.keys[key + 4] = a
        if cython.compiled:
            prefetch(cython.address(self.lines[a]))

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def known(self, at: cython.Py_ssize_t, stop: cython.Py_ssize_t, key: cython.Py_ssize_t) -> cython.bint:
        """Append the ids of a word from memory, where it is put if it isn't there; False when its best cut is in doubt."""
        line: cython.Py_ssize_t = self.keys[key + 4]
        miss: cython.ulonglong = 0
        cython.declare(count=cython.Py_ssize_t, i=cython.Py_ssize_t)
        for i in range(4):
            miss |= self.lines[line + i] ^ self.keys[key + i]
        # Which line of the two it is can't be foretold either.
        line += 8 * (miss != 0)
        miss = 0
        for i in range(4):
            miss |= self.lines[line + i] ^ self.keys[key + i]
        if miss != 0:
            line -= 8
            self.remember(at, stop, line)
            for i in range(4):
                self.lines[line + i] = self.keys[key + i]
        if self.rough >= self.gains[2 * line + 12]:
            return False
        count = self.lines[line + 7] & 255
        if count < 5:
            for i in range(2):
                self.out[self.count + 2 * i] = self.lines[line + 4 + i] & 0x7FFFFFFF
                self.out[self.count + 2 * i + 1] = self.lines[line + 4 + i] >> 32
        else:
            for i in range(count):
                self.out[self.count + i] = self.more[4 * line + i]
        self.count += count
        self.strangers += self.lines[line + 7] >> 8
        self.rough += self.gains[2 * line + 13]
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def remember(
        self, at: cython.Py_ssize_t, stop: cython.Py_ssize_t, line: cython.Py_ssize_t
    ) -> cython.void:
        """Cut a word and put what is known of it into a line; what was there moves to the next."""
        lines: cython.ulonglong[::1] = self.lines
        more: cython.int[::1] = self.more
        cut: cython.int[::1] = self.cut
        size: cython.Py_ssize_t = stop - at
        steps: cython.Py_ssize_t = 0
        characters: cython.Py_ssize_t = 0
        strange: cython.bint = False
        cython.declare(i=cython.Py_ssize_t, left=cython.Py_ssize_t, margin=cython.double, limit=cython.double)
        for i in range(8):
            lines[line + 8 + i] = lines[line + i]
        if lines[line + 7] & 255 > 4:
            for i in range(lines[line + 7] & 255):
                more[4 * line + 32 + i] = more[4 * line + i]
        margin = self.two_best(at, stop)
        i = size
        while i > 0:
            i = self.before[i]
            steps += 1
        left = steps
        i = size
        while i > 0:
            left -= 1
            cut[left] = self.token[i]
            strange = strange or self.token[i] == self.strange
            i = self.before[i]
        if steps > 4:
            for i in range(steps):
                more[4 * line + i] = cut[i]
        for i in range(size):
            characters += (self.data[at + i] & 192) != 128
        # A sum of n terms, none of its steps beyond T in size, is off by at most n T 2^-24. The best cut has `steps` terms,
        # any other at most `characters`, and T is at most the score before the word and `characters` of the worst.
        limit = min(margin * 16777216 / (steps + characters), self.far - 1000) - characters * self.worst
        for i in range(2):
            lines[line + 4 + i] = cython.cast(cython.ulonglong, cut[2 * i + 1]) << 32 | cut[2 * i]
        lines[line + 7] = (cython.cast(cython.ulonglong, strange) << 8) | steps
        # Less and more by what single precision may round off.
        self.gains[2 * line + 12] = limit * 0.999999 if limit > 0 else 0
        self.gains[2 * line + 13] = (fabs(self.top[2 * size]) + 1) * 1.000001

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def two_best(self, at: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> cython.double:
        """The best path of a short word in `before` and `token`, in double precision, and by how much the second is behind."""
        size: cython.Py_ssize_t = stop - at
        never: cython.double = -1e300
        cython.declare(i=cython.Py_ssize_t, j=cython.Py_ssize_t, length=cython.Py_ssize_t, node=cython.int)
        cython.declare(to=cython.int, single=cython.bint)
        for i in range(2 * size + 2):
            self.top[i] = never
        self.top[0] = 0
        i = 0
        while i < size:
            length = length_of(self.data[at + i], size - i)
            single = False
            node = 0
            for j in range(i, size):
                to = self.nodes[4 * node] + self.data[at + j]
                if self.nodes[4 * to + 1] != node:
                    break
                node = to
                if self.nodes[4 * node + 2] >= 0:
                    self.extend(i, j + 1, self.nodes[4 * node + 2])
                    single = single or j + 1 - i == length
            if not single:
                self.extend(i, i + length, self.strange)
            i += length
        return self.top[2 * size] - self.top[2 * size + 1]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def extend(self, start: cython.Py_ssize_t, end: cython.Py_ssize_t, token: cython.int) -> cython.void:
        """Lengthen the two best paths to one place by a token."""
        one: cython.double = self.top[2 * start] + self.scores[token]
        two: cython.double = self.top[2 * start + 1] + self.scores[token]
        if one > self.top[2 * end]:
            if self.top[2 * end] > two:
                two = self.top[2 * end]
            self.top[2 * end] = one
            self.before[end] = cython.cast(cython.int, start)
            self.token[end] = token
        elif one > two:
            two = one
        if two > self.top[2 * end + 1]:
            self.top[2 * end + 1] = two

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def exactly(self, at: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> cython.void:
        """Append the ids of a stretch of text, its scores added to those of all before it, in single precision."""
        size: cython.Py_ssize_t = stop - at
        cython.declare(i=cython.Py_ssize_t, j=cython.Py_ssize_t, length=cython.Py_ssize_t)
        cython.declare(steps=cython.Py_ssize_t, node=cython.int, token=cython.int, to=cython.int)
        cython.declare(single=cython.bint, total=cython.float)
        data: cython.const[cython.uchar][::1] = self.data
        nodes: cython.const[cython.int][::1] = self.nodes
        scores: cython.const[cython.double][::1] = self.scores
        best: cython.float[::1] = self.best
        before: cython.int[::1] = self.before
        tokens: cython.int[::1] = self.token
        out: cython.int[::1] = self.out
        while self.summed < self.count:
            self.running[0] = self.rounded(self.running[0] + scores[out[self.summed]])
            self.summed += 1
        best[0] = self.running[0]
        for i in range(1, size + 1):
            before[i] = -1
        i = 0
        while i < size:
            if fabs(best[i]) > self.far:
                for j in range(i + 1, min(size, i + self.longest) + 1):
                    best[j] = self.rounded(best[j] - best[i])
                best[i] = 0
            length = length_of(data[at + i], size - i)
            single = False
            node = 0
            for j in range(i, size):
                to = nodes[4 * node] + data[at + j]
                if nodes[4 * to + 1] != node:
                    break
                node = to
                token = nodes[4 * node + 2]
                if token < 0:
                    continue
                total = self.rounded(best[i] + scores[token])
                if before[j + 1] < 0 or total > best[j + 1]:
                    best[j + 1] = total
                    before[j + 1] = cython.cast(cython.int, i)
                    tokens[j + 1] = token
                single = single or j + 1 - i == length
            if not single:
                j = i + length
                total = self.rounded(best[i] + scores[self.strange])
                if before[j] < 0 or total > best[j]:
                    best[j] = total
                    before[j] = cython.cast(cython.int, i)
                    tokens[j] = self.strange
            i += length
        steps = 0
        i = size
        while i > 0:
            i = before[i]
            steps += 1
        self.count += steps
        i = size
        while i > 0:
            steps -= 1
            out[self.summed + steps] = tokens[i]
            self.strangers += tokens[i] == self.strange
            i = before[i]
        self.summed = self.count
        self.running[0] = best[size]
        self.rough = fabs(best[size]) + 1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def rounded(self, value: cython.double) -> cython.float:
        """A number in single precision, compiled or not."""
        if cython.compiled:
            return cython.cast(cython.float, value)
        self.running[1] = value
        return self.running[1]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def rewrite(self, at: cython.Py_ssize_t, first: cython.Py_ssize_t) -> cython.void:
        """Say what becomes of unknown characters: bytes, or the unknown id, once for a run of them if they fuse."""
        to: cython.Py_ssize_t = first
        cython.declare(i=cython.Py_ssize_t, j=cython.Py_ssize_t, length=cython.Py_ssize_t)
        runs: cython.bint = False
        for i in range(first, self.count):
            self.rewritten[i] = self.out[i]
        i = first
        # Bytes may be more than the tokens read so far, so the ids are read from a copy.
        for i in range(first, self.count):
            if self.rewritten[i] != self.strange:
                self.out[to] = self.rewritten[i]
                to += 1
                at += self.sizes[self.rewritten[i]]
                runs = False
                continue
            length = length_of(self.data[at], len(self.data) - at)
            if len(self.bytes_of) > 0:
                for j in range(at, at + length):
                    self.out[to] = self.bytes_of[self.data[j]]
                    to += 1
            elif self.unknown >= 0 and not (runs and self.fuse):
                self.out[to] = self.unknown
                to += 1
            at += length
            runs = True
        self.count = to


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def length_of(byte: cython.int, most: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """The length of a character by its first byte, at most so many."""
    length: cython.Py_ssize_t = 1 + (byte >= 192) + (byte >= 224) + (byte >= 240)
    return length if length < most else most
