"""word2vec (Mikolov et al., 2013): its tables, and its training over a corpus of ids, by threads without locks or by one.

The steps are those of `steps.learn`, compiled where there is a compiler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineal.errors import DataError, UsageError
from lineal.native import compiled
from lineal.representations import steps
from lineal.representations.draws import (
    GOLDEN,
    Alias,
    epoch_key,
    keep_probability,
    mix,
    negatives,
    thresholds,
)
from lineal.representations.huffman import huffman
from lineal.representations.steps import LANES, Job
from lineal.representations.subwords import Subwords
from lineal.representations.words import END, LONGEST, Vocabulary


@dataclass(frozen=True)
class Word2Vec:
    """What is learned, and how.

    model: skipgram (each word of the window foretells the word in its middle, as in the authors' program) or cbow (their
    mean does). output: negative (`negatives` draws from count^.75) tree (Huffman's, a hierarchical softmax) or
    softmax (over all words: the reference that the other two stand in for). dim,
    window; dynamic: each place draws its window from 1 .. window. shared: all words of a window learn against one set of
    negatives, in one step (Ji et al., 2016), where exactly each has its own. sample, sampling: subsampling of frequent words
    (`draws.keep_probability`). rate, final_rate: the learning rate falls from one to the other in a straight line.
    """

    model: str = "skipgram"
    output: str = "negative"
    dim: int = 100
    window: int = 5
    dynamic: bool = True
    negatives: int = 5
    shared: bool = False
    sample: float = 1e-3
    sampling: str = "code"
    rate: float = 0.025
    final_rate: float = 1e-4
    subwords: Subwords | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("model", MODELS), ("output", OUTPUTS)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {', '.join(allowed)}.")
        for name, least in (("dim", 1), ("window", 1), ("negatives", 1), ("sample", 0), ("rate", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} {getattr(self, name)}: it must be at least {least}.")
        if self.window >= 1 << 15 or self.negatives >= 1 << 15:
            raise UsageError(
                f"window {self.window}, negatives {self.negatives}: both must be below {1 << 15}."
            )


MODELS = ("skipgram", "cbow")
OUTPUTS = ("negative", "tree", "softmax")


def padded(size: int) -> int:
    """The length of a row that holds `size` numbers."""
    return -(-size // LANES) * LANES


def aligned(rows: int, width: int) -> NDArray[np.float32]:
    """Zeros whose rows begin where a line of the processor's cache does; [rows, padded width]."""
    wide = padded(width)
    memory = np.zeros(rows * wide + LANES, np.float32)
    skip = -(memory.ctypes.data // 4) % LANES
    return memory[skip : skip + rows * wide].reshape(rows, wide)


def start_rows(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Input vectors at the start: uniform over ±1 / (2 dim), as in word2vec.c; [rows, padded dim], zeros beyond dim."""
    table = aligned(rows, dim)
    for first in range(0, rows, 1 << 14):
        some = table[first : first + (1 << 14), :dim]
        place = np.arange(some.size, dtype=np.uint64).reshape(some.shape) + np.uint64(first * dim)
        some[:] = (_hashed(mix(seed ^ 0x73746172), place) / 2.0**24 - 0.5) / dim
    return table


def _hashed(key: int, place: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """24 bits for each place: `draws.place_key` on arrays."""
    x = np.uint64(key) + (place + np.uint64(1)) * np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(40)


@cache
def core() -> ModuleType | None:
    """The compiled steps, or None."""
    return compiled("lineal.representations.core.embed")


class Embedding:
    """Vectors in training: `train` moves them over a stretch of the corpus.

    method: what is learned. vocabulary: its words. ids: the corpus (`words.encode`), int32, in memory or mapped from a file.
    epochs: passes that the learning rate falls over. seed: of the start and of every draw. Equal arguments give equal
    vectors, bit for bit, as long as one thread trains. Raises DataError for ids that are no corpus of this vocabulary.
    """

    def __init__(
        self, method: Word2Vec, vocabulary: Vocabulary, ids: NDArray[np.int32], epochs: int = 5, seed: int = 0
    ):
        check_ids(ids, len(vocabulary))
        self.method, self.vocabulary, self.ids = method, vocabulary, ids
        counts = vocabulary.counts
        parts = method.subwords.parts(vocabulary.words) if method.subwords else None
        rows = len(counts) + (method.subwords.buckets if method.subwords else 0)
        tree = huffman(counts) if method.output == "tree" else None
        self.job = Job(
            start_rows(rows, method.dim, seed),
            aligned(len(counts) - (tree is not None), method.dim),
            thresholds(keep_probability(counts, method.sample, method.sampling)),
            negatives(counts) if method.output == "negative" else None,
            tree,
            seed,
            epochs * len(ids),
            method.window,
            method.dynamic,
            method.negatives,
            method.shared,
            method.model == "cbow",
            method.rate,
            method.final_rate,
            parts,
        )
        self._flat: list[Flat] = []

    def train(self, epoch: int, first: int, last: int, threads: int = 1) -> tuple[float, int]:
        """Train on the sentences that begin in first .. last - 1 of the corpus; gives the sum of losses, and of how many.

        With one thread the result is a function of the arguments and the vectors before. Several read and write the same
        vectors without locks (Recht et al., 2011), so that what they do depends on their pace.
        """
        if threads < 1:
            raise UsageError(f"{threads} threads can't train: give at least 1.")
        if self.method.output == "softmax":
            from lineal.representations import softmax

            return softmax.learn(self.job, self.ids, first, last, epoch)
        native = core()
        if native is None:
            return steps.learn(self.job, self.ids, first, last, epoch)
        while len(self._flat) < threads:
            self._flat.append(Flat(self.job))
        key, done = epoch_key(self.job.seed, epoch), float(epoch * len(self.ids))
        bounds = [first + (last - first) * i // threads for i in range(threads + 1)]
        work = [
            (flat, self.ids, low, high, key, done)
            for flat, low, high in zip(self._flat, bounds, bounds[1:])
        ]  # fmt: skip
        if threads == 1:
            return native.learn(*work[0])
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda part: native.learn(*part), work))
        return sum(loss for loss, _ in found), sum(count for _, count in found)

    def vectors(self) -> NDArray[np.float32]:
        """The words' vectors: their input rows, or with subwords the means of theirs, [V, D]."""
        table, dim = self.job.inputs, self.method.dim
        if self.job.parts is None:
            return np.ascontiguousarray(table[: len(self.vocabulary), :dim])
        return np.stack([table[self.job.rows_of(word), :dim].mean(0) for word in range(len(self.vocabulary))])

    def state(self) -> dict[str, NDArray[np.float32]]:
        """All that training changes, by name, without padding."""
        dim = self.method.dim
        return {"inputs": self.job.inputs[:, :dim], "outputs": self.job.outputs[:, :dim]}

    def finite(self) -> bool:
        """Whether all vectors are finite numbers."""
        # A sum has an infinity or a nan exactly when a part has, at far below float32's end.
        return bool(np.isfinite(np.add.reduce(np.abs(self.job.inputs), (0, 1))) and
                    np.isfinite(np.add.reduce(np.abs(self.job.outputs), (0, 1))))  # fmt: skip


def check_ids(ids_N: NDArray[np.int32], words: int) -> None:
    """DataError for what is no corpus of so many words: a core that counts on one would read beyond its tables."""
    if ids_N.dtype != np.int32 or ids_N.ndim != 1:
        raise DataError(
            f"a corpus is a row of int32, not {ids_N.dtype} {list(ids_N.shape)}: words.encode makes it."
        )
    low, high = (int(ids_N.min()), int(ids_N.max())) if len(ids_N) else (END, END)
    if low < END or high >= words:
        wrong = low if low < END else high
        raise DataError(f"the id {wrong} is none of {words} words: encode the text with this vocabulary.")
    ends = np.flatnonzero(ids_N == END)
    longest = int(np.diff(ends, prepend=-1, append=len(ids_N)).max()) - 1
    if longest > LONGEST:
        raise DataError(f"a sentence has {longest:,} words: cut it after {LONGEST:,} (words.sentences does).")


class Flat:
    """A job as the core reads it, with the memory that one thread works in."""

    def __init__(self, job: Job):
        nothing = Alias(np.zeros(0, np.int64), np.zeros(0, np.int32))
        noise, window = job.noise or nothing, job.window
        self.inputs, self.outputs, self.keep = job.inputs, job.outputs, job.keep
        self.head, self.other = noise.head, noise.other
        tree = job.tree
        self.way_ends: Any = np.zeros(0, np.int64) if tree is None else tree.ends
        self.way_nodes: Any = np.zeros(0, np.int32) if tree is None else tree.nodes
        self.way_codes: Any = np.zeros(0, np.int8) if tree is None else tree.codes
        self.part_ends, self.part_rows = job.parts or (np.zeros(0, np.int64), np.zeros(0, np.int32))
        longest = int(np.diff(self.part_ends, prepend=0).max()) if job.parts else 1
        self.window, self.dynamic, self.negatives = window, job.dynamic, job.negatives
        self.shared, self.bag = job.shared, job.bag
        self.rate, self.final_rate = job.rate, job.final_rate
        self.slope = (job.rate - job.final_rate) / max(1, job.places)
        self.words, self.bits = np.zeros(LONGEST, np.int32), np.zeros(LONGEST, np.uint64)
        steps_of_one = job.most if tree is not None or job.shared or job.bag else 2 * window * job.most
        self.rows = np.zeros(2 * steps_of_one, np.int32)
        self.row_signs = np.zeros(2 * steps_of_one, np.float32)
        self.row_ends, self.around = np.zeros((2, 2 * window), np.int32), np.zeros((2, 3), np.int32)
        self.order, self.each = np.arange(2 * window, dtype=np.int32), np.zeros(2 * window, np.int32)
        self.bag_rows = np.zeros(2 * window * longest, np.int32)
        together = 2 * window if job.shared and not job.bag else 1
        self.old, self.change = (aligned(together, job.inputs.shape[1]) for _ in range(2))
        self.gain, self.sign, self.loss = (np.zeros(together * job.most + 32, np.float32) for _ in range(3))


def pairs(tokens: Sequence[Any], window: int) -> Iterator[tuple[Any, Any]]:
    """The training pairs of a sentence, (word, word of its window), every window whole and nothing left out.

    pairs("a b c".split(), 1) gives (a, b), (b, a), (b, c), (c, b).
    """
    if window < 1:
        raise UsageError(f"window {window}: it must be at least 1.")
    for i, centre in enumerate(tokens):
        for j in range(max(0, i - window), min(len(tokens), i + window + 1)):
            if j != i:
                yield centre, tokens[j]
