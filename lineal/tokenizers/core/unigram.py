# cython: boundscheck=False, wraparound=False, cdivision=True
"""Cutting text by the best sum of scores: Viterbi over a trie, with a memory of words; the plain form is in `unigram`.

Scores are added as SentencePiece adds them, in single precision from the start of a text, so that near ties fall as they do
there. A word met before is not cut again while its best cut is ahead of the second by more than rounding can make up.
"""

from __future__ import annotations

from array import array

import cython

if cython.compiled:
    from cython.cimports.libc.math import fabs
    from cython.cimports.libc.string import memcmp, memcpy
else:
    from math import fabs


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
    # Words, in one memory that has four names: `many` slots of 64 bytes, each with what is looked for, where word and ids
    # are, how far to trust them, their score, and 32 bytes for both; behind the slots is room for longer ones. The ids
    # stand behind the word, from the next place divisible by four; `used` is the end of what is taken, in fours.
    slots: cython.longlong[::1]
    gains: cython.double[::1]
    words: cython.uchar[::1]
    ids: cython.int[::1]
    many: cython.Py_ssize_t
    used: cython.Py_ssize_t
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
        slots: int = 1 << 16,
    ):
        self.nodes = nodes
        self.scores, self.sizes, self.cuts, self.bytes_of = scores, sizes, cuts, bytes_of
        self.unknown, self.fuse = unknown, fuse
        self.strange = len(scores) - 1
        self.worst, self.longest = max(map(abs, scores)), max(4, max(sizes, default=0))
        self.far = 100000
        # As much again for the words that a slot has no room for.
        memory = bytearray(128 * slots + 1024)
        self.words, self.ids = memory, memoryview(memory).cast("i")
        self.slots, self.gains = memoryview(memory).cast("q"), memoryview(memory).cast("d")
        self.many, self.used = slots, 16 * slots
        self.numbers = list(range(len(scores)))
        self.running = array("f", bytes(8))
        self.top = array("d", bytes(16 * 66))
        self.make_room(1 << 16, 1 << 16)

    def make_room(self, size: int, stretch: int):
        """Memory for a text of so many bytes, of which so many have to be cut at a time."""
        self.best = memoryview(bytearray(4 * stretch)).cast("f")
        self.before = memoryview(bytearray(4 * stretch)).cast("i")
        self.token = memoryview(bytearray(4 * stretch)).cast("i")
        self.out = memoryview(bytearray(4 * size)).cast("i")
        self.rewritten = memoryview(bytearray(4 * size)).cast("i")

    def encode(self, data: cython.const[cython.uchar][::1], spans: cython.const[cython.int][::1]) -> list:
        """Ids of the pieces of a text; spans: start, end, start, end, ..., within the text and in order."""
        size: cython.Py_ssize_t = len(data)
        i: cython.Py_ssize_t
        last: cython.Py_ssize_t = 0
        # Kept here, since handing a memoryview on costs more than looking a word up.
        self.data = data
        if size >= len(self.out) or (size >= len(self.best) and self.longest_stretch() >= len(self.best)):
            self.make_room(max(size + 1, len(self.out)), max(1 << 16, self.longest_stretch() + 1))
        for i in range(len(spans)):
            if spans[i] < last or spans[i] > size:
                raise ValueError("spans lie outside the text or are out of order")
            last = spans[i]
        self.count = 0
        with cython.nogil:
            for i in range(0, len(spans) - 1, 2):
                self.span(spans[i], spans[i + 1])
        self.data = b""
        found: list = [0] * self.count
        for i in range(self.count):
            found[i] = self.numbers[self.out[i]]
        if size > 1 << 22:
            self.make_room(1 << 16, 1 << 16)
        return found

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def word_end(self, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Where the stretch that begins at a place ends: before the next space symbol that no piece reaches over."""
        stop: cython.Py_ssize_t = at + 1
        while stop < end:
            if (
                self.data[stop] == 226
                and stop + 2 < end
                and self.data[stop + 1] == 150
                and self.data[stop + 2] == 129
                and self.cuts[self.data[stop - 1]]
            ):
                break
            stop += 1
        return stop

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def longest_stretch(self) -> cython.Py_ssize_t:
        """The longest stretch of the text."""
        size: cython.Py_ssize_t = len(self.data)
        longest: cython.Py_ssize_t = 0
        at: cython.Py_ssize_t = 0
        stop: cython.Py_ssize_t
        while at < size:
            stop = self.word_end(at, size)
            longest = max(longest, stop - at)
            at = stop
        return longest

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def span(self, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.void:
        """Append the ids of one piece, word by word."""
        first: cython.Py_ssize_t = self.count
        start: cython.Py_ssize_t = at
        stop: cython.Py_ssize_t
        i: cython.Py_ssize_t
        mask: cython.longlong = 1
        key: cython.longlong
        mask = (mask << 32) - 1
        self.summed = self.count
        self.running[0] = 0
        self.rough = 0
        self.strangers = 0
        while at < end:
            stop = self.word_end(at, end)
            key = 16777619
            for i in range(at, min(stop, at + 65)):
                key = ((key ^ self.data[i]) * 16777619) & mask
            if stop - at > 64 or not self.known(at, stop, key):
                self.exactly(at, stop)
            at = stop
        if self.strangers > 0:
            self.rewrite(start, first)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def known(
        self,
        at: cython.Py_ssize_t,
        stop: cython.Py_ssize_t,
        key: cython.longlong,
    ) -> cython.bint:
        """Append the ids of a word from memory, where it is put if it isn't there; False when its best cut is in doubt."""
        size: cython.Py_ssize_t = stop - at
        mask: cython.Py_ssize_t = self.many - 1
        home: cython.Py_ssize_t = (key ^ (key >> 15)) & mask
        slot: cython.Py_ssize_t = home
        place: cython.longlong
        where: cython.Py_ssize_t
        i: cython.Py_ssize_t
        tries: cython.int
        key = (key << 8) | size
        for tries in range(4):
            slot = (home + tries) & mask
            if self.slots[8 * slot] == 0:
                break
            if self.slots[8 * slot] == key and self.same(4 * (self.slots[8 * slot + 1] >> 8), at, size):
                break
        else:
            slot = home
            self.slots[8 * slot] = 0
        if self.slots[8 * slot] == 0:
            slot = self.remember(at, stop, key, slot)
        if self.rough >= self.gains[8 * slot + 2]:
            return False
        place = self.slots[8 * slot + 1]
        where = (place >> 8) + (size + 3) // 4
        size = place & 127
        if cython.compiled:
            memcpy(cython.address(self.out[self.count]), cython.address(self.ids[where]), 4 * size)
        else:
            for i in range(size):
                self.out[self.count + i] = self.ids[where + i]
        self.count += size
        self.strangers += (place >> 7) & 1
        self.rough += self.gains[8 * slot + 3]
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def same(self, where: cython.Py_ssize_t, at: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.bint:
        """Whether the word remembered at `where` is the one at `at`."""
        i: cython.Py_ssize_t
        if cython.compiled:
            return memcmp(cython.address(self.words[where]), cython.address(self.data[at]), size) == 0
        for i in range(size):  # noqa: SIM110 (a generator would be a Python object)
            if self.words[where + i] != self.data[at + i]:
                return False
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def remember(
        self,
        at: cython.Py_ssize_t,
        stop: cython.Py_ssize_t,
        key: cython.longlong,
        slot: cython.Py_ssize_t,
    ) -> cython.Py_ssize_t:
        """Cut a word and put it into memory; all is forgotten first when the memory is full. Returns its slot."""
        size: cython.Py_ssize_t = stop - at
        i: cython.Py_ssize_t
        steps: cython.Py_ssize_t = 0
        characters: cython.Py_ssize_t = 0
        where: cython.Py_ssize_t
        last: cython.Py_ssize_t
        strange: cython.bint = False
        margin: cython.double
        limit: cython.double
        if self.used + 2 * size > len(self.ids):
            for i in range(self.many):
                self.slots[8 * i] = 0
            self.used = 16 * self.many
        margin = self.two_best(at, stop)
        i = size
        while i > 0:
            i = self.before[i]
            steps += 1
        i = size
        where = 16 * slot + 8
        if (size + 3) // 4 + steps > 8:
            where = self.used
            self.used += (size + 3) // 4 + steps
        last = where + (size + 3) // 4 + steps
        while i > 0:
            last -= 1
            self.ids[last] = self.token[i]
            strange = strange or self.token[i] == self.strange
            i = self.before[i]
        for i in range(size):
            self.words[4 * where + i] = self.data[at + i]
            characters += (self.data[at + i] & 192) != 128
        # A sum of n terms, none of its steps beyond T in size, is off by at most n T 2^-24. The best cut has `steps` terms,
        # any other at most `characters`, and T is at most the score before the word and `characters` of the worst.
        limit = margin * 16777216 / (steps + characters)
        if limit > self.far - 1000:
            limit = self.far - 1000
        limit -= characters * self.worst
        self.slots[8 * slot] = key
        self.slots[8 * slot + 1] = (cython.cast(cython.longlong, where) << 8) | (strange << 7) | steps
        self.gains[8 * slot + 2] = limit if limit > 0 else 0
        self.gains[8 * slot + 3] = fabs(self.top[2 * size]) + 1
        return slot

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def two_best(self, at: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> cython.double:
        """The best path of a short word in `before` and `token`, in double precision, and by how much the second is behind."""
        size: cython.Py_ssize_t = stop - at
        never: cython.double = -1e300
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        length: cython.Py_ssize_t
        node: cython.int
        to: cython.int
        single: cython.bint
        self.top[0] = 0
        self.top[1] = never
        for i in range(1, size + 1):
            self.top[2 * i] = never
            self.top[2 * i + 1] = never
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
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        length: cython.Py_ssize_t
        steps: cython.Py_ssize_t
        node: cython.int
        token: cython.int
        to: cython.int
        single: cython.bint
        total: cython.float
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
        i: cython.Py_ssize_t
        j: cython.Py_ssize_t
        length: cython.Py_ssize_t
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
