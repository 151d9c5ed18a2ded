"""One stretch of a corpus through word2vec, in the plain form: what is drawn, what is computed, what is changed.

`lineal.representations.core.embed` is the same, compiled; a property test holds the two together. For a pair of an input
vector x and an output row y with sign s (+1 for the word that is to be predicted, -1 for one that is not),

    loss = -log sigmoid(s x.y),   gain = rate s sigmoid(-s x.y),   x += gain y,   y += gain x

(Mikolov et al., 2013b, eq. 4; eq. 3 with the nodes of a word's way in the tree as rows). All rows of a pair are read before
one is written, so that a pair's step is its gradient exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lineal.representations.draws import GOLDEN, WORD, Alias, epoch_key, mix, place_key
from lineal.representations.huffman import Tree
from lineal.representations.words import END

FAR = 60.0
"""Products beyond this count as this, where exp would overflow soon after."""
LANES = 16
"""Rows are as long as a multiple of this, so that a core needs no remainders; what is beyond `dim` is 0."""


@dataclass
class Job:
    """All that a stretch of training reads and writes.

    inputs: [R, W] vectors of the given words (and of their parts); outputs: [O, W] those of the predicted ones. keep:
    thresholds of `draws.thresholds`, [V]. noise or tree: where output rows come from (neither: all of them, by `softmax.learn`). places: the corpus' length times the
    epochs. parts: for each word the rows of `inputs` whose mean is its vector, as (ends [V], rows); None for one row each.
    """

    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]
    keep: NDArray[np.int64]
    noise: Alias | None
    tree: Tree | None
    seed: int
    places: int
    window: int = 5
    dynamic: bool = True
    negatives: int = 5
    shared: bool = False
    bag: bool = False
    rate: float = 0.025
    final_rate: float = 1e-4
    parts: tuple[NDArray[np.int64], NDArray[np.int32]] | None = None
    most: int = field(init=False)

    def __post_init__(self) -> None:
        self.most = self.negatives + 1
        if self.tree is not None:
            self.most = int(np.diff(self.tree.ends, prepend=0).max())

    def rate_at(self, place: int) -> float:
        """The learning rate at a place counted over all epochs: a straight line from `rate` to `final_rate`."""
        return max(self.final_rate, self.rate - (self.rate - self.final_rate) * place / max(1, self.places))

    def rows_of(self, word: int) -> NDArray[np.int32]:
        """The input rows whose mean is a word's vector."""
        if self.parts is None:
            return np.array([word], np.int32)
        ends, rows = self.parts
        return rows[(ends[word - 1] if word else 0) : ends[word]]


def sentences_of(ids_N: NDArray[np.int32], first: int, last: int) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Each sentence that begins in first .. last - 1, with its place."""
    place = first
    if place and ids_N[place - 1] != END:
        place += int(np.argmax(ids_N[place:] == END)) + 1 if (ids_N[place:] == END).any() else len(ids_N)
    while place < min(last, len(ids_N)):
        rest = ids_N[place:] == END
        size = int(np.argmax(rest)) if rest.any() else len(rest)
        yield place, ids_N[place : place + size]
        place += size + 1


@dataclass(frozen=True)
class Window:
    """One word and the words near it, which subsampling left: the state of its draws, and the learning rate."""

    centre: int
    bits: int
    around: list[int]
    rate: float


def windows(job: Job, ids_N: NDArray[np.int32], first: int, last: int, epoch: int) -> Iterator[Window]:
    """The windows of the sentences that begin in first .. last - 1, those that hold two words at least."""
    key = epoch_key(job.seed, epoch)
    for start, words in sentences_of(ids_N, first, last):
        rate = job.rate_at(epoch * len(ids_N) + start)
        drawn = [(int(word), place_key(key, start + i)) for i, word in enumerate(words)]
        kept = [(word, bits) for word, bits in drawn if bits >> 32 < job.keep[word]]
        for i, (centre, bits) in enumerate(kept):
            reach = job.window - ((bits & 0xFFFF) * job.window >> 16 if job.dynamic else 0)
            around = kept[max(0, i - reach) : i] + kept[i + 1 : i + 1 + reach]
            if around:
                yield Window(centre, bits, [word for word, _ in around], rate)


def learn(job: Job, ids_N: NDArray[np.int32], first: int, last: int, epoch: int) -> tuple[float, int]:
    """Train on the sentences that begin in first .. last - 1; gives the sum of losses and how many words were predicted."""
    loss, predicted = 0.0, 0
    for found in windows(job, ids_N, first, last, epoch):
        bits, bags = found.bits, [job.rows_of(word) for word in found.around]
        if job.bag:
            bags = [np.concatenate(bags)]
        for group in [bags] if job.shared else [[bag] for bag in bags]:
            bits, rows, signs = targets(job, found.centre, bits)
            loss += update(job, group, rows, signs, found.rate)
        predicted += len(bags)
    return loss, predicted


def targets(job: Job, centre: int, bits: int) -> tuple[int, list[int], list[int]]:
    """The output rows of one step with their signs, and the state of the draws after it.

    A negative that is the word itself is left out, as in word2vec.c and gensim.
    """
    if job.tree is not None:
        nodes, codes = job.tree.way(centre)
        return bits, nodes.tolist(), [1 - 2 * code for code in codes.tolist()]
    assert job.noise is not None
    rows, signs = [centre], [1]
    for _ in range(job.negatives):
        bits = (bits + GOLDEN) & WORD
        row = job.noise.draw(mix(bits))
        if row != centre:
            rows.append(row)
            signs.append(-1)
    return bits, rows, signs


def update(
    job: Job, bags: Sequence[NDArray[np.int32]], rows: Sequence[int], signs: Sequence[int], rate: float
) -> float:
    """One step: every input (the mean of its bag's rows) against every output row; gives the sum of losses."""
    x_MW = np.stack([job.inputs[bag].mean(0) for bag in bags])
    y_NW = job.outputs[list(rows)]
    sign_N = np.array(signs, np.float32)
    e_MN = np.exp(-np.clip(sign_N * (x_MW @ y_NW.T), -FAR, FAR))
    gain_MN = np.float32(rate) * sign_N * e_MN / (1 + e_MN)
    change_MW = gain_MN @ y_NW
    np.add.at(job.outputs, list(rows), gain_MN.T @ x_MW)
    for bag, change_W in zip(bags, change_MW):
        # fastText adds the whole change to every part of a word; the mean of a window's words shares it out.
        np.add.at(job.inputs, bag, change_W / len(bag) if job.parts is None else change_W)
    return float(np.log1p(e_MN).sum())
