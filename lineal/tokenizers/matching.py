"""Longest match by the compiled core, as WordPiece and word level use it."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from functools import cache
from types import ModuleType

from lineal import native

SLOTS = 1 << 16
"""Words that each thread remembers, 32 bytes each."""
ROOM = 1 << 20
"""Ids that each thread keeps room for."""
MOST = (1 << 21) - 2
"""Ids, and bytes of all tokens, that the core has room for."""


@cache
def matching_core() -> ModuleType | None:
    """The compiled core, or None."""
    return native.compiled("lineal.tokenizers.core.wordpiece") if sys.byteorder == "little" else None


class Matcher:
    """A vocabulary as the core reads it, and what its threads remember."""

    def __init__(self, core: ModuleType, tokens: Sequence[bytes], prefix: bytes):
        self._core = core
        self._edges, self._ids = grow(core, tokens, prefix)
        # The list of ids is made of these very objects.
        self._numbers = tuple(range(len(tokens) + 1))
        self._rooms: list[tuple[array[int], array[int]]] = []

    @staticmethod
    def of(tokens: Sequence[bytes], prefix: bytes) -> Matcher | None:
        """One for these tokens, or None where there is no core or not enough room in it."""
        core = matching_core()
        if core is None or len(tokens) > MOST or sum(map(len, tokens)) > MOST:
            return None
        return Matcher(core, tokens, prefix)

    def encode(self, data: bytes, spans: array[int], longest_word: int, unknown: int) -> list[int]:
        """Ids of the pieces of a text. Threads may call it at once."""
        try:
            memory, out = self._rooms.pop()
        except IndexError:
            memory, out = array("q", bytes(32 * SLOTS)), array("i")
        if len(out) < len(data) + 3:
            out = array("i", bytes(4 * len(data) + 12))
        count = self._core.encode(self._edges, self._ids, data, spans, longest_word, unknown, memory, out)
        found = self._core.listed(out, count, self._numbers)
        self._rooms.append((memory, out if len(out) < ROOM else array("i")))
        return found


def grow(core: ModuleType, tokens: Sequence[bytes], prefix: bytes) -> tuple[array[int], array[int]]:
    """The edges of the tree of tokens, and the token that ends at each node."""
    data, ends = b"".join(tokens), array("q")
    end = 0
    for token in tokens:
        end += len(token)
        ends.append(end)
    most = len(data) + sum(len(token) - len(prefix) for token in tokens if token.startswith(prefix)) + 2
    wide, ids = array("i", bytes(8 << (2 * most).bit_length())), array("i", [-1]) * most
    nodes = core.grow(wide, ids, data, ends, prefix)
    edges = array("i", bytes(8 << (2 * nodes).bit_length()))
    core.move(wide, edges)
    return edges, ids[:nodes]
