"""Pairs of texts from raw documents, as BERT's next-sentence prediction has them: a function of (seed, variant, document).

The two texts of a pair are stretches of a document's sentences, together as long as fits; half of the time the second one is
taken from another document instead (Devlin et al. 2018, section 3.1, task 2). Where the authors' code pairs a sentence that
stands alone with a random one, none is made here, so that half of the pairs are true ones.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineal.errors import DataError
from lineal.tokenizers import Tokenizer
from lineal.train.order import hash64

PAIRS = 14
"""Sets the hashes of pairs apart."""
END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z0-9])")
"""Where a sentence ends: a stop, what closes after it, a space, and what a sentence begins with."""
Ints = NDArray[np.int64]


def segments(text: str, cut: str) -> list[str]:
    """The segments of a document: its lines that are not empty; cut "sentences": each line in its sentences too."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if cut == "lines":
        return lines
    return [part for line in lines for part in _sentences(line) if part]


def _sentences(line: str) -> Iterator[str]:
    start = 0
    for found in END.finditer(line):
        yield line[start : found.end()].strip()
        start = found.end()
    yield line[start:].strip()


def documents_of(texts: Iterable[str], words: int = 0) -> list[str]:
    """Texts parted at their blank lines; or, with words, at the line with which a document has so many words.

    The second is for novels, where a blank line parts paragraphs, or nothing at all.
    """
    found: list[str] = []
    for text in texts:
        if not words:
            found += [part.strip("\n") for part in re.split(r"\n[^\S\n]*\n\s*", text) if part.strip()]
            continue
        kept: list[str] = []
        held = 0
        for line in text.splitlines():
            held += len(line.split())
            if line.strip():
                kept.append(line)
            if held >= words:
                found.append("\n".join(kept))
                kept, held = [], 0
        if kept:
            found.append("\n".join(kept))
    return found


@dataclass(frozen=True)
class Documents:
    """Documents as ids, flat: segment i is token_N[at[i] : at[i + 1]]; document d has the segments first[d] .. first[d + 1]."""

    token_N: NDArray[np.int32]
    at: Ints
    first: Ints

    def __len__(self) -> int:
        return len(self.first) - 1


def encode_documents(texts: Sequence[str], tokenizer: Tokenizer, cut: str) -> Documents:
    """Every document's segments as ids; segments and documents of which nothing is left are passed over."""
    tokens: list[NDArray[np.int32]] = []
    sizes: list[int] = []
    counts: list[int] = []
    for text in texts:
        own = [ids for part in segments(text, cut) if (ids := tokenizer.encode(part))]
        if own:
            counts.append(len(own))
            sizes += map(len, own)
            tokens.append(np.concatenate([np.asarray(ids, dtype=np.int32) for ids in own]))
    if not counts:
        raise DataError("there is no text to learn from: every document is empty.")
    at, first = (np.concatenate(([0], np.cumsum(part))) for part in (sizes, counts))
    return Documents(np.concatenate(tokens), at, first)


@dataclass(frozen=True)
class PairRows:
    """Pairs by where their texts stand among the tokens: first begin and end, second begin and end; and whether the second
    one was taken from another document.
    """

    place_N4: NDArray[np.int64]
    random_N: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.random_N)

    def lengths(self) -> Ints:
        """Of both texts together, without special tokens."""
        place = self.place_N4
        return place[:, 1] - place[:, 0] + place[:, 3] - place[:, 2]


def make_pairs(data: Documents, room: int, short: float, *draw: int) -> PairRows:
    """All pairs of one variant of the data.

    room: pieces of both texts together. short: the chance that a pair aims at a random shorter length. draw: (seed, variant).
    Where there is only one document, a second text taken from anywhere comes from another place in it.
    """
    places: list[tuple[int, int, int, int]] = []
    taken: list[bool] = []
    seeds = hash64(*draw, PAIRS, np.arange(len(data), dtype=np.uint64)).tolist()
    at = data.at.tolist()
    first = data.first.tolist()
    for document, seed in enumerate(seeds):
        for place, other in _pairs_of(at, first, document, room, short, random.Random(seed)):
            places.append(place)
            taken.append(other)
    if not places:
        raise DataError(
            "no document has two sentences, so no pair can be made: give documents of several lines, or --cut sentences."
        )
    return PairRows(np.array(places, dtype=np.int64), np.array(taken))


Place = tuple[int, int, int, int]


def _pairs_of(
    at: list[int], first: list[int], document: int, room: int, short: float, draw: random.Random
) -> Iterator[tuple[Place, bool]]:
    start, end = first[document], first[document + 1]
    # A sentence with nothing behind it makes no pair: its second text could only be a random one.
    while start < end - 1:
        target = room if draw.random() >= short else draw.randint(2, room)
        stop = start + 2
        while stop < end and at[stop] - at[start] < target:
            stop += 1
        middle = start + draw.randint(1, stop - start - 1)
        other = draw.random() < 0.5
        if other:
            begin, finish = _elsewhere(at, first, document, target - (at[middle] - at[start]), draw)
        else:
            begin, finish = middle, stop
        yield _cut((at[start], at[middle], at[begin], at[finish]), room, draw), other
        # What the second text would have been is used by the next pair.
        start = middle if other else stop


def _elsewhere(
    at: list[int], first: list[int], document: int, room: int, draw: random.Random
) -> tuple[int, int]:
    """Segments from a random place in another document, about `room` pieces long."""
    count = len(first) - 1
    other = document
    for _ in range(10):
        if count == 1:
            break
        other = draw.randrange(count)
        if other != document:
            break
    begin = draw.randrange(first[other], first[other + 1])
    stop = begin + 1
    while stop < first[other + 1] and at[stop] - at[begin] < room:
        stop += 1
    return begin, stop


def _cut(place: Place, room: int, draw: random.Random) -> Place:
    """The longer text loses pieces, from its front and its end at random, until both fit."""
    a, b, c, d = place
    while (b - a) + (d - c) > room:
        front = draw.random() < 0.5
        if b - a > d - c:
            a, b = (a + 1, b) if front else (a, b - 1)
        else:
            c, d = (c + 1, d) if front else (c, d - 1)
    return a, b, c, d
