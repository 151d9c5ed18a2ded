"""Training WordPiece by likelihood: the pair with the greatest count(ab) / (count(a) count(b)) becomes a token.

A merge of a and b changes the scores of every pair that has a or b in it, too many to look at for a common symbol. So a
pair is kept in a heap of the more common of its two symbols, its owner, ordered by count(ab) / count(other), which does
not change with the owner's count; a tournament over the owners compares best pair / count(owner). Then a change of
count(a) costs one match in the tournament, and new places in the heaps only for the pairs in which a is the rarer one.

Scores are compared exactly, as fractions; counts must stay below 2^40. Equal scores: the more frequent pair, then the
lower left, then the lower right id. The Python form is in `lineal.tokenizers.wordpiece_train`.
"""

from __future__ import annotations

from array import array

import cython

LIMIT = 1 << 40
"""Counts must stay below it."""


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def exactly(
    a: cython.longlong,
    b: cython.longlong,
    c: cython.longlong,
    d: cython.longlong,
    e: cython.longlong,
    f: cython.longlong,
) -> cython.int:
    """The sign of a b c - d e f, all from 0 to 2^40, digit by digit to the base 2^20."""
    digit: cython.longlong = 0xFFFFF
    x: cython.longlong = (a & digit) * b
    y: cython.longlong = (d & digit) * e
    high: cython.longlong = (a >> 20) * b + (x >> 20)
    other: cython.longlong = (d >> 20) * e + (y >> 20)
    # a b = high 2^20 + (x mod 2^20): three digits, the first of up to 41 bits more, each times c.
    x = (x & digit) * c
    y = (y & digit) * f
    low: cython.longlong = x & digit
    rest: cython.longlong = y & digit
    x = (high & digit) * c + (x >> 20)
    y = (other & digit) * f + (y >> 20)
    middle: cython.longlong = x & digit
    between: cython.longlong = y & digit
    high = (high >> 20) * c + (x >> 20)
    other = (other >> 20) * f + (y >> 20)
    if high != other:
        return 1 if high > other else -1
    if middle != between:
        return 1 if middle > between else -1
    return (low > rest) - (low < rest)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def sign(
    a: cython.longlong,
    b: cython.longlong,
    c: cython.longlong,
    d: cython.longlong,
    e: cython.longlong,
    f: cython.longlong,
) -> cython.int:
    """The sign of a b c - d e f, exactly."""
    x: cython.double = cython.cast(cython.double, a) * b * c
    y: cython.double = cython.cast(cython.double, d) * e * f
    if x < 4e18 and y < 4e18:
        a = a * b * c
        d = d * e * f
        return (a > d) - (a < d)
    if x > y * 1.00000000000001:
        return 1
    if y > x * 1.00000000000001:
        return -1
    return exactly(a, b, c, d, e, f)


def wider(kind: str, old: object, room: int, empty: int) -> memoryview:
    """A copy with more room."""
    made = memoryview(array(kind, [empty]) * room)
    seen = memoryview(old)
    made[: len(seen)] = seen
    return made


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.initializedcheck(False)
@cython.cclass
class Merger:
    """Words as chains of symbols, their pairs, and which of these is best.

    best() is the number of a pair, or -1 when no pair is left; merge(pair, token) puts `token` in its place everywhere.
    """

    # Places in words: the symbol there (-1 where merged away), neighbours, the word.
    symbol: cython.int[::1]
    before: cython.int[::1]
    after: cython.int[::1]
    word: cython.int[::1]
    weight: cython.longlong[::1]
    # Symbols: count, the best pair that it owns, the first pair in which it is the rarer one.
    total: cython.longlong[::1]
    root: cython.int[::1]
    depends: cython.int[::1]
    # The tournament: the leaves are the symbols, from `leaves` on; 1 is the winner.
    winner: cython.int[::1]
    leaves: cython.Py_ssize_t
    # Pairs: their symbols and count, the chain of places, owner (-1 while none), the next of `depends`.
    left: cython.int[::1]
    right: cython.int[::1]
    count: cython.longlong[::1]
    first: cython.int[::1]
    last: cython.int[::1]
    owner: cython.int[::1]
    depending: cython.int[::1]
    # Pairs in their heap: the fraction they were put in with, first child, next sibling, previous sibling or parent.
    above: cython.longlong[::1]
    below: cython.longlong[::1]
    child: cython.int[::1]
    sibling: cython.int[::1]
    up: cython.int[::1]
    pairs: cython.Py_ssize_t
    # The hash table of pairs (number + 1), links of chains, and what a merge touched.
    slots: cython.int[::1]
    place: cython.int[::1]
    link: cython.int[::1]
    links: cython.int
    touched: cython.int[::1]
    marked: cython.uchar[::1]
    touches: cython.Py_ssize_t
    least: cython.longlong

    def __init__(self, symbol: array, ends: array, weight: array, symbols: int, least: int):
        """symbol: all words' symbols, word i up to ends[i] and weight[i] times; fewer than `symbols`. least: as min_frequency."""
        size = len(symbol)
        self.symbol, self.weight, self.least = memoryview(symbol), memoryview(weight), max(1, least)
        self.before, self.after, self.word = (memoryview(array("i", bytes(4 * size))) for _ in range(3))
        self.total = memoryview(array("q", bytes(8 * symbols)))
        self.root, self.depends = (memoryview(array("i", [-1]) * symbols) for _ in range(2))
        self.leaves = 1 << max(1, (symbols - 1).bit_length())
        self.winner = memoryview(array("i", [-1]) * (2 * self.leaves))
        room = 1 << 10
        self.left, self.right, self.first, self.last = (memoryview(array("i", [-1]) * room) for _ in range(4))
        self.owner, self.depending = (memoryview(array("i", [-1]) * room) for _ in range(2))
        self.child, self.sibling, self.up = (memoryview(array("i", [-1]) * room) for _ in range(3))
        self.count, self.above, self.below = (memoryview(array("q", bytes(8 * room))) for _ in range(3))
        self.slots = memoryview(array("i", bytes(16 * room)))
        # A place enters a chain at first, and twice more at most for each place that is merged away.
        self.place, self.link = (memoryview(array("i", [-1]) * (3 * size + 1)) for _ in range(2))
        self.touched, self.marked = memoryview(array("i", bytes(4 * room))), memoryview(bytearray(room))
        self.pairs = self.links = self.touches = 0
        self._start(memoryview(ends))

    def best(self) -> int:
        """The pair to merge, or -1."""
        return -1 if self.winner[1] < 0 else self.root[self.winner[1]]

    def symbols_of(self, pair: int) -> tuple[int, int]:
        """Its two symbols."""
        return self.left[pair], self.right[pair]

    def merge(self, pair: int, token: int) -> None:
        """Put one token in the place of a pair's two."""
        occurrences = 0
        link = self.first[pair]
        while link >= 0:
            occurrences += 1
            link = self.link[link]
        self._reserve(2 * occurrences)
        self._merge(pair, token)

    def _reserve(self, more: int) -> None:
        while self.pairs + more > len(self.left):
            room = 2 * len(self.left)
            self.left, self.right = wider("i", self.left, room, -1), wider("i", self.right, room, -1)
            self.first, self.last = wider("i", self.first, room, -1), wider("i", self.last, room, -1)
            self.owner, self.depending = (
                wider("i", self.owner, room, -1),
                wider("i", self.depending, room, -1),
            )
            self.child, self.sibling = wider("i", self.child, room, -1), wider("i", self.sibling, room, -1)
            self.up, self.touched = wider("i", self.up, room, -1), wider("i", self.touched, room, 0)
            self.count, self.marked = wider("q", self.count, room, 0), wider("B", self.marked, room, 0)
            self.above, self.below = wider("q", self.above, room, 0), wider("q", self.below, room, 0)
            self.slots = memoryview(array("i", bytes(16 * room)))
            self._refill()

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _refill(self) -> cython.void:
        pair: cython.int
        for pair in range(self.pairs):
            self.slots[self._slot(self.left[pair], self.right[pair])] = pair + 1

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _slot(self, left: cython.longlong, right: cython.longlong) -> cython.longlong:
        """Where a pair stands in the table, or where it would."""
        mask: cython.longlong = self.slots.shape[0] - 1
        at: cython.longlong = (left * 668265263 + right * 374761393) >> 7 & mask
        while self.slots[at] and (
            self.left[self.slots[at] - 1] != left or self.right[self.slots[at] - 1] != right
        ):
            at = (at + 1) & mask
        return at

    def _start(self, ends: cython.longlong[::1]) -> None:
        word: cython.Py_ssize_t
        start: cython.Py_ssize_t = 0
        for word in range(ends.shape[0]):
            self._reserve(ends[word] - start)
            self._add_word(word, start, ends[word])
            start = ends[word]
        self._settle(-1, -1, -1)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _add_word(self, word: cython.int, start: cython.int, end: cython.int) -> cython.void:
        at: cython.int
        for at in range(start, end):
            self.word[at] = word
            self.before[at] = at - 1 if at > start else -1
            self.after[at] = at + 1 if at + 1 < end else -1
            self.total[self.symbol[at]] += self.weight[word]
            if at + 1 < end:
                self._append(self._change(self.symbol[at], self.symbol[at + 1], self.weight[word]), at)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _change(self, left: cython.int, right: cython.int, by: cython.longlong) -> cython.int:
        """Change a pair's count; its number, new if it was never seen."""
        at: cython.longlong = self._slot(left, right)
        pair: cython.int = self.slots[at] - 1
        if pair < 0:
            pair = self.pairs
            self.pairs += 1
            self.slots[at] = pair + 1
            self.left[pair] = left
            self.right[pair] = right
        self.count[pair] += by
        if not self.marked[pair]:
            self.marked[pair] = 1
            self.touched[self.touches] = pair
            self.touches += 1
        return pair

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _append(self, pair: cython.int, at: cython.int) -> cython.void:
        """Put a place at the end of a pair's chain."""
        self.place[self.links] = at
        if self.first[pair] < 0:
            self.first[pair] = self.links
        else:
            self.link[self.last[pair]] = self.links
        self.last[pair] = self.links
        self.links += 1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _merge(self, pair: cython.int, token: cython.int) -> cython.void:
        a: cython.int = self.left[pair]
        b: cython.int = self.right[pair]
        at: cython.int
        link: cython.int = self.first[pair]
        while link >= 0:
            at = self.place[link]
            link = self.link[link]
            if self.symbol[at] != a:
                continue
            # Of a run of one symbol the leftmost two are merged first.
            while a == b and self.before[at] >= 0 and self.symbol[self.before[at]] == a:
                at = self.before[at]
            while (
                at >= 0 and self.symbol[at] == a and self.after[at] >= 0 and self.symbol[self.after[at]] == b
            ):
                self._join(at, a, b, token)
                at = self.after[at]
        self.first[pair] = self.last[pair] = -1
        self._settle(a, b, token)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _join(self, at: cython.int, a: cython.int, b: cython.int, token: cython.int) -> cython.void:
        """Merge the two symbols at one place."""
        weight: cython.longlong = self.weight[self.word[at]]
        gone: cython.int = self.after[at]
        before: cython.int = self.before[at]
        after: cython.int = self.after[gone]
        self._change(a, b, -weight)
        self.symbol[at] = token
        self.symbol[gone] = -1
        self.after[at] = after
        self.total[a] -= weight
        self.total[b] -= weight
        self.total[token] += weight
        if before >= 0:
            self._change(self.symbol[before], a, -weight)
            self._append(self._change(self.symbol[before], token, weight), before)
        if after >= 0:
            self.before[after] = at
            self._change(b, self.symbol[after], -weight)
            self._append(self._change(token, self.symbol[after], weight), at)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _settle(self, a: cython.int, b: cython.int, token: cython.int) -> cython.void:
        """Put every pair whose score changed in its place, then play the matches of the symbols concerned."""
        i: cython.Py_ssize_t
        for i in range(self.touches):
            self.marked[self.touched[i]] = 0
            self._put(self.touched[i])
        self._put_depending(a)
        if b != a:
            self._put_depending(b)
        self._put_depending(token)
        for i in range(self.touches):
            if self.owner[self.touched[i]] >= 0:
                self._play(self.owner[self.touched[i]])
        self.touches = 0
        self._play(a)
        self._play(b)
        self._play(token)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _put_depending(self, symbol: cython.int) -> cython.void:
        """The pairs in which this symbol is the rarer one; those that are gone leave the list."""
        pair: cython.int
        following: cython.int
        if symbol < 0:
            return
        pair = self.depends[symbol]
        self.depends[symbol] = -1
        while pair >= 0:
            following = self.depending[pair]
            if self.count[pair] > 0:
                self.depending[pair] = self.depends[symbol]
                self.depends[symbol] = pair
                self._put(pair)
                self._play(self.owner[pair])
            else:
                self._take_out(pair)
                self._play(self.owner[pair])
                self.owner[pair] = -1
            pair = following

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _put(self, pair: cython.int) -> cython.void:
        """Put a pair in its owner's heap, by the counts of now; out of it where it is too rare."""
        left: cython.int = self.left[pair]
        right: cython.int = self.right[pair]
        owner: cython.int = self.owner[pair]
        rare: cython.int
        if owner < 0:
            if self.count[pair] <= 0:
                return
            owner = left if self.total[left] >= self.total[right] else right
            rare = left + right - owner
            self.owner[pair] = owner
            self.depending[pair] = self.depends[rare]
            self.depends[rare] = pair
        self._take_out(pair)
        if self.count[pair] >= self.least:
            self.above[pair] = self.count[pair]
            self.below[pair] = self.total[left + right - owner]
            self.root[owner] = self._meld(self.root[owner], pair)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _take_out(self, pair: cython.int) -> cython.void:
        """Take a pair out of its heap (a pairing heap), if it is there."""
        owner: cython.int = self.owner[pair]
        up: cython.int = self.up[pair]
        sibling: cython.int = self.sibling[pair]
        if self.root[owner] == pair:
            self.root[owner] = self._combine(self.child[pair])
        elif up >= 0:
            if self.child[up] == pair:
                self.child[up] = sibling
            else:
                self.sibling[up] = sibling
            if sibling >= 0:
                self.up[sibling] = up
            self.root[owner] = self._meld(self.root[owner], self._combine(self.child[pair]))
        self.child[pair] = self.sibling[pair] = self.up[pair] = -1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _combine(self, first: cython.int) -> cython.int:
        """One heap of siblings: two by two from the left, then all from the right."""
        made: cython.int = -1
        x: cython.int
        y: cython.int
        while first >= 0:
            x = first
            y = self.sibling[x]
            first = self.sibling[y] if y >= 0 else -1
            self.sibling[x] = -1
            if y >= 0:
                self.sibling[y] = -1
            x = self._meld(x, y)
            self.sibling[x] = made
            made = x
        first = made
        made = -1
        while first >= 0:
            x = first
            first = self.sibling[x]
            self.sibling[x] = -1
            made = self._meld(made, x)
        if made >= 0:
            self.up[made] = -1
        return made

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _meld(self, x: cython.int, y: cython.int) -> cython.int:
        """One heap of two: the root that is worse becomes the first child of the other."""
        better: cython.int
        if x < 0 or y < 0:
            return x if y < 0 else y
        better = sign(self.above[x], self.below[y], 1, self.above[y], self.below[x], 1)
        if better < 0 or (better == 0 and self._later(x, y)):
            x, y = y, x
        self.sibling[y] = self.child[x]
        if self.child[x] >= 0:
            self.up[self.child[x]] = y
        self.child[x] = y
        self.up[y] = x
        return x

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _later(self, x: cython.int, y: cython.int) -> cython.bint:
        """Of pairs with equal scores, whether the first comes after the second."""
        if self.above[x] != self.above[y]:
            return self.above[x] < self.above[y]
        if self.left[x] != self.left[y]:
            return self.left[x] > self.left[y]
        return self.right[x] > self.right[y]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _play(self, symbol: cython.int) -> cython.void:
        """Play a symbol's matches again, up to where it can change nothing."""
        at: cython.Py_ssize_t
        x: cython.int
        y: cython.int
        p: cython.int
        q: cython.int
        better: cython.int
        if symbol < 0:
            return
        at = self.leaves + symbol
        self.winner[at] = symbol if self.root[symbol] >= 0 else -1
        while at > 1:
            at >>= 1
            x = self.winner[2 * at]
            y = self.winner[2 * at + 1]
            if x >= 0 and y >= 0:
                p = self.root[x]
                q = self.root[y]
                better = sign(
                    self.above[p], self.below[q], self.total[y], self.above[q], self.below[p], self.total[x]
                )
                if better < 0 or (better == 0 and self._later(p, q)):
                    x = y
            elif x < 0:
                x = y
            if x == self.winner[at] and x != symbol:
                return
            self.winner[at] = x
