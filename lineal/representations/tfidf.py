"""TF-IDF: terms weighted by how much they tell one document from another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from lineal.errors import DataError, UsageError
from lineal.representations.counts import BagOfWords, with_data
from lineal.representations.term_tables import Counted

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FORMS = ("smooth", "textbook")


@dataclass(eq=False)
class Tfidf(BagOfWords):
    """Two forms of tf x idf over N documents, n_t of which have term t, c the count of t in d.

    form="textbook": c / |d| x ln(N / n_t), |d| the number of terms of d, those outside the vocabulary among them.
    form="smooth" (scikit-learn's, and equal to it to 1e-12): c x (ln((1 + N) / (1 + n_t)) + 1), then each row divided by
    its length. Its switches have scikit-learn's names: norm ("l2", "l1" or None), use_idf, smooth_idf (False: ln(N / n_t) + 1),
    sublinear_tf (1 + ln c for c). They belong to "smooth" only.
    """

    form: str = "smooth"
    norm: str | None = "l2"
    use_idf: bool = True
    smooth_idf: bool = True
    sublinear_tf: bool = False

    def fit(self, texts: Iterable[str], y: object = None) -> Tfidf:
        """Learn the vocabulary and in how many documents each term is."""
        super().fit(texts)
        return self

    @property
    def idf_(self) -> Float64[np.ndarray, " V"]:
        """The second factor of each column."""
        self._fitted()
        if not hasattr(self, "_documents"):
            raise UsageError("A vocabulary without documents has no document frequencies: call fit first.")
        return inverse_document_frequency(self._in_N, self._documents, self.form == "smooth", self.smooth_idf)

    def _analysis(self) -> Any:
        plain = {f.name: f.default for f in dataclasses.fields(Tfidf)}
        if self.form not in FORMS:
            raise UsageError(f"form={self.form!r} can't be: choose one of {', '.join(FORMS)}.")
        if self.norm not in ("l1", "l2", None):
            raise UsageError(f"norm={self.norm!r} can't be: choose l1, l2 or None.")
        for name in ("norm", "use_idf", "smooth_idf", "sublinear_tf"):
            if self.form == "textbook" and getattr(self, name) != plain[name]:
                raise UsageError(f"form='textbook' has no {name}: leave it out, or take form='smooth'.")
        return super()._analysis()

    def _fit(self, texts: Iterable[str], keep: bool) -> list[Counted]:
        # Of a vocabulary that was given, the documents that have each term are not known from its table.
        given = self.vocabulary is not None
        counted = super()._fit(texts, keep or given)
        if given:
            rows = self._rows(counted)
            self._in_N = np.bincount(rows.indices, minlength=len(self.vocabulary_))
        return counted

    def _matrix(self, counted: Sequence[Counted]) -> csr_matrix:
        matrix = self._rows(counted)
        weights = matrix.data.astype(np.float64)
        rows = np.diff(matrix.indptr)
        if self.form == "textbook":
            total_B = np.concatenate([part.total_B for part in counted] or [np.zeros(0)])
            weights /= np.repeat(total_B, rows)
            weights *= self._idf_of(matrix.indices)
        else:
            if self.sublinear_tf:
                weights = np.log(weights) + 1.0
            if self.use_idf:
                weights *= self._idf_of(matrix.indices)
            if self.norm:
                weights /= np.repeat(row_norms(weights, matrix.indptr, self.norm), rows)
        return with_data(matrix, lambda _: weights)

    def _idf_of(self, column_N: Any) -> Float64[np.ndarray, " N"]:
        """The second factor of each column; DataError where it is infinite."""
        found = self.idf_[column_N]
        if self._in_N.min() == 0 and not np.isfinite(found).all():
            column = column_N[int(np.argmin(np.isfinite(found)))]
            term = self.get_feature_names_out()[column]
            raise DataError(
                f"The term {term!r} was in no document that fit saw, so that its weight is infinite: leave it out of the "
                "vocabulary, or take form='smooth' with smooth_idf=True."
            )
        return found


def inverse_document_frequency(
    in_V: Int64[np.ndarray, " V"], documents: int, plus_one: bool, smooth: bool
) -> Float64[np.ndarray, " V"]:
    """ln(N / n) of each term; plus_one: 1 more, so that no term is lost; smooth: as if one more document had every term."""
    extra = 1 if smooth and plus_one else 0
    with np.errstate(divide="ignore"):
        # A term of a given vocabulary that no document has weighs infinitely.
        return np.log((documents + extra) / (in_V + extra).astype(np.float64)) + float(plus_one)


def row_norms(weight_N: Float64[np.ndarray, " N"], pointer: Any, norm: str) -> Float64[np.ndarray, " B"]:
    """The length (l2) or the sum of absolute values (l1) of each row; 1 of a row of zeros."""
    sizes = weight_N**2 if norm == "l2" else np.abs(weight_N)
    found = np.zeros(len(pointer) - 1)
    filled = np.diff(pointer) > 0
    if filled.any():
        found[filled] = np.add.reduceat(sizes, pointer[:-1][filled])
    found = np.sqrt(found) if norm == "l2" else found
    found[found == 0] = 1.0
    return found
