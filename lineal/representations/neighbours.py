"""Nearest neighbours of vectors by cosine: exact, as blocks of matrix products; and an index for millions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lineal.errors import UsageError
from lineal.representations.vectors import Vectors, unit_rows

Neighbours = list[tuple[str, float]]
SCORES = 1 << 24
"""Scores that are in memory at a time."""


def near(
    vectors: Vectors,
    words: str | Sequence[str],
    count: int = 10,
    *,
    minus: Sequence[str] = (),
) -> Neighbours:
    """The words nearest to a word, or to the sum of unit vectors of several, those of `minus` taken off; none of them is among them.

    cos(x, v) of x = sum of words - sum of minus; 0 where either is zero. Equal cosines: the more frequent first.
    Raises DataError for a word without a vector.
    """
    plus = [words] if isinstance(words, str) else list(words)
    if not plus and not minus:
        raise UsageError("Nothing was asked for: give a word at least.")
    rows = vectors.rows([*plus, *minus])
    signs = np.array([1.0] * len(plus) + [-1.0] * len(minus), dtype=np.float32)
    query_D = (unit_rows(vectors.matrix[rows]) * signs[:, None]).sum(axis=0)
    hidden = np.zeros(len(vectors), dtype=bool)
    hidden[rows] = True
    found_NK, score_NK = nearest(vectors, query_D[None], count, hidden)
    return [(vectors.words[row], float(score)) for row, score in zip(found_NK[0], score_NK[0])]


def nearest(
    vectors: Vectors,
    query_ND: Float32[np.ndarray, "N D"],
    count: int,
    hidden_V: Bool[np.ndarray, " V"] | None = None,
) -> tuple[Int64[np.ndarray, "N K"], Float32[np.ndarray, "N K"]]:
    """The rows with the highest cosine to each query, the highest first, and the cosines; those hidden are left out.

    Equal cosines: the lower row first. Memory follows the block, not V x N.
    """
    if count < 1:
        raise UsageError(f"{count} neighbours can't be: ask for at least 1.")
    left = len(vectors) - (0 if hidden_V is None else int(hidden_V.sum()))
    count = min(count, left)
    query_ND = unit_rows(query_ND)
    step = min(1 << 17, max(1, SCORES // max(1, len(query_ND))))
    best_NK = np.zeros((len(query_ND), 0), dtype=np.int64)
    score_NK = np.zeros((len(query_ND), 0), dtype=np.float32)
    for at, unit_SD in vectors.unit_blocks(step):
        score_NS = query_ND @ unit_SD.T
        if hidden_V is not None:
            score_NS[:, hidden_V[at : at + step]] = -np.inf
        row_NS = np.broadcast_to(np.arange(at, at + score_NS.shape[1]), score_NS.shape)
        best_NK, score_NK = _best(
            np.concatenate([best_NK, row_NS], axis=1), np.concatenate([score_NK, score_NS], axis=1), count
        )
    return best_NK, score_NK


def _best(row_NS: Any, score_NS: Any, count: int) -> tuple[Any, Any]:
    """The `count` highest scores of each row, in order; of equal ones those that stand first."""
    if score_NS.shape[1] > 4 * count:
        # All that reach the count-th score, of which a tie may have more than are wanted.
        floor = np.partition(score_NS, -count, axis=1)[:, -count]
        reach = int((score_NS >= floor[:, None]).sum(axis=1).max())
        chosen = np.sort(
            np.argpartition(-score_NS, min(reach, score_NS.shape[1]) - 1, axis=1)[:, :reach], axis=1
        )
        row_NS = np.take_along_axis(row_NS, chosen, axis=1)
        score_NS = np.take_along_axis(score_NS, chosen, axis=1)
    order = np.argsort(-score_NS, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(row_NS, order, axis=1), np.take_along_axis(score_NS, order, axis=1)


class NeighbourIndex:
    """Approximate neighbours of millions of words, in a graph of small worlds (HNSW) of faiss: the extra `index`.

    links: of each word in the graph; effort: how many candidates a search keeps. More of either finds more of the true
    neighbours, and takes longer. What it misses, `near` finds.
    """

    def __init__(self, vectors: Vectors, *, links: int = 32, effort: int = 128) -> None:
        try:
            import faiss
        except ImportError as error:
            raise UsageError(
                "An index needs faiss: pip install 'lineal[index]'; near() is exact, without it."
            ) from error
        self.vectors = vectors
        self._index: Any = faiss.IndexHNSWFlat(vectors.dimensions, links, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = self._index.hnsw.efSearch = effort
        self._index.add(vectors.unit)

    def near(self, words: str | Iterable[str], count: int = 10) -> list[Neighbours]:
        """The neighbours of each word, itself left out."""
        asked = [words] if isinstance(words, str) else list(words)
        rows = self.vectors.rows(asked)
        score_NK, row_NK = self._index.search(np.ascontiguousarray(self.vectors.unit[rows]), count + 1)
        names = self.vectors.words
        return [
            [(names[r], float(s)) for r, s in zip(found, scores) if r >= 0 and r != own][:count]
            for own, found, scores in zip(rows, row_NK, score_NK)
        ]
