# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""What a BPE vocabulary says, as flat hash tables: tokens by their bytes, first symbols, and what two tokens make.

`BPE.segment` looks the same up in dictionaries; `lineal.tokenizers.core.bpe_encode` reads these, from any thread.
The table of pairs is key, value, key, value, ... with -1 for no key: left << 32 | right and rank << 32 | result. Symbols
of several bytes stand there too: (1 << 30 | way) << 32 | bytes and the token; see `Tables._is_symbol`.
"""

from __future__ import annotations

import cython

from lineal.tokenizers.core.arrays import filled, power


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def spread(key: cython.longlong) -> cython.longlong:
    """left << 32 | right scattered over 60 bits, without overflow, so that Python's integers give the same."""
    mixed: cython.longlong = (key >> 32) * 668265263 + (key & 0x7FFFFFFF) * 374761393
    return mixed ^ (mixed >> 29) ^ (mixed >> 13)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put(table: cython.longlong[::1], key: cython.longlong, value: cython.longlong) -> cython.bint:
    """Note a key's value; whether it had none."""
    mask: cython.longlong = table.shape[0] // 2 - 1
    slot: cython.longlong = spread(key) & mask
    while table[2 * slot] >= 0:
        if table[2 * slot] == key:
            return False
        slot = (slot + 1) & mask
    table[2 * slot] = key
    table[2 * slot + 1] = value
    return True


@cython.cclass
class Tables:
    """The tables of a vocabulary.

    text, ends: the bytes of all tokens behind each other, and where each ends. hidden: 1 for ids text never gives.
    affixes: what symbols after a piece's first begin with, and what a piece's last ends with. characters: symbols are
    characters, not bytes.
    """

    kept: tuple
    text: cython.pointer[cython.const[cython.uchar]]
    ends: cython.longlong[::1]
    hidden: cython.pointer[cython.const[cython.uchar]]
    size: cython.Py_ssize_t
    prefix: cython.pointer[cython.const[cython.uchar]]
    prefix_size: cython.Py_ssize_t
    suffix: cython.pointer[cython.const[cython.uchar]]
    suffix_size: cython.Py_ssize_t
    characters: cython.bint
    known: cython.int[::1]
    single: cython.int[::1]
    symbols: cython.Py_ssize_t
    pairs: cython.longlong[::1]
    problem: cython.int

    def __init__(
        self, text: bytes, ends: cython.longlong[::1], hidden: bytes, affixes: tuple, characters: cython.bint
    ):
        prefix: bytes = affixes[0]
        suffix: bytes = affixes[1]
        self.kept = (text, hidden, prefix, suffix)
        self.text, self.hidden, self.prefix, self.suffix = text, hidden, prefix, suffix
        self.prefix_size, self.suffix_size = len(prefix), len(suffix)
        self.ends, self.size, self.characters = ends, ends.shape[0], characters
        self.problem = 0
        self.known = filled("i", power(2 * self.size + 2), -1)
        self.single = filled("i", 4 * 256, -1)
        self.pairs = filled("q", 2, -1)
        self._know_all()
        self.symbols = self._symbols(False)

    def arrays(self) -> tuple:
        """Tokens by bytes, symbols of one byte, and pairs, symbols of more bytes among them."""
        return self.known, self.single, self.pairs

    def merges(self, pairs: cython.int[::1]) -> tuple:
        """Take left, right, left, ... as what is merged, the first first.

        Returns the first of them that can't be and why: 1 an id out of range, 2 no token has the bytes of both, 3 one
        has them all by itself, 4 it came before; -1 and 0 when all can.
        """
        count: cython.Py_ssize_t = pairs.shape[0] // 2
        wrong: cython.Py_ssize_t
        self.pairs = filled("q", 2 * power(2 * (count + self.symbols) + 2), -1)
        self._symbols(True)
        wrong = self._merge_all(pairs)
        return wrong, self.problem

    def ranks(self) -> None:
        """Let any two tokens merge whose bytes together are a token, the lowest id first."""
        count: cython.Py_ssize_t = self._rank_all(False)
        self.pairs = filled("q", 2 * power(2 * (count + self.symbols) + 2), -1)
        self._symbols(True)
        self._rank_all(True)

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _begin(self, token: cython.Py_ssize_t) -> cython.longlong:
        """Where the bytes of a token begin."""
        return self.ends[token - 1] if token > 0 else 0

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _slot(
        self,
        mixed: cython.longlong,
        begin: cython.longlong,
        end: cython.longlong,
        more: cython.longlong,
        last: cython.longlong,
    ) -> cython.longlong:
        """Where the table of tokens has the bytes begin..end followed by more..last, which have this hash, or room for them."""
        mask: cython.longlong = self.known.shape[0] - 1
        slot: cython.longlong = (mixed ^ (mixed >> 15)) & mask
        start: cython.longlong
        i: cython.longlong
        while self.known[slot] >= 0:
            start = self._begin(self.known[slot])
            if self.ends[self.known[slot]] - start == end - begin + last - more:
                i = 0
                while i < end - begin and self.text[start + i] == self.text[begin + i]:
                    i += 1
                if i == end - begin:
                    while (
                        start + i < self.ends[self.known[slot]]
                        and self.text[start + i] == self.text[more + i - end + begin]
                    ):
                        i += 1
                    if start + i == self.ends[self.known[slot]]:
                        break
            slot = (slot + 1) & mask
        return slot

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(check=False)
    def _mix(self, mixed: cython.longlong, begin: cython.longlong, end: cython.longlong) -> cython.longlong:
        """A hash of bytes, going on from one of those before."""
        i: cython.longlong
        for i in range(begin, end):
            mixed = (mixed * 16777619 + self.text[i] + 1) & 0x3FFFFFFF
        return mixed

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _know_all(self) -> cython.void:
        """Fill the table of tokens; of two with the same bytes, the first counts."""
        begin: cython.longlong = 0
        slot: cython.longlong
        i: cython.Py_ssize_t
        for i in range(self.size):
            if self.ends[i] > begin and not self.hidden[i]:
                slot = self._slot(self._mix(0, begin, self.ends[i]), begin, self.ends[i], 0, 0)
                if self.known[slot] < 0:
                    self.known[slot] = i
            begin = self.ends[i]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _symbols(self, note: cython.bint) -> cython.Py_ssize_t:
        """How many tokens are one symbol of several bytes, each way counted; note these and those of one byte."""
        count: cython.Py_ssize_t = 0
        start: cython.longlong
        end: cython.longlong
        key: cython.longlong
        i: cython.longlong
        slot: cython.Py_ssize_t
        token: cython.Py_ssize_t
        way: cython.longlong
        for slot in range(self.known.shape[0]):
            token = self.known[slot]
            if token < 0:
                continue
            for way in range(4):
                if not self._is_symbol(token, way):
                    continue
                start = self._begin(token) + (self.prefix_size if way & 1 else 0)
                end = self.ends[token] - (self.suffix_size if way & 2 else 0)
                if end - start == 1:
                    self.single[256 * way + self.text[start]] = token
                    continue
                count += 1
                if note:
                    key = 0
                    for i in range(start, end):
                        key = key << 8 | self.text[i]
                    put(self.pairs, (1 << 30 | way) << 32 | key, token)
        return count

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _is_symbol(self, token: cython.Py_ssize_t, way: cython.longlong) -> cython.bint:
        """Whether a token is one symbol, with the prefix (way & 1), with the suffix (way & 2), or without."""
        begin: cython.longlong = self._begin(token)
        end: cython.longlong = self.ends[token]
        start: cython.longlong = begin + (self.prefix_size if way & 1 else 0)
        stop: cython.longlong = end - (self.suffix_size if way & 2 else 0)
        i: cython.longlong
        if (way & 1 and self.prefix_size == 0) or (way & 2 and self.suffix_size == 0) or stop <= start:
            return False
        for i in range(begin, start):
            if self.text[i] != self.prefix[i - begin]:
                return False
        for i in range(stop, end):
            if self.text[i] != self.suffix[i - stop]:
                return False
        if not self.characters or self.text[start] < 0xC0:
            return stop - start == 1
        # Of a character that a piece breaks off there are fewer bytes.
        if self.text[start] < 0xE0:
            return stop - start <= 2
        return stop - start <= (3 if self.text[start] < 0xF0 else 4)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _merge_all(self, pairs: cython.int[::1]) -> cython.Py_ssize_t:
        """Fill the table of pairs with merges; the first that can't be, or -1."""
        count: cython.longlong = pairs.shape[0] // 2
        left: cython.longlong
        right: cython.longlong
        begin: cython.longlong
        more: cython.longlong
        mixed: cython.longlong
        result: cython.longlong
        i: cython.longlong
        for i in range(count):
            left = pairs[2 * i]
            right = pairs[2 * i + 1]
            self.problem = 1
            if left < 0 or right < 0 or left >= self.size or right >= self.size:
                return i
            begin = self._begin(left)
            more = self._begin(right)
            if self._is_prefixed(right):
                more += self.prefix_size
            mixed = self._mix(self._mix(0, begin, self.ends[left]), more, self.ends[right])
            result = self.known[self._slot(mixed, begin, self.ends[left], more, self.ends[right])]
            self.problem = 3
            if more == self.ends[right] or begin == self.ends[left] or result in (left, right):
                return i
            self.problem = 2
            if result < 0:
                return i
            self.problem = 4
            if not put(self.pairs, left << 32 | right, i << 32 | result):
                return i
        self.problem = 0
        return -1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _is_prefixed(self, token: cython.Py_ssize_t) -> cython.bint:
        """Whether a token begins with the prefix."""
        begin: cython.longlong = self._begin(token)
        i: cython.longlong = 0
        if self.ends[token] - begin < self.prefix_size:
            return False
        while i < self.prefix_size and self.text[begin + i] == self.prefix[i]:
            i += 1
        return i == self.prefix_size

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _rank_all(self, note: cython.bint) -> cython.Py_ssize_t:
        """How many pairs of tokens make a token; note them in the table of pairs."""
        count: cython.Py_ssize_t = 0
        token: cython.longlong
        left: cython.longlong
        right: cython.longlong
        begin: cython.longlong
        end: cython.longlong
        cut: cython.longlong
        mixed: cython.longlong
        slot: cython.Py_ssize_t
        for slot in range(self.known.shape[0]):
            token = self.known[slot]
            if token < 0:
                continue
            begin = self._begin(token)
            end = self.ends[token]
            mixed = 0
            for cut in range(begin + 1, end):
                mixed = self._mix(mixed, cut - 1, cut)
                left = self.known[self._slot(mixed, begin, cut, 0, 0)]
                if left < 0:
                    continue
                right = self.known[self._slot(self._mix(0, cut, end), cut, end, 0, 0)]
                if right >= 0:
                    count += 1
                    if note:
                        put(self.pairs, left << 32 | right, token << 32 | token)
        return count
