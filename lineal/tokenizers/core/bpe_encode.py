# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The core of BPE encoding: pieces seen before come out of a cache, others are merged, long ones by a heap.

`BPE.segment` says the same obviously; a test holds this file, compiled and as Python, to it. An `Encoder` reads the
tables of `lineal.tokenizers.core.bpe_tables`, which threads share, and has the cache and the room of one thread.
"""

from __future__ import annotations

from array import array

import cython

from lineal.tokenizers.core.arrays import filled, untouched

if cython.compiled:
    from cython.cimports.cpython.list import PyList_New, PyList_SET_ITEM
    from cython.cimports.cpython.ref import Py_INCREF
    from cython.cimports.libc.string import memcpy


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
    """Pieces to ids.

    tables: those of `bpe_tables.Tables.arrays`. text, ends: the bytes of all tokens behind each other, and where each
    ends. fallback: the ids of the 256 bytes, or nothing. unknown: an id, or -1, which drops what can't be said.
    ways: 1 where symbols after a piece's first have a prefix, 2 where its last has a suffix, 3 for both.
    flags: symbols are characters; unknown symbols in a row are one; a piece that is a token is not merged.
    numbers: the ids as Python's integers, so that none is made anew. bits: the cache has 2 << bits lines.
    """

    known: cython.int[::1]
    single: cython.int[::1]
    pairs: cython.longlong[::1]
    kept: bytes
    tokens: cython.pointer[cython.const[cython.uchar]]
    ends: cython.longlong[::1]
    fallback: cython.int[::1]
    unknown: cython.int
    ways: cython.int
    characters: cython.bint
    fuse: cython.bint
    whole: cython.bint
    numbers: list
    text: cython.pointer[cython.const[cython.uchar]]
    size: cython.Py_ssize_t
    # A line of the cache: a piece of up to 15 bytes, its length and that of its ids, and up to 4 ids; a piece has the
    # choice of two lines. More ids stand in `more`, 16 for each line.
    cache: cython.ulonglong[::1]
    more: cython.int[::1]
    shift: cython.int
    masks: cython.ulonglong[::1]
    factor: cython.ulonglong
    second: cython.ulonglong
    full: cython.ulonglong
    # Room for one piece: its symbols, what each makes with the next (rank << 32 | id), their neighbours, and a heap.
    part: cython.int[::1]
    made: cython.longlong[::1]
    after: cython.int[::1]
    before: cython.int[::1]
    heap: cython.longlong[::1]
    entries: cython.Py_ssize_t
    out: cython.int[::1]
    filled: cython.Py_ssize_t
    wanted: cython.Py_ssize_t
    none: cython.longlong

    def __init__(
        self,
        tables: tuple,
        text: bytes,
        ends: cython.longlong[::1],
        fallback: cython.int[::1],
        unknown: cython.int,
        ways: cython.int,
        flags: tuple,
        numbers: list,
        bits: cython.int,
    ):
        self.known, self.single, self.pairs = tables
        self.kept = self.tokens = text
        self.ways = ways
        self.ends, self.fallback, self.unknown, self.numbers = ends, fallback, unknown, numbers
        self.characters, self.fuse, self.whole = flags
        self.cache, self.more = untouched("Q", 64 << bits), untouched("i", 128 << bits)
        self.shift = 64 - bits
        self.factor, self.second, self.full = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, (1 << 64) - 1
        masks = b"".join(b"\xff" * size + b"\0" * (16 - size) for size in range(16))
        self.masks = memoryview(array("Q", masks))
        self.none = (1 << 63) - 1
        self.filled = self.wanted = self.entries = 0
        self._begin()

    def encode(self, data: bytes, spans: cython.const[cython.int][::1]) -> list:
        """The ids of a text's pieces, given as start, end, start, end, ..."""
        pieces: cython.Py_ssize_t = spans.shape[0] // 2
        done: cython.Py_ssize_t = 0
        ids: list = []
        self.text, self.size = data, len(data)
        while done < pieces:
            self.filled = self.wanted = 0
            if self.size < 1 << 15:
                done = self._run(spans, 0, done, pieces)
            else:
                with cython.nogil:
                    done = self._run(spans, 0, done, pieces)
            ids += self._given(0, self.filled)
            if self.wanted:
                self._make_room(self.wanted)
        if self.part.shape[0] > 1 << 22:
            self._begin()
        return ids

    def encode_many(self, data: bytes, spans: cython.const[cython.int][::1], bases: list, counts: list):
        """The ids of each of several short texts, which begin at `bases`, where `counts` numbers of spans count from."""
        texts: cython.Py_ssize_t = len(bases)
        base: cython.longlong[::1] = memoryview(array("q", bases))
        count: cython.longlong[::1] = memoryview(array("q", counts))
        bound: cython.longlong[::1] = filled("q", texts + 1)
        first: cython.Py_ssize_t = 0
        end: cython.Py_ssize_t = len(data)
        i: cython.Py_ssize_t
        self.text = data
        self._make_room(end)
        self.filled = self.wanted = 0
        with cython.nogil:
            for i in range(texts):
                self.size = base[i + 1] if i + 1 < texts else end
                self._run(spans, base[i], first, first + count[i] // 2)
                first += count[i] // 2
                bound[i + 1] = self.filled
        if self.wanted:
            self._make_room(-1)
        return [self._given(bound[i], bound[i + 1]) for i in range(texts)]

    @cython.cfunc
    def _given(self, begin: cython.Py_ssize_t, end: cython.Py_ssize_t) -> list:
        """What was put out, as Python's integers."""
        i: cython.Py_ssize_t
        if not cython.compiled:
            return [self.numbers[self.out[i]] for i in range(begin, end)]
        numbers: list = self.numbers
        ids: list = PyList_New(end - begin)
        for i in range(begin, end):
            number: object = numbers[self.out[i]]
            Py_INCREF(number)
            PyList_SET_ITEM(ids, i - begin, number)
        return ids

    def _begin(self) -> None:
        """Room for pieces of common length."""
        self.part, self.out = filled("i", 0), filled("i", 1 << 14)
        self._make_room(1 << 8)

    def _make_room(self, wanted: cython.Py_ssize_t) -> None:
        """Room for a piece of so many bytes."""
        size: cython.Py_ssize_t = wanted + 1
        if wanted < 0:
            raise IndexError("a piece lies outside the text")
        if size > self.part.shape[0]:
            self.part, self.made = filled("i", size), filled("q", size)
            self.after, self.before = filled("i", size), filled("i", size)
            self.heap = filled("q", 2 * size)
        if size + 16 > self.out.shape[0]:
            self.out = filled("i", size + 16)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _run(
        self,
        spans: cython.const[cython.int][::1],
        base: cython.Py_ssize_t,
        done: cython.Py_ssize_t,
        last: cython.Py_ssize_t,
    ) -> cython.Py_ssize_t:
        """Put out the ids of pieces until all are done or there is no room for the next; which that is."""
        text: cython.pointer[cython.const[cython.uchar]] = self.text
        size: cython.Py_ssize_t = self.size
        cache: cython.ulonglong[::1] = self.cache
        out: cython.int[::1] = self.out
        factor: cython.ulonglong = self.factor
        second: cython.ulonglong = self.second
        full: cython.ulonglong = self.full
        masks: cython.ulonglong[::1] = self.masks
        room: cython.Py_ssize_t = out.shape[0] - 16
        at: cython.Py_ssize_t = self.filled
        cython.declare(begin=cython.Py_ssize_t, length=cython.Py_ssize_t, line=cython.Py_ssize_t)
        cython.declare(count=cython.Py_ssize_t, i=cython.Py_ssize_t)
        cython.declare(low=cython.ulonglong, high=cython.ulonglong, miss=cython.ulonglong)
        while done < last:
            begin = base + spans[2 * done]
            length = base + spans[2 * done + 1] - begin
            if begin < base or begin + length > size or length < 0:
                self.wanted = -1
                break
            if at + length > room or length >= self.part.shape[0] or length == 0:
                if length == 0:
                    done += 1
                    continue
                self.wanted = length
                break
            done += 1
            if length > 15:
                at += self._merge(begin, length, at)
                continue
            if begin + 16 <= size:
                low = word(text, begin, 8)
                high = word(text, begin + 8, 8)
            else:
                low = word(text, begin, min(length, 8))
                high = word(text, begin + 8, length - 8) if length > 8 else 0
            low &= masks[2 * length]
            high = (high & masks[2 * length + 1]) | cython.cast(cython.ulonglong, length) << 56
            line = 8 * ((((low ^ (high * second & full)) * factor) & full) >> self.shift)
            # No branches here: which line of the two it is can't be foretold.
            miss = (cache[line] ^ low) | ((cache[line + 1] ^ high) << 4 & full)
            line += 4 * (miss != 0)
            if (cache[line] ^ low) | ((cache[line + 1] ^ high) << 4 & full):
                at += self._miss(begin, length, at, line, low, high)
                continue
            count = cache[line + 1] >> 60
            if count < 5:
                for i in range(2):
                    out[at + 2 * i] = cache[line + 2 + i] & 0x7FFFFFFF
                    out[at + 2 * i + 1] = cache[line + 2 + i] >> 32
            else:
                for i in range(count):
                    out[at + i] = self.more[4 * line + i]
            at += count
        self.filled = at
        return done

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _miss(
        self,
        begin: cython.Py_ssize_t,
        length: cython.Py_ssize_t,
        at: cython.Py_ssize_t,
        line: cython.Py_ssize_t,
        low: cython.ulonglong,
        high: cython.ulonglong,
    ) -> cython.Py_ssize_t:
        """Merge a piece and put it into the cache, the second line of two; how many ids."""
        cache: cython.ulonglong[::1] = self.cache
        count: cython.Py_ssize_t = self._merge(begin, length, at)
        wide: cython.ulonglong = count
        i: cython.Py_ssize_t
        # The line that was first becomes the second.
        for i in range(4):
            cache[line + i] = cache[line - 4 + i]
        if cache[line + 1] >> 60 > 4:
            for i in range(16):
                self.more[4 * line + i] = self.more[4 * line - 16 + i]
        line -= 4
        cache[line] = low
        cache[line + 1] = high | wide << 60
        if count > 4:
            for i in range(count):
                self.more[4 * line + i] = self.out[at + i]
            return count
        for i in range(2):
            low = self.out[at + 2 * i]
            high = self.out[at + 2 * i + 1]
            cache[line + 2 + i] = low | high << 32
        return count

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _whole(self, begin: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.int:
        """The token that has the bytes of a whole piece, or -1."""
        text: cython.pointer[cython.const[cython.uchar]] = self.text
        mask: cython.longlong = self.known.shape[0] - 1
        slot: cython.longlong = 0
        cython.declare(start=cython.longlong, i=cython.longlong)
        for i in range(length):
            slot = (slot * 16777619 + text[begin + i] + 1) & 0x3FFFFFFF
        slot = (slot ^ (slot >> 15)) & mask
        while self.known[slot] >= 0:
            start = self.ends[self.known[slot] - 1] if self.known[slot] > 0 else 0
            if self.ends[self.known[slot]] - start == length:
                i = 0
                while i < length and self.tokens[start + i] == text[begin + i]:
                    i += 1
                if i == length:
                    break
            slot = (slot + 1) & mask
        return self.known[slot]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _merge(
        self, begin: cython.Py_ssize_t, length: cython.Py_ssize_t, at: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """Put out the ids of a piece by merging its symbols; how many."""
        cython.declare(count=cython.Py_ssize_t, i=cython.Py_ssize_t)
        if self.whole:
            i = self._whole(begin, length)
            if i >= 0:
                self.out[at] = i
                return 1
        count = self._symbols(begin, length)
        count = self._merge_few(count) if count < 64 else self._merge_many(count)
        for i in range(count):
            self.out[at + i] = self.part[i]
        return count

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _find(self, left: cython.longlong, right: cython.longlong) -> cython.longlong:
        """What two symbols make: rank << 32 | id, or a number beyond all."""
        pairs: cython.longlong[::1] = self.pairs
        key: cython.longlong = left << 32 | right
        mask: cython.longlong = pairs.shape[0] // 2 - 1
        slot: cython.longlong = left * 668265263 + (right & 0x7FFFFFFF) * 374761393
        slot = (slot ^ (slot >> 29) ^ (slot >> 13)) & mask
        while pairs[2 * slot] != key:
            if pairs[2 * slot] < 0:
                return self.none
            slot = (slot + 1) & mask
        return pairs[2 * slot + 1]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _merge_few(self, count: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Merge the lowest, leftmost pair until none is left, moving what follows up; how many symbols stay."""
        part: cython.int[::1] = self.part
        made: cython.longlong[::1] = self.made
        best: cython.Py_ssize_t = 0
        cython.declare(lowest=cython.longlong, i=cython.Py_ssize_t)
        for i in range(count - 1):
            made[i] = self._find(part[i], part[i + 1])
        while True:
            lowest = self.none
            for i in range(count - 1):
                if made[i] < lowest:
                    lowest = made[i]
                    best = i
            if lowest == self.none:
                return count
            part[best] = lowest & 0x7FFFFFFF
            count -= 1
            for i in range(best + 1, count):
                part[i] = part[i + 1]
                made[i] = made[i + 1]
            if best + 1 < count:
                made[best] = self._find(part[best], part[best + 1])
            if best > 0:
                made[best - 1] = self._find(part[best - 1], part[best])

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _merge_many(self, count: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The same by a heap of rank << 32 | place; an entry whose place now has another rank, or none, is passed over."""
        part: cython.int[::1] = self.part
        made: cython.longlong[::1] = self.made
        after: cython.int[::1] = self.after
        before: cython.int[::1] = self.before
        cython.declare(
            entry=cython.longlong, at=cython.Py_ssize_t, near=cython.Py_ssize_t, i=cython.Py_ssize_t
        )
        self.entries = 0
        for i in range(count):
            after[i] = i + 1 if i + 1 < count else -1
            before[i] = i - 1
            self._make(i)
        while self.entries > 0:
            entry = self.heap[0]
            at = entry & 0x7FFFFFFF
            self.entries -= 1
            self._sink(self.heap[self.entries])
            if made[at] == self.none or made[at] >> 32 != entry >> 32:
                continue
            part[at] = made[at] & 0x7FFFFFFF
            near = after[at]
            made[near] = self.none
            after[at] = after[near]
            if after[at] >= 0:
                before[after[at]] = at
            self._make(at)
            if before[at] >= 0:
                self._make(before[at])
        near = 0
        at = 0
        while at >= 0 and count > 0:
            part[near] = part[at]
            near += 1
            at = after[at]
        return near

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _make(self, at: cython.longlong) -> cython.void:
        """See what a symbol makes with the next, and put it into the heap."""
        entry: cython.longlong
        place: cython.Py_ssize_t = self.entries
        parent: cython.Py_ssize_t
        self.made[at] = self.none
        if self.after[at] >= 0:
            self.made[at] = self._find(self.part[at], self.part[self.after[at]])
        if self.made[at] == self.none:
            return
        entry = (self.made[at] >> 32) << 32 | at
        self.entries += 1
        while place > 0:
            parent = (place - 1) // 2
            if self.heap[parent] < entry:
                break
            self.heap[place] = self.heap[parent]
            place = parent
        self.heap[place] = entry

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _sink(self, entry: cython.longlong) -> cython.void:
        """Put an entry into the heap instead of the first."""
        heap: cython.longlong[::1] = self.heap
        place: cython.Py_ssize_t = 0
        child: cython.Py_ssize_t = 1
        while child < self.entries:
            if child + 1 < self.entries and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= entry:
                break
            heap[place] = heap[child]
            place = child
            child = 2 * place + 1
        heap[place] = entry

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _symbols(self, begin: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Cut a piece into first symbols; how many."""
        text: cython.pointer[cython.const[cython.uchar]] = self.text
        count: cython.Py_ssize_t = 0
        end: cython.Py_ssize_t = begin + length
        at: cython.Py_ssize_t = begin
        unknown: cython.bint = False
        cython.declare(stop=cython.Py_ssize_t, i=cython.Py_ssize_t, symbol=cython.int)
        while at < end:
            stop = at + 1
            if self.characters and text[at] >= 0xC0:
                stop += 1 if text[at] < 0xE0 else 2 if text[at] < 0xF0 else 3
                stop = min(stop, end)
            symbol = self._symbol(at, stop, (at > begin) + 2 * (stop == end))
            if symbol < 0 and self.fallback.shape[0]:
                for i in range(at, stop):
                    self.part[count] = self.fallback[text[i]]
                    count += 1
            elif symbol >= 0 or (self.unknown >= 0 and not (unknown and self.fuse)):
                self.part[count] = symbol if symbol >= 0 else self.unknown
                count += 1
            unknown = symbol < 0
            at = stop
        return count

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _symbol(self, at: cython.Py_ssize_t, stop: cython.Py_ssize_t, way: cython.longlong) -> cython.int:
        """The token of one symbol, or -1; way & 1: not the first of its piece, way & 2: the last."""
        text: cython.pointer[cython.const[cython.uchar]] = self.text
        bytes_of: cython.longlong = 0
        cython.declare(found=cython.longlong, i=cython.Py_ssize_t)
        way &= self.ways
        if stop - at == 1:
            return self.single[256 * way + text[at]]
        for i in range(at, stop):
            bytes_of = bytes_of << 8 | text[i]
        found = self._find(1 << 30 | way, bytes_of)
        return found if found != self.none else -1
