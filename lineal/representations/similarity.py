"""Word similarity: do cosines rank pairs of words as people do? (WordSim353, SimLex-999, MEN, RG-65.)"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lineal.errors import DataError
from lineal.representations.vectors import Vectors
from lineal.tokenizers.corpus.documents import read_lines


@dataclass(frozen=True)
class Pair:
    """Two words and how alike people find them."""

    one: str
    other: str
    score: float


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho over the pairs of which both words have vectors, how many pairs those are, and the other words.

    rho is None where fewer than two pairs are covered, or all have one rank. with_zeros: rho over all pairs, the cosine of an
    unknown word being 0.
    """

    name: str
    asked: int
    covered: int
    rho: float | None
    with_zeros: float | None
    unknown: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Covered among asked."""
        return self.covered / self.asked if self.asked else 0.0


def read_pairs(path: str | Path) -> list[Pair]:
    """Pairs of a file: two words and a number a line, between tabs, commas or spaces; plain or .gz.

    A first line without a number names the columns: the score is then the one named SimLex999, else the third.
    Raises DataError, with file and line, for anything else.
    """
    found: list[Pair] = []
    column = 2
    first = True
    for number, line in read_lines(path):
        line = line.removeprefix("\ufeff")
        fields = [
            part.strip()
            for part in re.split(r"[\t,;]" if re.search(r"[\t,;]", line) else r" +", line.strip())
        ]
        if not line.strip() or line.startswith("#"):
            continue
        if len(fields) <= column:
            raise DataError(f"{path}:{number}: {len(fields)} fields, where two words and a score must stand.")
        score = _number(fields[column])
        if score is None and first:
            column = fields.index("SimLex999") if "SimLex999" in fields else 2
        elif score is None:
            raise DataError(f"{path}:{number}: the score {fields[column]!r} is no finite number.")
        else:
            found.append(Pair(fields[0], fields[1], score))
        first = False
    if not found:
        raise DataError(f"{path}: there is no pair of words in it.")
    return found


def evaluate_similarity(
    vectors: Vectors, pairs: Sequence[Pair], name: str = "", *, fold: bool = True
) -> Agreement:
    """How well cosines agree with people's scores; fold: a word that is not there may be there in small letters or capitals."""
    people, cosines, unknown, covered = [], [], [], []
    for pair in pairs:
        words = [_spelling(vectors, word, fold) for word in (pair.one, pair.other)]
        unknown += [word for word, found in zip((pair.one, pair.other), words) if found is None]
        one, other = words
        people.append(pair.score)
        covered.append(one is not None and other is not None)
        cosines.append(vectors.cosine(one, other) if one is not None and other is not None else 0.0)
    kept = np.array(covered, dtype=bool)
    all_N, cosine_N = np.array(people, dtype=np.float64), np.array(cosines, dtype=np.float64)
    return Agreement(
        name,
        len(pairs),
        int(kept.sum()),
        spearman(all_N[kept], cosine_N[kept]),
        spearman(all_N, cosine_N),
        tuple(dict.fromkeys(unknown)),
    )


def spearman(one_N: Float64[np.ndarray, " N"], other_N: Float64[np.ndarray, " N"]) -> float | None:
    """Pearson's correlation of the ranks, equal values sharing the mean of theirs; None where it is not defined."""
    if len(one_N) < 2:
        return None
    one, other = ranks(one_N), ranks(other_N)
    one, other = one - one.mean(), other - other.mean()
    length = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / length if length else None


def ranks(value_N: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """1 for the smallest; equal values have the mean of their ranks."""
    _, place, count = np.unique(value_N, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def _spelling(vectors: Vectors, word: str, fold: bool) -> str | None:
    forms = (word, word.lower(), word.capitalize(), word.upper()) if fold else (word,)
    return next((form for form in forms if form in vectors), None)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
