"""Words and their vectors: what training makes, what files hold, and what evaluation reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64

from lineal.errors import DataError

KEPT = 1 << 30
"""Bytes of unit rows that are kept in memory."""


class Vectors:
    """V words, each with a row of a matrix [V, D] of float32, which may lie in a file (a memory map).

    words: row i of the matrix belongs to words[i]; all differ, the most frequent first where that is known.
    Raises DataError where the two don't fit together, or for a word that stands there twice.
    """

    def __init__(self, words: Sequence[str], matrix: Float32[np.ndarray, "V D"]) -> None:
        self.words = words if isinstance(words, list) else list(words)
        self.matrix = matrix
        if len(self.words) != len(matrix):
            raise DataError(f"{len(self.words)} words can't share {len(matrix)} vectors: give one of each.")

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each word; made when it is first asked for. Raises DataError for a word that is there twice."""
        found = {word: row for row, word in enumerate(self.words)}
        if len(found) < len(self.words):
            again = next(word for row, word in enumerate(self.words) if found[word] != row)
            raise DataError(f"The word {again!r} has more than one vector: keep one.")
        return found

    @cached_property
    def unit(self) -> Float32[np.ndarray, "V D"]:
        """The rows at length 1, in memory; a row of zeros stays so, hence its cosine with anything is 0."""
        return unit_rows(self.matrix)

    @property
    def dimensions(self) -> int:
        """D."""
        return self.matrix.shape[1]

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> Float32[np.ndarray, " D"]:
        return self.matrix[self.row(word)]

    def __repr__(self) -> str:
        return f"Vectors({len(self):,} words, {self.dimensions} dimensions)"

    def row(self, word: str) -> int:
        """The row of a word; DataError, with the nearest spelling, for one that has none."""
        found = self.index.get(word)
        if found is None:
            raise DataError(f"There is no vector of {word!r}{self._nearest(word)}.")
        return found

    def rows(self, words: Iterable[str]) -> Int64[np.ndarray, " N"]:
        """The rows of words; DataError for one that has none."""
        return np.array([self.row(word) for word in words], dtype=np.int64)

    def cosine(self, one: str, other: str) -> float:
        """a b / (|a| |b|) in float64; 0 where a vector is zero."""
        a_D, b_D = (np.asarray(self[word], dtype=np.float64) for word in (one, other))
        lengths = float(np.linalg.norm(a_D) * np.linalg.norm(b_D))
        return float(a_D @ b_D) / lengths if lengths else 0.0

    def only(self, words: Iterable[str]) -> Vectors:
        """The vectors of these words, in memory, in this order; DataError for one that has none."""
        chosen = list(words)
        return Vectors(chosen, np.ascontiguousarray(self.matrix[self.rows(chosen)]))

    def first(self, count: int) -> Vectors:
        """Those of the first `count` words, which are the most frequent in most files."""
        return Vectors(self.words[:count], self.matrix[:count])

    def unit_blocks(self, rows: int = 1 << 16) -> Iterator[tuple[int, Float32[np.ndarray, "N D"]]]:
        """`unit` in blocks, each with its first row: made on the way, block by block, where all of it would take too much memory."""
        kept = "unit" in self.__dict__ or self.matrix.nbytes <= KEPT
        for at in range(0, len(self), rows):
            yield at, self.unit[at : at + rows] if kept else unit_rows(self.matrix[at : at + rows])

    def _nearest(self, word: str) -> str:
        for other in (word.lower(), word.capitalize(), word.upper()):
            if other in self.index:
                return f"; there is one of {other!r}"
        # Among the frequent ones only: of millions of words this would take minutes.
        close = difflib.get_close_matches(word, self.words[:50_000], n=1, cutoff=0.75)
        return f"; did you mean {close[0]!r}?" if close else ": choose a word of its vocabulary"


def unit_rows(matrix: Float32[np.ndarray, "V D"], block: int = 1 << 16) -> Float32[np.ndarray, "V D"]:
    """Each row divided by its length, a row of zeros left as it is; `block` rows at a time."""
    found = np.empty(matrix.shape, dtype=np.float32)
    for at in range(0, len(matrix), block):
        rows = np.asarray(matrix[at : at + block], dtype=np.float64)
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        lengths[lengths == 0] = 1.0
        found[at : at + block] = rows / lengths[:, None]
    return found
