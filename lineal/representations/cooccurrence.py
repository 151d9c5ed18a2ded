"""Which words stand near which: counts in a window, and the probabilities and ratios that come of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from lineal.errors import DataError, UsageError
from lineal.representations.counts import fixed_vocabulary, sparse

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WEIGHTINGS = ("uniform", "harmonic", "linear")
DIRECTIONS = ("both", "left", "right")
BLOCK = 1 << 20

PAPER = {"solid": 8.9, "gas": 8.5e-2, "water": 1.36, "fashion": 0.96}
"""P(k | ice) / P(k | steam) in table 1 of Pennington et al. 2014, over 6 billion words."""


@dataclass(frozen=True)
class Cooccurrence:
    """X[i, j]: how often word j stands in the window of word i, each time weighted by the distance.

    words: of each row and column. matrix: csr [V, V] of float64.
    """

    words: list[str]
    matrix: csr_matrix

    def row(self, word: str) -> int:
        """The row of a word; DataError for one that there is not."""
        if word not in self.index:
            raise DataError(f"The corpus has no word {word!r}: choose one that it has.")
        return self.index[word]

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each word."""
        return {word: row for row, word in enumerate(self.words)}

    def count(self, word: str, context: str) -> float:
        """X of two words."""
        return float(self.matrix[self.row(word), self.row(context)])

    def probability(self, context: str, word: str) -> float:
        """P(context | word) = X[word, context] / sum_k X[word, k]; 0 for a word that stands alone."""
        row = self.row(word)
        whole = float(self.matrix[row].sum())
        return self.count(word, context) / whole if whole else 0.0


def cooccurrence(
    documents: Iterable[Sequence[str]],
    window: int = 10,
    *,
    direction: str = "both",
    weighting: str = "uniform",
    min_count: int = 1,
    vocabulary: Sequence[str] | None = None,
) -> Cooccurrence:
    """Count which words stand at most `window` words apart in documents, which are lists of words; never across two of them.

    direction: contexts on "both" sides (symmetric), only those before ("left") or after ("right"). weighting of distance d:
    "uniform" 1, "harmonic" 1/d (GloVe's), "linear" (window - d + 1) / window (what word2vec's random windows give on average). min_count
    and vocabulary: which words count; others keep their places, so that they separate what stands beside them.
    Words are in the order of the vocabulary, or of first occurrence. Documents are kept as numbers, 4 bytes a word.
    """
    check(window, direction, weighting)
    index = fixed_vocabulary(vocabulary)
    ids, ends = array("i"), array("q")
    for document in documents:
        if isinstance(document, str):
            raise UsageError(
                "A document was given as one text: cut it into words first, as with text.split()."
            )
        if vocabulary is None:
            ids.extend(index.setdefault(word, len(index)) for word in document)
        else:
            ids.extend(index.get(word, -1) for word in document)
        ends.append(len(ids))
    if not index:
        raise DataError(f"There is no word in {len(ends)} documents: give text.")
    id_N = np.frombuffer(ids, dtype=np.int32).astype(np.int64) if ids else np.zeros(0, np.int64)
    size = len(index)
    if vocabulary is None and min_count > 1:
        kept = np.flatnonzero(np.bincount(id_N, minlength=size) >= min_count)
        if not len(kept):
            raise DataError(f"No word occurs {min_count} times in {len(ends)} documents: lower min_count.")
        new = np.full(size + 1, -1, dtype=np.int64)
        new[kept] = np.arange(len(kept))
        names = list(index)
        id_N, index = new[id_N], {names[i]: at for at, i in enumerate(kept.tolist())}
    document_N = np.repeat(np.arange(len(ends)), np.diff([0, *ends]))
    return Cooccurrence(list(index), _count(id_N, document_N, len(index), (window, direction, weighting)))


def check(window: int, direction: str, weighting: str) -> None:
    """UsageError for a window, direction or weighting that can't be."""
    if window < 1:
        raise UsageError(f"A window of {window} has no neighbours: give at least 1.")
    if direction not in DIRECTIONS:
        raise UsageError(f"direction={direction!r} can't be: choose one of {', '.join(DIRECTIONS)}.")
    if weighting not in WEIGHTINGS:
        raise UsageError(f"weighting={weighting!r} can't be: choose one of {', '.join(WEIGHTINGS)}.")


def _count(
    id_N: Int64[np.ndarray, " N"], document_N: Int64[np.ndarray, " N"], size: int, how: tuple[int, str, str]
) -> csr_matrix:
    window, direction, weighting = how
    found = sparse().csr_matrix((size, size), dtype=np.float64)
    for distance in range(1, min(window, len(id_N)) + 1):
        weight = {"uniform": 1.0, "harmonic": 1 / distance, "linear": (window - distance + 1) / window}[
            weighting
        ]
        for at in range(0, len(id_N) - distance, BLOCK):
            left = slice(at, min(at + BLOCK, len(id_N) - distance))
            right = slice(left.start + distance, left.stop + distance)
            fits = (document_N[left] == document_N[right]) & (id_N[left] >= 0) & (id_N[right] >= 0)
            one, other = id_N[left][fits], id_N[right][fits]
            weights = np.full(len(one), weight)
            # A row's context on its right is the later word.
            if direction != "left":
                found = found + sparse().csr_matrix((weights, (one, other)), shape=(size, size))
            if direction != "right":
                found = found + sparse().csr_matrix((weights, (other, one)), shape=(size, size))
    return found


def probability_ratios(
    counts: Cooccurrence, one: str, other: str, probes: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Of each probe k: P(k | one), P(k | other), and the first over the second (inf over 0, nan of 0 over 0, as where the corpus
    has no such word).

    Far above 1 the probe belongs to the first word, near 0 to the second, near 1 to both or neither (Pennington et al. 2014, table 1).
    """
    for word in (one, other):
        counts.row(word)
    found = {}
    for probe in probes:
        known = probe in counts.index
        first, second = (counts.probability(probe, word) if known else 0.0 for word in (one, other))
        with np.errstate(divide="ignore", invalid="ignore"):
            found[probe] = (first, second, float(np.float64(first) / np.float64(second)))
    return found


def probabilities(counts: Cooccurrence) -> Float64[np.ndarray, "V V"]:
    """P(j | i) of all words, for small vocabularies; a row of zeros where a word stands alone."""
    counts_VV = counts.matrix.toarray()
    whole_V = counts_VV.sum(axis=1, keepdims=True)
    return counts_VV / np.where(whole_V == 0, 1.0, whole_V)
