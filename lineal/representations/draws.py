"""What word2vec draws: which words are kept, how wide a window is, and negative words.

Every draw is a function of (seed, epoch, place in the corpus), so that nothing has to be stored to go on from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineal.errors import UsageError

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
ALWAYS = 1 << 32
"""A threshold that no draw of 32 bits reaches: the word is always kept."""


def mix(x: int) -> int:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): 64 bits to 64 bits, each depending on all."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def epoch_key(seed: int, epoch: int) -> int:
    """What sets the draws of one pass over the corpus apart from all others."""
    return mix((mix((seed + GOLDEN) & WORD) + GOLDEN * (epoch + 1)) & WORD)


def place_key(key: int, place: int) -> int:
    """The draw of one place: its high half decides whether the word is kept, its low 16 bits its window."""
    return mix((key + GOLDEN * (place + 1)) & WORD)


def keep_probability(counts: NDArray[np.int64], sample: float, form: str = "code") -> NDArray[np.float64]:
    """The probability that an occurrence of each word is kept; f = its share of all occurrences, t = `sample`.

    form: "paper" is sqrt(t / f), at most 1 (Mikolov et al., 2013b, eq. 5: discarded with 1 - sqrt(t / f)); "code" is
    (sqrt(f / t) + 1) t / f, at most 1, what word2vec.c and gensim do. sample 0 keeps all. Result: [V].
    """
    if form not in ("code", "paper"):
        raise UsageError(f"subsampling {form!r} is neither code nor paper.")
    if not sample:
        return np.ones(len(counts))
    share = counts / counts.sum()
    if form == "paper":
        return np.minimum(1.0, np.sqrt(sample / share))
    return np.minimum(1.0, (np.sqrt(share / sample) + 1) * sample / share)


def thresholds(probability_V: NDArray[np.float64]) -> NDArray[np.int64]:
    """The probabilities in units of 2^-32, for 32 random bits to be compared with."""
    return np.rint(probability_V * ALWAYS).astype(np.int64)


@dataclass(frozen=True)
class Alias:
    """A table that draws from a distribution in one look (Walker, 1977; Vose, 1991).

    Of 64 random bits the high half says which of V slots, and the low half is compared with the slot's `head`: below it
    the slot itself is drawn, else its `other`. Exact to 2^-32. head: int64 [V]; other: int32 [V].
    """

    head: NDArray[np.int64]
    other: NDArray[np.int32]

    def draw(self, bits: int) -> int:
        """The word that 64 bits draw."""
        slot = ((bits >> 32) * len(self.head)) >> 32
        return slot if (bits & 0xFFFFFFFF) < self.head[slot] else int(self.other[slot])


def alias(weight_V: NDArray[np.float64]) -> Alias:
    """The table of a distribution that is proportional to the weights."""
    size = len(weight_V)
    scaled = (weight_V * (size / weight_V.sum())).tolist()
    head, other = np.full(size, ALWAYS, np.int64), np.arange(size, dtype=np.int32)
    small = [i for i, s in enumerate(scaled) if s < 1]
    large = [i for i, s in enumerate(scaled) if s >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        head[low], other[low] = round(scaled[low] * ALWAYS), high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            small.append(large.pop())
    return Alias(head, other)


def negatives(counts: NDArray[np.int64], power: float = 0.75) -> Alias:
    """The noise distribution of negative sampling, proportional to count^power (Mikolov et al., 2013b)."""
    return alias(counts.astype(np.float64) ** power)
