# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The core of BPE training: pieces as linked lists of symbols, counts of their pairs, and a heap of what to merge.

`lineal.tokenizers.bpe_learn.merge_pairs` says the same obviously; a test holds this file, compiled and as Python, to
it. The places of a pair are kept in a list that only grows: one that has gone is seen to have gone when its turn comes.
In the same way an entry of the heap whose count has fallen is put right when it comes up, not before.
"""

from __future__ import annotations

from array import array

import cython

from lineal.tokenizers.core.arrays import filled, grown, power


def laid_out(data: bytes, ends: array, ids: array) -> memoryview:
    """Pieces of one symbol per byte, as `Pairs` wants them; ids: the symbol of each byte."""
    cells: cython.int[::1] = filled("i", 4 * len(data))
    text: cython.pointer[cython.const[cython.uchar]] = data
    end: cython.longlong[::1] = memoryview(ends)
    symbol: cython.int[::1] = memoryview(ids)
    pieces: cython.Py_ssize_t = end.shape[0]
    piece: cython.Py_ssize_t
    at: cython.Py_ssize_t = 0
    with cython.nogil:
        for piece in range(pieces):
            while at < end[piece]:
                cells[4 * at] = symbol[text[at]]
                cells[4 * at + 3] = piece
                at += 1
    return memoryview(cells)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def spread(key: cython.longlong) -> cython.longlong:
    """left << 32 | right scattered over 60 bits, without overflow, so that Python's integers give the same."""
    mixed: cython.longlong = (key >> 32) * 668265263 + (key & 0x7FFFFFFF) * 374761393
    return mixed ^ (mixed >> 29) ^ (mixed >> 13)


@cython.cclass
class Pairs:
    """Merges the most frequent pair of symbols, again and again.

    cells: of each symbol of the pieces, one piece behind the other: its id, room for two numbers, and its piece.
    weight: count by piece. text, ends: the bytes of the first symbols, one behind the other, and where each ends.
    room: how many symbols there may be in the end. protected: how many of the first are never made by merging.
    prefix: what every symbol but a piece's first begins with. longest: a pair that spans so many first symbols is not
    counted any more (as in Hugging Face's trainer). by_text: of equal counts take the pair whose bytes are largest,
    instead of the smallest ids.
    """

    # Of each place: its symbol (-1 when it was merged into one before), the next place, the one before, its piece.
    cells: cython.int[::1]
    weight: cython.longlong[::1]
    # Of each pair: left << 32 | right, its count, first << 32 | last of the list of its places (-1 for none), and the
    # merge in which it last came up; of these, pairs. slots is their hash table.
    table: cython.longlong[::1]
    pairs: cython.Py_ssize_t
    slots: cython.int[::1]
    # Lists of places: place << 32 | next; the first element of each has the number of places instead.
    nodes: cython.longlong[::1]
    places: cython.Py_ssize_t
    # Heap entries: count, pair.
    heap: cython.longlong[::1]
    entries: cython.Py_ssize_t
    batch: cython.int[::1]
    changed: cython.int[::1]
    changes: cython.Py_ssize_t
    # The symbols: their bytes and where these end, the first symbols they span, and a hash table of them.
    text: cython.uchar[::1]
    ends: cython.longlong[::1]
    spans: cython.int[::1]
    known: cython.int[::1]
    symbols: cython.Py_ssize_t
    widest: cython.Py_ssize_t
    protected: cython.Py_ssize_t
    strip: cython.uchar[::1]
    longest: cython.longlong
    by_text: cython.bint
    merged: cython.int[::1]
    merges: cython.Py_ssize_t

    def __init__(
        self,
        cells: cython.int[::1],
        weight: cython.longlong[::1],
        text: bytes,
        ends: list,
        room: cython.Py_ssize_t,
        protected: cython.Py_ssize_t,
        prefix: bytes,
        longest: cython.longlong,
        by_text: cython.bint,
    ):
        places: cython.Py_ssize_t = cells.shape[0] // 4
        distinct: cython.Py_ssize_t = min(places, len(ends) * len(ends)) + 1
        i: cython.int
        self.cells, self.weight = cells, weight
        self.slots = filled("i", power(3 * distinct), -1)
        self.table, self.nodes = filled("q", 4 * distinct), filled("q", places + distinct)
        self.heap, self.changed = filled("q", 2 * distinct), filled("i", distinct)
        self.batch = filled("i", 256)
        self.pairs = self.places = self.entries = self.changes = self.merges = 0
        self.symbols, self.protected = len(ends), protected
        self.strip = grown("B", prefix, len(prefix))
        self.longest, self.by_text = longest, by_text
        self.text = grown("B", text, len(text) + 1)
        self.ends = grown("q", array("q", ends), room + 1)
        self.spans = filled("i", room + 1, 1)
        self.known = filled("i", power(2 * room + 2), -1)
        self.merged = filled("i", 3 << 8)
        self.widest = 1
        for i in range(self.symbols):
            self.widest = max(self.widest, self.ends[i] - self._begin(i))
            self._know(i)
        with cython.nogil:
            self._start(places)

    def run(self, most: cython.Py_ssize_t, least: cython.longlong, steps: cython.Py_ssize_t) -> bool:
        """Merge up to `steps` pairs; whether there is more to do.

        There is not when there are `most` symbols, or no pair is left that occurs `least` times.
        """
        needed: cython.Py_ssize_t = 0
        last: cython.Py_ssize_t = self.merges + steps
        while self.merges < last and self.symbols < most:
            with cython.nogil:
                needed = self._run(most, least, last)
            if needed < 0:
                return False
            self._make_room(needed)
        return self.symbols < most

    def found(self) -> tuple:
        """The merges as left, right, result, left, ... and the bytes of all symbols with their ends."""
        size: cython.Py_ssize_t = self._begin(self.symbols)
        return (
            array("i", bytes(self.merged[: 3 * self.merges])),
            bytes(self.text[:size]),
            array("q", bytes(self.ends[: self.symbols])),
        )

    def _make_room(self, needed: cython.Py_ssize_t) -> None:
        """Room for a merge that makes `needed` new pairs at most, each at one place."""
        size: cython.Py_ssize_t = self.places + 2 * needed
        if size > self.nodes.shape[0]:
            self.nodes = grown("q", self.nodes, size + self.nodes.shape[0] // 2)
        size = 4 * (self.pairs + needed)
        if size > self.table.shape[0]:
            self.table = grown("q", self.table, size + self.table.shape[0])
        if 2 * (self.pairs + needed) > self.slots.shape[0]:
            self.slots = filled("i", power(3 * (self.pairs + needed)), -1)
            with cython.nogil:
                self._spread_again()
        if needed > self.changed.shape[0]:
            self.changed = filled("i", 2 * needed)
        if 2 * (self.entries + needed) > self.heap.shape[0]:
            self.heap = grown("q", self.heap, 4 * (self.entries + needed))
        if 3 * self.merges + 3 > self.merged.shape[0]:
            self.merged = grown("i", self.merged, 6 * self.merges + 3)
        size = self._begin(self.symbols) + 2 * self.widest
        if size > self.text.shape[0]:
            self.text = grown("B", self.text, 2 * size)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _has_room(self, needed: cython.Py_ssize_t) -> cython.bint:
        """Whether a merge that makes `needed` new pairs at most has room."""
        if self.places + 2 * needed > self.nodes.shape[0] or 4 * (self.pairs + needed) > self.table.shape[0]:
            return False
        if 2 * (self.pairs + needed) > self.slots.shape[0] or needed > self.changed.shape[0]:
            return False
        if 2 * (self.entries + needed) > self.heap.shape[0] or 3 * self.merges + 3 > self.merged.shape[0]:
            return False
        return self._begin(self.symbols) + 2 * self.widest <= self.text.shape[0]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _start(self, places: cython.Py_ssize_t) -> cython.void:
        """Link the symbols of each piece, and count all pairs."""
        cells: cython.int[::1] = self.cells
        i: cython.Py_ssize_t
        for i in range(places):
            cells[4 * i + 2] = i - 1 if i > 0 and cells[4 * i - 1] == cells[4 * i + 3] else -1
            cells[4 * i + 1] = i + 1 if i + 1 < places and cells[4 * i + 7] == cells[4 * i + 3] else -1
            if cells[4 * i + 1] >= 0:
                self._add(cells[4 * i], cells[4 * i + 4], self.weight[cells[4 * i + 3]], i)
        self._queue()

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _run(
        self, most: cython.Py_ssize_t, least: cython.longlong, last: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """Merge until there are `most` symbols or `last` merges (0), none is left (-1), or room is needed for so many."""
        cython.declare(pair=cython.longlong, head=cython.longlong)
        cython.declare(left=cython.int, right=cython.int, result=cython.int)
        while self.symbols < most and self.merges < last:
            if self.entries == 0:
                return -1
            pair = self.heap[1]
            if self.heap[0] != self.table[4 * pair + 1]:
                self._sink(self.table[4 * pair + 1], pair)
                continue
            if self.heap[0] < least or self.heap[0] < 1:
                return -1
            head = self.table[4 * pair + 2] >> 32
            if not self._has_room(2 * (self.nodes[head] >> 32) + 1):
                return 2 * (self.nodes[head] >> 32) + 1
            self.entries -= 1
            if self.entries > 0:
                self._sink(self.heap[2 * self.entries], self.heap[2 * self.entries + 1])
            self.table[4 * pair + 2] = -1
            left = self.table[4 * pair] >> 32
            right = self.table[4 * pair] & 0x7FFFFFFF
            result = self._result(left, right)
            if result >= 0:
                self.merged[3 * self.merges] = left
                self.merged[3 * self.merges + 1] = right
                self.merged[3 * self.merges + 2] = result
                self.merges += 1
                self._merge(left, right, result, head)
            self.table[4 * pair + 1] = 0
            self._queue()
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _merge(
        self, left: cython.int, right: cython.int, result: cython.int, head: cython.longlong
    ) -> cython.void:
        """Put `result` for left, right at every place of a list where they still stand."""
        cells: cython.int[::1] = self.cells
        batch: cython.int[::1] = self.batch
        rest: cython.longlong = self.nodes[head] >> 32
        at: cython.longlong = self.nodes[head] & 0x7FFFFFFF
        cython.declare(
            here=cython.longlong, there=cython.longlong, count=cython.Py_ssize_t, i=cython.Py_ssize_t
        )
        while rest > 0:
            # Looked at some together, what is far off in memory comes at once.
            count = 0
            while rest > 0 and count < 256:
                rest -= 1
                here = self.nodes[at] >> 32
                at = self.nodes[at] & 0x7FFFFFFF
                batch[count] = here
                count += cells[4 * here] == left
            for i in range(count):
                here = batch[i]
                if left == right and cells[4 * here] == left:
                    # A run of equal symbols is merged from its beginning.
                    while cells[4 * here + 2] >= 0 and cells[4 * cells[4 * here + 2]] == left:
                        here = cells[4 * here + 2]
                while here >= 0 and cells[4 * here] == left:
                    there = cells[4 * here + 1]
                    if there < 0 or cells[4 * there] != right:
                        break
                    self._join(here, there, result)
                    here = cells[4 * here + 1]

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _join(self, here: cython.longlong, there: cython.longlong, result: cython.int) -> cython.void:
        """Put `result` for the symbols at two places, and count the pairs that go and come."""
        cells: cython.int[::1] = self.cells
        weight: cython.longlong = self.weight[cells[4 * here + 3]]
        span: cython.longlong = self.spans[result]
        near: cython.longlong = cells[4 * here + 2]
        if near >= 0:
            self.table[4 * self._find(cells[4 * near], cells[4 * here]) + 1] -= weight
            if span + self.spans[cells[4 * near]] < self.longest:
                self._add(cells[4 * near], result, weight, near)
        near = cells[4 * there + 1]
        if near >= 0:
            cells[4 * near + 2] = here
            self.table[4 * self._find(cells[4 * there], cells[4 * near]) + 1] -= weight
            if span + self.spans[cells[4 * near]] < self.longest:
                self._add(result, cells[4 * near], weight, here)
        cells[4 * here] = result
        cells[4 * there] = -1
        cells[4 * here + 1] = near

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _find(self, left: cython.longlong, right: cython.longlong) -> cython.longlong:
        """The number of a pair, a new one if it has not been seen."""
        key: cython.longlong = left << 32 | right
        mask: cython.longlong = self.slots.shape[0] - 1
        slot: cython.longlong = spread(key) & mask
        pair: cython.longlong = self.slots[slot]
        while pair >= 0 and self.table[4 * pair] != key:
            slot = (slot + 1) & mask
            pair = self.slots[slot]
        if pair < 0:
            pair = self.pairs
            self.pairs += 1
            self.slots[slot] = pair
            self.table[4 * pair] = key
            self.table[4 * pair + 1] = 0
            self.table[4 * pair + 2] = self.table[4 * pair + 3] = -1
        return pair

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _add(
        self, left: cython.longlong, right: cython.longlong, weight: cython.longlong, place: cython.longlong
    ) -> cython.void:
        """Count a pair that has come, and note its place."""
        pair: cython.longlong = self._find(left, right)
        table: cython.longlong[::1] = self.table
        nodes: cython.longlong[::1] = self.nodes
        node: cython.longlong = self.places
        head: cython.longlong
        table[4 * pair + 1] += weight
        if table[4 * pair + 2] < 0:
            table[4 * pair + 2] = node << 32 | node
            nodes[node] = 0
            node += 1
        if table[4 * pair + 3] != self.merges:
            table[4 * pair + 3] = self.merges
            self.changed[self.changes] = pair
            self.changes += 1
        head = table[4 * pair + 2] >> 32
        nodes[node] = place << 32
        nodes[table[4 * pair + 2] & 0x7FFFFFFF] |= node
        nodes[head] += cython.cast(cython.longlong, 1) << 32
        table[4 * pair + 2] = head << 32 | node
        self.places = node + 1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _spread_again(self) -> cython.void:
        """Fill a new hash table with all pairs."""
        mask: cython.longlong = self.slots.shape[0] - 1
        slot: cython.longlong
        i: cython.Py_ssize_t
        for i in range(self.pairs):
            slot = spread(self.table[4 * i]) & mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & mask
            self.slots[slot] = i

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _first(self, count: cython.longlong, pair: cython.longlong, entry: cython.Py_ssize_t) -> cython.bint:
        """Whether a pair comes before an entry of the heap."""
        one: cython.longlong
        other: cython.longlong
        order: cython.int
        if count != self.heap[2 * entry]:
            return count > self.heap[2 * entry]
        one = self.table[4 * pair]
        other = self.table[4 * self.heap[2 * entry + 1]]
        if not self.by_text:
            return one < other
        order = self._compare(one >> 32, other >> 32)
        if order == 0:
            order = self._compare(one & 0x7FFFFFFF, other & 0x7FFFFFFF)
        return order > 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _queue(self) -> cython.void:
        """Put the pairs that have come into the heap."""
        heap: cython.longlong[::1] = self.heap
        cython.declare(pair=cython.longlong, count=cython.longlong)
        cython.declare(at=cython.Py_ssize_t, parent=cython.Py_ssize_t, i=cython.Py_ssize_t)
        for i in range(self.changes):
            pair = self.changed[i]
            count = self.table[4 * pair + 1]
            if count < 1:
                continue
            at = self.entries
            self.entries += 1
            while at > 0:
                parent = (at - 1) // 2
                if not self._first(count, pair, parent):
                    break
                heap[2 * at] = heap[2 * parent]
                heap[2 * at + 1] = heap[2 * parent + 1]
                at = parent
            heap[2 * at] = count
            heap[2 * at + 1] = pair
        self.changes = 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _sink(self, count: cython.longlong, pair: cython.longlong) -> cython.void:
        """Put a pair into the heap instead of the first."""
        heap: cython.longlong[::1] = self.heap
        size: cython.Py_ssize_t = self.entries
        at: cython.Py_ssize_t = 0
        child: cython.Py_ssize_t = 1
        while child < size:
            if child + 1 < size and self._first(heap[2 * child + 2], heap[2 * child + 3], child):
                child += 1
            if self._first(count, pair, child):
                break
            heap[2 * at] = heap[2 * child]
            heap[2 * at + 1] = heap[2 * child + 1]
            at = child
            child = 2 * at + 1
        heap[2 * at] = count
        heap[2 * at + 1] = pair

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _begin(self, symbol: cython.Py_ssize_t) -> cython.longlong:
        """Where the bytes of a symbol begin."""
        return self.ends[symbol - 1] if symbol > 0 else 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _compare(self, one: cython.Py_ssize_t, other: cython.Py_ssize_t) -> cython.int:
        """Less than, equal to or more than 0, as the bytes of one symbol come before or after another's."""
        begin: cython.longlong = self._begin(one)
        begin_other: cython.longlong = self._begin(other)
        size: cython.longlong = self.ends[one] - begin
        size_other: cython.longlong = self.ends[other] - begin_other
        i: cython.longlong
        for i in range(min(size, size_other)):
            if self.text[begin + i] != self.text[begin_other + i]:
                return cython.cast(cython.int, self.text[begin + i]) - self.text[begin_other + i]
        return (size > size_other) - (size < size_other)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _know(self, symbol: cython.int) -> cython.int:
        """The symbol of the same bytes, this one unless there was one before."""
        mask: cython.longlong = self.known.shape[0] - 1
        mixed: cython.longlong = 0
        i: cython.longlong
        for i in range(self._begin(symbol), self.ends[symbol]):
            mixed = (mixed * 16777619 + self.text[i] + 1) & 0x3FFFFFFF
        mixed = (mixed ^ (mixed >> 15)) & mask
        while self.known[mixed] >= 0:
            if self._compare(self.known[mixed], symbol) == 0:
                return self.known[mixed]
            mixed = (mixed + 1) & mask
        self.known[mixed] = symbol
        return symbol

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _result(self, left: cython.int, right: cython.int) -> cython.int:
        """The symbol that spells two, a new one if there is none; -1 where it may not be made."""
        new: cython.int = self.symbols
        found: cython.int
        at: cython.longlong = self._begin(new)
        begin: cython.longlong = self._begin(right)
        strip: cython.Py_ssize_t = self.strip.shape[0]
        i: cython.longlong
        if strip > self.ends[right] - begin:
            strip = 0
        for i in range(strip):
            if self.text[begin + i] != self.strip[i]:
                strip = 0
                break
        for i in range(self._begin(left), self.ends[left]):
            self.text[at] = self.text[i]
            at += 1
        for i in range(begin + strip, self.ends[right]):
            self.text[at] = self.text[i]
            at += 1
        self.ends[new] = at
        found = self._know(new)
        if found == new:
            self.symbols += 1
            self.spans[new] = self.spans[left] + self.spans[right]
            self.widest = max(self.widest, at - self._begin(new))
        elif found < self.protected or found in (left, right):
            return -1
        return found
