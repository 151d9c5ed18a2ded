"""Bags of words: how often each term of a vocabulary occurs in each document, as a sparse matrix."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from lineal.errors import DataError, UsageError
from lineal.representations.analysis import WORD, Analysis, check_texts
from lineal.representations.term_tables import Counted, TermTable, batches, table_for

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(eq=False)
class BagOfWords:
    """count[d, t] = how often term t occurs in document d; the order of the words is lost.

    It has the shape that scikit-learn's Pipeline asks for (fit, transform, get_params, set_params), the names of
    CountVectorizer's options, and its numbers. Departures: terms of equal frequency are kept in alphabetical order under
    `max_features`; there is no list of English stop words; matrices need scipy (the extra `counts`).

    analyzer: "word", "char" (across words), "char_wb" (within words), or a function from a text to terms. lowercase, strip_accents
    (None, "ascii", "unicode"), token_pattern, stop_words, ngram_range: as `analysis` says. min_df, max_df: keep terms that
    are in at least, at most so many documents (an int), or such a share of them (a float). max_features: keep the most frequent
    of those. vocabulary: the terms, instead of those of the texts. binary: 1 where a term occurs. order: the columns "sorted", or as
    first "seen".
    """

    analyzer: Any = "word"
    lowercase: bool = True
    strip_accents: str | None = None
    token_pattern: str = WORD
    stop_words: Sequence[str] | None = None
    ngram_range: tuple[int, int] = (1, 1)
    min_df: float = 1
    max_df: float = 1.0
    max_features: int | None = None
    vocabulary: Mapping[str, int] | Iterable[str] | None = None
    binary: bool = False
    order: str = "sorted"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options and their values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def set_params(self, **params: Any) -> BagOfWords:
        """Change options; returns itself. UsageError for one that there is not."""
        names = [field.name for field in dataclasses.fields(self)]
        for name, value in params.items():
            if name not in names:
                raise UsageError(f"{type(self).__name__} has no option {name!r}: it has {', '.join(names)}.")
            setattr(self, name, value)
        return self

    def fit(self, texts: Iterable[str], y: object = None) -> BagOfWords:
        """Learn the vocabulary; the texts may be a stream, of which only the terms stay in memory."""
        self._fit(texts, keep=False)
        return self

    def fit_transform(self, texts: Iterable[str], y: object = None) -> csr_matrix:
        """Learn the vocabulary and count, in one pass."""
        return self._matrix(self._fit(texts, keep=True))

    def transform(self, texts: Iterable[str]) -> csr_matrix:
        """Count the terms of the vocabulary; others are passed over."""
        table = self._fitted()
        return self._matrix([table.count(batch, False) for batch in batches(check_texts(texts))])

    def transform_blocks(self, texts: Iterable[str], characters: int = 1 << 24) -> Iterator[csr_matrix]:
        """`transform` of a stream, block by block: for more documents than memory has room for."""
        table = self._fitted()
        for batch in batches(check_texts(texts), characters):
            yield self._matrix([table.count(batch, False)])

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """The term of each column."""
        self._fitted()
        names = np.empty(len(self.vocabulary_), dtype=object)
        for term, column in self.vocabulary_.items():
            names[column] = term
        return names

    def inverse_transform(self, counts: Any) -> list[list[str]]:
        """The terms of each document, in the order of the columns."""
        names, rows = self.get_feature_names_out(), sparse().csr_matrix(counts)
        return [
            names[rows.indices[start:end]].tolist() for start, end in zip(rows.indptr[:-1], rows.indptr[1:])
        ]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "vocabulary_")

    # ---------------------------------------------------------------------------------------------------- the work

    def _analysis(self) -> Analysis:
        if self.order not in ("sorted", "seen"):
            raise UsageError(f"order={self.order!r} can't be: choose sorted or seen.")
        names = [field.name for field in dataclasses.fields(Analysis)]
        return Analysis(**{name: getattr(self, name) for name in names})

    def _fit(self, texts: Iterable[str], keep: bool) -> list[Counted]:
        """Count, choose the columns; the counts, if they are to be kept."""
        given = fixed_vocabulary(self.vocabulary)
        most = self.max_features
        if most is not None and (not isinstance(most, Integral) or most < 1):
            raise UsageError(f"max_features={most!r} can't be: give at least 1, or None for all.")
        table = table_for(self._analysis(), list(given))
        counted, documents = [], 0
        total_V = np.zeros(0, dtype=np.int64)
        for batch in batches(check_texts(texts)):
            found = table.count(batch, not given)
            documents += len(batch)
            if not given and self.max_features is not None:
                total_V = _added(total_V, found)
            counted += [found] if keep else []
        if given:
            self._take_vocabulary(table, given)
        else:
            self._choose(table, documents, total_V)
        self._documents = documents
        return counted

    def _choose(self, table: TermTable, documents: int, total_V: Int64[np.ndarray, " V"]) -> None:
        """The vocabulary out of all terms."""
        terms, in_V = table.terms(), table.document_counts()
        if not (in_V > 0).any():
            raise DataError(
                f"There is no term in {documents} documents: they are empty, or hold stop words only."
            )
        low, high = (_limit(getattr(self, name), documents, name) for name in ("min_df", "max_df"))
        if high < low:
            raise UsageError(
                f"max_df={self.max_df} is {high:g} of {documents} documents, and min_df={self.min_df} is {low:g}: nothing is between."
            )
        kept = np.flatnonzero((in_V > 0) & (in_V >= low) & (in_V <= high))
        if self.order == "sorted":
            kept = np.array(sorted(kept.tolist(), key=terms.__getitem__), dtype=np.int64)
        if self.max_features is not None and len(kept) > self.max_features:
            best = np.argsort(-total_V[kept], kind="stable")[: self.max_features]
            kept = kept[np.sort(best)]
        if not len(kept):
            raise DataError(
                f"No term of {documents} documents is left: lower min_df={self.min_df} or raise max_df={self.max_df}."
            )
        self._table = table
        self.vocabulary_ = {terms[node]: column for column, node in enumerate(kept.tolist())}
        self._column_V = np.full(len(terms), -1, dtype=np.int32)
        self._column_V[kept] = np.arange(len(kept))
        self._in_N = in_V[kept]

    def _take_vocabulary(self, table: TermTable, given: dict[str, int]) -> None:
        self._table, self.vocabulary_ = table, given
        self._column_V = np.array([given.get(term, -1) for term in table.terms()], dtype=np.int32)

    def _fitted(self) -> TermTable:
        """The table of the vocabulary; of one that was given it is made now."""
        if not hasattr(self, "vocabulary_"):
            given = fixed_vocabulary(self.vocabulary)
            if not given:
                raise UsageError(f"{type(self).__name__} has no vocabulary yet: call fit first.")
            self._take_vocabulary(table_for(self._analysis(), list(given)), given)
        return self._table

    def _matrix(self, counted: Sequence[Counted]) -> csr_matrix:
        """Counts as a matrix with the columns of the vocabulary, those of each row in order."""
        return with_data(self._rows(counted), lambda count_N: count_N.astype(np.int64))

    def _rows(self, counted: Sequence[Counted]) -> csr_matrix:
        """The same in numbers of 32 bits, which are turned over in less time."""
        parts = [(self._column_V[part.node_N], part.count_N, part.end_B) for part in counted]
        indices = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.int32)])
        data = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.int32)])
        before = np.cumsum([0, *(len(part[0]) for part in parts)])
        pointer = np.concatenate([[0], *(part[2] + start for part, start in zip(parts, before))]).astype(
            np.int64
        )
        known = indices >= 0
        if not known.all():
            pointer = np.concatenate([[0], np.cumsum(known)])[pointer]
            indices, data = indices[known], data[known]
        if pointer[-1] < 1 << 31:
            pointer = pointer.astype(np.int32)
        shape = (len(pointer) - 1, len(self.vocabulary_))
        matrix = sparse().csr_matrix((data, indices, pointer), shape=shape)
        if self.binary:
            matrix.data[:] = 1
        # Twice turned over, the columns of each row are in order; that takes time in proportion to what is there.
        return matrix.tocsc().tocsr()


def fixed_vocabulary(vocabulary: Mapping[str, int] | Iterable[str] | None) -> dict[str, int]:
    """The terms and columns that were given; DataError where two terms share one, or a column has none."""
    if vocabulary is None:
        return {}
    if isinstance(vocabulary, Mapping):
        found = dict(vocabulary)
        if sorted(found.values()) != list(range(len(found))):
            raise DataError(
                f"The columns of a vocabulary of {len(found)} terms must be 0 to {len(found) - 1}, each once."
            )
    else:
        terms = (
            sorted(vocabulary) if isinstance(vocabulary, set | frozenset) else list(check_texts(vocabulary))
        )
        found = {term: column for column, term in enumerate(terms)}
        if len(found) < len(terms):
            again = next(term for column, term in enumerate(terms) if found[term] != column)
            raise DataError(f"The vocabulary has the term {again!r} twice: remove one.")
    if not found:
        raise DataError("The vocabulary is empty: give terms, or None to learn them.")
    return found


def with_data(matrix: csr_matrix, change: Callable[[Any], Any]) -> csr_matrix:
    """A matrix with other numbers in the same places."""
    return sparse().csr_matrix((change(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)


def sparse() -> Any:
    """scipy.sparse; UsageError where scipy is not installed."""
    try:
        import scipy.sparse
    except ImportError as error:
        raise UsageError("Sparse matrices need scipy: pip install 'lineal[counts]'.") from error
    return scipy.sparse


def _added(total_V: Int64[np.ndarray, " V"], found: Counted) -> Int64[np.ndarray, " W"]:
    """Occurrences of each node so far."""
    size = max(len(total_V), int(found.node_N.max(initial=-1)) + 1)
    more = np.bincount(found.node_N, weights=found.count_N, minlength=size).astype(np.int64)
    more[: len(total_V)] += total_V
    return more


def _limit(value: float, documents: int, name: str) -> float:
    """A limit of document frequency as a number of documents."""
    whole = isinstance(value, Integral)
    sound = value >= 1 if whole else isinstance(value, float) and math.isfinite(value) and 0 <= value <= 1
    if not sound or isinstance(value, bool):
        raise UsageError(
            f"{name}={value!r} can't be: give a number of documents (an int, at least 1) or a share of them (a float from 0 to 1)."
        )
    return value if whole else value * documents
