"""GloVe (Pennington et al., 2014): vectors whose products are the logarithms of how often words are near each other."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from lineal.errors import DataError, UsageError
from lineal.native import compiled
from lineal.representations.near import PAIR
from lineal.representations.word2vec import aligned, padded, start_rows


@dataclass(frozen=True)
class Glove:
    """What is minimised, and how: over all pairs with a count x,

        sum of f(x) (w_i . v_j + b_i + c_j - log x)^2 / 2,   f(x) = (x / x_max)^alpha, at most 1

    (eq. 8 and 9; the half is the authors' program's). dim: numbers of a vector. rate: AdaGrad's.
    """

    dim: int = 100
    x_max: float = 100.0
    alpha: float = 0.75
    rate: float = 0.05

    def __post_init__(self) -> None:
        if self.dim < 1 or not self.x_max > 0 or not self.alpha >= 0 or not self.rate >= 0:
            raise UsageError(f"{self}: dim must be at least 1, x_max above 0, alpha and rate at least 0.")

    def weight(self, count_N: NDArray[np.float32]) -> NDArray[np.float32]:
        """f(x) of each count."""
        return np.minimum(1, (count_N / np.float32(self.x_max)) ** np.float32(self.alpha))


@cache
def core() -> ModuleType | None:
    """The compiled steps, or None."""
    return compiled("lineal.representations.core.adagrad")


class Glossary:
    """GloVe's vectors in training: for each word one as itself and one as a context, a bias to each, and AdaGrad's sums.

    pairs: co-occurrences (`near.PAIR`) in the order in which they are learned. Vectors start uniform over ±1 / (2 dim), biases
    at 0, the sums at 1, as in the authors' program (its biases start like the vectors).
    """

    def __init__(self, method: Glove, words: int, pairs: np.ndarray, seed: int = 0):
        for name in ("row", "column"):
            low, high = (int(some) for some in (pairs[name].min(initial=0), pairs[name].max(initial=0)))
            if low < 0 or high >= words:
                raise DataError(
                    f"a co-occurrence of word {low if low < 0 else high}, where there are {words}: count them again."
                )
        self.method, self.pairs = method, pairs
        self.size = padded(method.dim)
        self.words, self.contexts = (self._table(words, mix_seed) for mix_seed in (2 * seed, 2 * seed + 1))
        self.word_bias, self.context_bias = (
            np.tile(np.array([0, 1], np.float32), (words, 1)) for _ in range(2)
        )

    def _table(self, words: int, seed: int) -> NDArray[np.float32]:
        table = aligned(words, 2 * self.size)
        table[:, : self.size] = start_rows(words, self.method.dim, seed)
        table[:, self.size :] = 1
        return table

    def train(self, first: int, last: int, threads: int = 1) -> float:
        """Learn the pairs first .. last - 1; gives the sum of their losses. As `Embedding.train` with its threads."""
        if threads < 1:
            raise UsageError(f"{threads} threads can't train: give at least 1.")
        some = self.pairs[first:last]
        row_N, column_N, count_N = (np.ascontiguousarray(some[name]) for name in PAIR.names or ())
        native = core()
        if native is None:
            return learn(self, row_N, column_N, count_N)
        method, size = self.method, len(some)
        tables = self.words, self.contexts, self.word_bias, self.context_bias
        bounds = [size * i // threads for i in range(threads + 1)]
        work = [
            (tables, row_N, column_N, count_N, (method.rate, method.x_max, method.alpha), low, high)
            for low, high in itertools.pairwise(bounds)
        ]
        if threads == 1:
            return native.learn(*work[0])
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(lambda part: native.learn(*part), work))

    def vectors(self) -> NDArray[np.float32]:
        """Both vectors of each word, summed (§4.2), [V, D]."""
        dim = self.method.dim
        return self.words[:, :dim] + self.contexts[:, :dim]

    def state(self) -> dict[str, NDArray[np.float32]]:
        """All that training changes, by name; writing to these arrays changes it."""
        dim, size = self.method.dim, self.size
        return {
            "words": self.words[:, :dim],
            "contexts": self.contexts[:, :dim],
            "word_sums": self.words[:, size : size + dim],
            "context_sums": self.contexts[:, size : size + dim],
            "word_bias": self.word_bias,
            "context_bias": self.context_bias,
        }

    def finite(self) -> bool:
        """Whether all of it is finite numbers."""
        return all(bool(np.isfinite(np.abs(table).sum())) for table in self.state().values())


def learn(
    glossary: Glossary,
    row_N: NDArray[np.int32],
    column_N: NDArray[np.int32],
    count_N: NDArray[np.float32],
) -> float:
    """The steps in the plain form, one pair after another; gives the sum of losses.

    With g = rate f(x) (w.v + b + c - log x), both vectors read before either is written:
    w -= g v / sqrt(s_w), then s_w += (g v)^2, and so for v, b and c, as in the authors' program.
    """
    method, size, total = glossary.method, glossary.size, 0.0
    weight_N, log_N = method.weight(count_N), np.log(count_N)
    for i, k, weight, log in zip(row_N, column_N, weight_N, log_N):
        x_W, y_W = glossary.words[i, :size].copy(), glossary.contexts[k, :size].copy()
        off = x_W @ y_W + glossary.word_bias[i, 0] + glossary.context_bias[k, 0] - log
        gain = np.float32(method.rate) * weight * off
        total += float(0.5 * weight * off * off)
        for value_W, sum_W, slope_W in (
            (glossary.words[i, :size], glossary.words[i, size:], gain * y_W),
            (glossary.contexts[k, :size], glossary.contexts[k, size:], gain * x_W),
            (glossary.word_bias[i, :1], glossary.word_bias[i, 1:], np.array([gain])),
            (glossary.context_bias[k, :1], glossary.context_bias[k, 1:], np.array([gain])),
        ):
            value_W -= slope_W / np.sqrt(sum_W)
            sum_W += slope_W**2
    return total
