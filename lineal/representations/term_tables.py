"""Terms and how often each occurs in each document: as a dict, and on flat arrays through the compiled core."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64

from lineal import native
from lineal.errors import DataError, UsageError
from lineal.representations.analysis import Analysis

MOST = 1 << 30
"""Nodes that a key has room for."""
PADDING = bytes(8)
"""The core reads words by eight bytes."""


@dataclass(frozen=True)
class Counted:
    """What a batch of documents holds: nodes and counts one document after another, where each ends, and its length.

    A node is in a document once, in the order of first occurrence; `total` counts every term, whether it has a node or not.
    """

    node_N: Int32[np.ndarray, " N"]
    count_N: Int32[np.ndarray, " N"]
    end_B: Int64[np.ndarray, " B"]
    total_B: Int64[np.ndarray, " B"]


@runtime_checkable
class TermTable(Protocol):
    """Terms and their nodes, numbered as they are first met; nodes may also be what n-grams are made of."""

    def count(self, texts: Sequence[str], grow: bool) -> Counted:
        """Count the terms of documents; new ones get nodes if `grow`."""
        ...

    def terms(self) -> list[str]:
        """The text of each node."""
        ...

    def document_counts(self) -> Int64[np.ndarray, " V"]:
        """In how many of the documents counted with `grow` each node is; below 1 for what is no term."""
        ...


class DictTable:
    """The obvious form: any analysis, one term after another."""

    def __init__(self, analysis: Analysis, vocabulary: Sequence[str] = ()) -> None:
        self._terms = analysis.terms()
        self._nodes = {term: node for node, term in enumerate(vocabulary)}
        self._documents_V = np.zeros(len(self._nodes), dtype=np.int64)

    def count(self, texts: Sequence[str], grow: bool) -> Counted:
        """As `TermTable`."""
        index, nodes, counts = self._nodes, array("i"), array("i")
        ends, totals = [], []
        for text in texts:
            found = Counter(self._terms(text))
            totals.append(found.total())
            if not grow:
                found = {term: count for term, count in found.items() if term in index}
            nodes.extend([index.setdefault(term, len(index)) for term in found])
            counts.extend(found.values())
            ends.append(len(nodes))
        node_N = np.array(nodes, dtype=np.int32)
        if grow:
            # A node is in a document once.
            more_V = np.bincount(node_N, minlength=len(index))
            more_V[: len(self._documents_V)] += self._documents_V
            self._documents_V = more_V
        return Counted(
            node_N,
            np.array(counts, dtype=np.int32),
            np.array(ends, dtype=np.int64),
            np.array(totals, dtype=np.int64),
        )

    def terms(self) -> list[str]:
        """As `TermTable`."""
        return list(self._nodes)

    def document_counts(self) -> Int64[np.ndarray, " V"]:
        """As `TermTable`."""
        return self._documents_V


class FlatTable:
    """Words and word n-grams by the compiled core; the same counts as `DictTable`, with nodes in another order."""

    def __init__(self, core: Any, analysis: Analysis, vocabulary: Sequence[str] = ()) -> None:
        self._core = core
        self._analysis = analysis
        low, high = analysis.ngram_range
        self._state = np.array([low, high, *[0] * 6, *[-1] * high], dtype=np.int64)
        self._slots = np.zeros(2, dtype=np.int64)
        self._nodes = np.zeros((0, 5), dtype=np.int64)
        self._arena = np.zeros(0, dtype=np.uint8)
        stop = [word for word in analysis.stop_words or () if self._is_word(word)]
        self._learn(stop, -1)
        self._learn(vocabulary, 0)

    def count(self, texts: Sequence[str], grow: bool) -> Counted:
        """As `TermTable`."""
        prepare = self._analysis.prepare
        parts = [prepare(text).encode("utf-8", "surrogatepass") for text in texts]
        data = np.frombuffer(b"".join([*parts, PADDING]), dtype=np.uint8)
        documents = np.zeros((len(parts), 3), dtype=np.int64)
        documents[:, 0] = list(accumulate(map(len, parts)))
        low, high = self._analysis.ngram_range
        out = np.empty(((len(data) // 2 + 1) * (high - low + 1), 2), dtype=np.int32)
        kinds, state = word_kinds(_highest(int(data.max()))), self._state
        state[2], state[5], state[7] = grow, 0, 0
        while state[7] < len(parts):
            self._core.count(data, kinds, documents, state, self._slots, self._nodes, self._arena, out)
            if state[7] < len(parts):
                self._reserve(len(parts[state[7]]))
        used = out[: self._state[5]]
        return Counted(
            used[:, 0].copy(),
            used[:, 1].copy(),
            np.ascontiguousarray(documents[:, 1]),
            documents[:, 2].copy(),
        )

    def terms(self) -> list[str]:
        """As `TermTable`."""
        words = self._arena[: self._state[4]].tobytes().decode("utf-8", "surrogatepass").split("\n")[:-1]
        if len(words) == self._state[3]:
            return words
        found, left = [], iter(words)
        for start, size in self._nodes[: self._state[3], :2].tolist():
            found.append(f"{found[start]} {found[-1 - size]}" if size < 0 else next(left))
        return found

    def document_counts(self) -> Int64[np.ndarray, " V"]:
        """As `TermTable`."""
        return self._nodes[: self._state[3], 2].copy()

    def _reserve(self, size: int) -> None:
        """Make room for the new words and n-grams that a document of so many bytes may have."""
        used, filled = int(self._state[3]), int(self._state[4])
        wanted = max(2 * len(self._nodes), used + (size // 2 + 1) * self._analysis.ngram_range[1])
        if used > MOST // 2:
            raise DataError(f"More than {MOST // 2:,} different words and n-grams: shorten ngram_range.")
        nodes = np.zeros((wanted, 5), dtype=np.int64)
        nodes[:used] = self._nodes[:used]
        arena = np.zeros(max(2 * len(self._arena), filled + size + 1 + len(PADDING)), dtype=np.uint8)
        arena[:filled] = self._arena[:filled]
        self._nodes, self._arena = nodes, arena
        self._slots = np.zeros(2 << (2 * wanted - 1).bit_length(), dtype=np.int64)
        self._core.place(self._state, self._slots, nodes, arena)

    def _is_word(self, text: str) -> bool:
        """Whether the rules can give this word."""
        return re.fullmatch(r"\w\w+", text) is not None and self._analysis.prepare(text) == text

    def _learn(self, terms: Sequence[str], documents: int) -> None:
        """Make the nodes of terms, as if they had been seen in so many documents."""
        known = int(self._state[3])
        if terms:
            self.count(terms, grow=True)
        self._nodes[:, 2] = np.minimum(self._nodes[:, 2], 0)
        self._nodes[known:, 2] = documents


def table_for(analysis: Analysis, vocabulary: Sequence[str] = ()) -> TermTable:
    """The compiled form where it knows the rules and is there, else the obvious one."""
    core = term_core() if analysis.by_core else None
    return FlatTable(core, analysis, vocabulary) if core else DictTable(analysis, vocabulary)


@cache
def term_core() -> ModuleType | None:
    """The compiled core, or None."""
    return native.compiled("lineal.representations.core.terms")


def _highest(byte: int) -> int:
    """The highest code point in a text in UTF-8 whose highest byte is given, at most: the first byte of a character decides."""
    return 0x7F if byte < 0x80 else 0x2FFF if byte < 0xE3 else 0xFFFF if byte < 0xF0 else 0x10FFFF


@cache
def _kinds(size: int) -> Any:
    table = np.zeros(size, dtype=np.uint8)
    for run in re.finditer(r"\w+", "".join(map(chr, range(size)))):
        table[run.start() : run.end()] = 1
    return table


def word_kinds(highest: int) -> Any:
    r"""For each code point up to `highest` at least, 1 where Python's \w holds."""
    # Most texts need one of the first two, and the last takes a tenth of a second to make.
    return _kinds(next(size for size in (0x80, 0x3000, 0x10000, 0x110000) if highest < size))


def batches(texts: Iterable[str], size: int = 1 << 18) -> Iterator[list[str]]:
    """Texts by some `size` characters at a time; UsageError for what is no text."""
    batch, seen = [], 0
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"Document {number} is {type(text).__name__}, not text: give strings.")
        batch.append(text)
        seen += len(text)
        if seen >= size:
            yield batch
            batch, seen = [], 0
    if batch:
        yield batch
