"""One-hot vectors: each word a vector of its own, as far from every other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lineal.errors import DataError, UsageError
from lineal.representations.analysis import check_texts
from lineal.representations.counts import fixed_vocabulary, sparse

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(eq=False)
class OneHot:
    """Row n of the result has a 1 in the column of word n and 0 elsewhere; times a matrix [V, D] it is a look-up of rows.

    vocabulary: the words, instead of those that `fit` sees (in the order of first occurrence). unknown: what becomes of other
    words, "refuse" or a row of "zeros".
    """

    vocabulary: Sequence[str] | None = None
    unknown: str = "refuse"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options and their values."""
        return {"vocabulary": self.vocabulary, "unknown": self.unknown}

    def set_params(self, **params: Any) -> OneHot:
        """Change options; returns itself."""
        for name, value in params.items():
            if name not in ("vocabulary", "unknown"):
                raise UsageError(f"OneHot has no option {name!r}: it has vocabulary, unknown.")
            setattr(self, name, value)
        return self

    def fit(self, words: Iterable[str], y: object = None) -> OneHot:
        """Give each word a column."""
        if self.unknown not in ("refuse", "zeros"):
            raise UsageError(f"unknown={self.unknown!r} can't be: choose refuse or zeros.")
        seen = list(dict.fromkeys(check_texts(words)))
        self.vocabulary_ = fixed_vocabulary(seen if self.vocabulary is None else self.vocabulary)
        return self

    def transform(self, words: Iterable[str]) -> csr_matrix:
        """A row for each word; DataError for one that has no column, unless these are zeros."""
        self._fitted()
        words = list(check_texts(words))
        column = np.array([self.vocabulary_.get(word, -1) for word in words], dtype=np.int32)
        known = column >= 0
        if self.unknown == "refuse" and not known.all():
            at = int(np.argmin(known))
            raise DataError(
                f"Word {at}, {words[at]!r}, is not in the vocabulary: add it, or take OneHot(unknown='zeros')."
            )
        pointer = np.concatenate([[0], np.cumsum(known)]).astype(np.int32)
        shape = (len(words), len(self.vocabulary_))
        return sparse().csr_matrix((np.ones(int(known.sum())), column[known], pointer), shape=shape)

    def fit_transform(self, words: Iterable[str], y: object = None) -> csr_matrix:
        """`fit`, then `transform`."""
        words = list(check_texts(words))
        return self.fit(words).transform(words)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """The word of each column."""
        self._fitted()
        return np.array(sorted(self.vocabulary_, key=self.vocabulary_.__getitem__), dtype=object)

    def _fitted(self) -> None:
        if not hasattr(self, "vocabulary_"):
            raise UsageError("OneHot has no vocabulary yet: call fit first.")
