"""How often runs of words occur, on sorted arrays: what an n-gram language model is made of.

An n-gram of length m is a node of table m: its first m - 1 words are a node of table m - 1 (its context), and its key is
context x V + last word. Tables are sorted by key, so a context's continuations stand side by side, and looking
many up at once is one binary search.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from lineal.errors import DataError, UsageError

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = (START, END, UNKNOWN)


@dataclass(frozen=True)
class Table:
    """The n-grams of one length: keys in order; how often each occurs; each without its first word, as a node of the shorter
    table; whether it begins with <s>."""

    key_N: Int64[np.ndarray, " N"]
    count_N: Int64[np.ndarray, " N"]
    suffix_N: Int64[np.ndarray, " N"]
    starts_N: np.ndarray

    def find(self, key_M: Int64[np.ndarray, " M"]) -> Int64[np.ndarray, " M"]:
        """The node of each key; -1 where there is none."""
        if not len(self.key_N):
            return np.full(len(key_M), -1)
        place = np.searchsorted(self.key_N, key_M)
        place[place == len(self.key_N)] = 0
        return np.where(self.key_N[place] == key_M, place, -1)


@dataclass(frozen=True)
class NGrams:
    """words: <s>, </s>, <unk>, then those of the texts by first occurrence. tables[m - 1]: the n-grams of length m."""

    words: list[str]
    tables: list[Table]

    @property
    def order(self) -> int:
        """The longest n-gram."""
        return len(self.tables)

    def ids(self, index: dict[str, int], document: Sequence[str]) -> list[int]:
        """<s>, the words, </s>; <unk> for a word that there is not."""
        return [0, *(index.get(word, 2) for word in document), 1]


def count_ngrams(documents: Iterable[Sequence[str]], order: int, min_count: int = 1) -> NGrams:
    """Count the n-grams of up to `order` words within documents (lists of words), each between <s> and </s>.

    Words that occur fewer than `min_count` times count as <unk>. Documents stay in memory as numbers.
    Raises DataError where there is no word, or one of the three marks stands in a text.
    """
    if order < 1:
        raise UsageError(f"order={order} can't be: a model of single words has order 1.")
    index = {word: at for at, word in enumerate(SPECIAL)}
    ids, ends = array("i"), array("q")
    for number, document in enumerate(documents):
        if isinstance(document, str):
            raise UsageError(
                "A document was given as one text: cut it into words first, as with text.split()."
            )
        ids.append(0)
        ids.extend(index.setdefault(word, len(index)) for word in document)
        ids.append(1)
        ends.append(len(ids))
        for mark in (START, END):
            if mark in document:
                raise DataError(f"Document {number} has the word {mark!r}, which marks its ends: rename it.")
    if len(ids) == 2 * len(ends):
        raise DataError(f"There is no word in {len(ends)} documents: give text.")
    id_N = np.frombuffer(ids, dtype=np.int32).astype(np.int64)
    words = list(index)
    if min_count > 1:
        id_N, words = _rare_to_unknown(id_N, words, min_count)
    return NGrams(words, _tables(id_N, np.diff([0, *ends]), len(words), order))


def _rare_to_unknown(
    id_N: Int64[np.ndarray, " N"], words: list[str], min_count: int
) -> tuple[Int64[np.ndarray, " N"], list[str]]:
    kept = np.bincount(id_N, minlength=len(words)) >= min_count
    kept[:3] = True
    if kept.sum() == 3:
        raise DataError(f"No word occurs {min_count} times: lower min_count.")
    new = np.where(kept, np.cumsum(kept) - 1, 2)
    return new[id_N], [word for word, keep in zip(words, kept) if keep]


def _tables(
    id_N: Int64[np.ndarray, " N"], length_B: Int64[np.ndarray, " B"], size: int, order: int
) -> list[Table]:
    """The n-grams of each length from a corpus in a row."""
    begin_B = np.cumsum(length_B) - length_B
    place_N = np.arange(len(id_N)) - np.repeat(begin_B, length_B)
    plain = np.arange(size)
    starts = plain == 0
    tables = [Table(plain, np.bincount(id_N, minlength=size), np.zeros(size, dtype=np.int64), starts)]
    # The node of the n-gram that ends at each place; where a document is too short for one, no matter.
    node_N = id_N
    for length in range(2, order + 1):
        at = np.flatnonzero(place_N >= length - 1)
        key, first, inverse, count = np.unique(
            node_N[at - 1] * size + id_N[at], return_index=True, return_inverse=True, return_counts=True
        )
        begins = tables[-1].starts_N[key // size]
        tables.append(Table(key, count, node_N[at[first]], begins))
        node_N = np.zeros(len(id_N), dtype=np.int64)
        node_N[at] = inverse
    return tables
