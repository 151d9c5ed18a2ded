"""The parts of words, as fastText has them (Bojanowski et al., 2017): a word's vector is the mean over itself and its n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineal.errors import UsageError


@dataclass(frozen=True)
class Subwords:
    """n-grams of `shortest` to `longest` characters of <word>, hashed into `buckets` rows after those of the words."""

    shortest: int = 3
    longest: int = 6
    buckets: int = 2_000_000

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest or self.buckets < 1:
            raise UsageError(
                f"n-grams of {self.shortest} to {self.longest} characters in {self.buckets} buckets: the shortest must be at "
                "least 1 and at most the longest, with at least one bucket."
            )

    def ngrams(self, word: str) -> list[str]:
        """The n-grams of <word>: "as" with 3 to 6 has <as, as> and <as>; one character alone at an edge is none."""
        text = f"<{word}>"
        return [
            text[start : start + size]
            for start in range(len(text))
            for size in range(self.shortest, min(self.longest, len(text) - start) + 1)
            if not (size == 1 and start in (0, len(text) - 1))
        ]

    def rows(self, word: str) -> list[int]:
        """The buckets of a word's n-grams."""
        return [fnv(ngram.encode()) % self.buckets for ngram in self.ngrams(word)]

    def parts(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """For each word its own row and those of its n-grams, which come after all words: (ends [V], rows)."""
        rows: list[int] = []
        ends = np.zeros(len(words), np.int64)
        for i, word in enumerate(words):
            rows += [i, *(len(words) + bucket for bucket in self.rows(word))]
            ends[i] = len(rows)
        return ends, np.array(rows, np.int32)

    def vector(self, word: str, ngram_BD: NDArray[np.float32]) -> NDArray[np.float32]:
        """The vector of a word that was never seen: the mean of its n-grams' (zeros where it has none), [D]."""
        rows = self.rows(word)
        return ngram_BD[rows].mean(0) if rows else np.zeros(ngram_BD.shape[1], np.float32)


def fnv(data: bytes) -> int:
    """fastText's hash of 32 bits: FNV-1a, where each byte is taken as a signed number."""
    found = 2166136261
    for byte in data:
        found = ((found ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return found
