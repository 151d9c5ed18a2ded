"""Language models that count: the probability of a word given the n - 1 before it, with add-k or Kneser-Ney smoothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from lineal.errors import UsageError
from lineal.representations.ngram_counts import NGrams, Table, count_ngrams

SMOOTHINGS = ("add-k", "kneser-ney", "modified-kneser-ney")
Numbers = Float64[np.ndarray, " _"]


@dataclass(frozen=True)
class Perplexity:
    """exp(-mean log p) over the words and the ends of documents; `known`: the same without words outside the vocabulary."""

    perplexity: float
    known: float
    tokens: int
    unknown: int


@dataclass(frozen=True)
class Level:
    """Of the n-grams of one length: the share that each has by its own count, given its context (a node of the level below), and for
    each context what is left to the next level."""

    own_N: Numbers
    left_C: Numbers


class NGramModel:
    """P(w | h) over the vocabulary with </s> and <unk>, h the n - 1 words before, fewer after <s>.

    add-k: (c(hw) + k) / (c(h) + k V). Interpolated Kneser-Ney (Chen and Goodman 1999, eq. 19 and section 3 for the modified
    form): max(a(hw) - D, 0) / a(h) + left(h) P(w | h'), h' without its first word; a is the count of the longest n-grams and
    of those after <s>, of others the number of different words before them; D = n1 / (n1 + 2 n2) of each length, or three
    discounts for a = 1, 2 and more; below single words stands 1 / V. As in KenLM, a document has one <s>. Departure: where
    counts of counts are missing, so that D has no value, it is .5 (.5, 1, 1.5 of three).
    """

    def __init__(self, counts: NGrams, smoothing: str = "kneser-ney", k: float = 1.0) -> None:
        if smoothing not in SMOOTHINGS:
            raise UsageError(f"smoothing={smoothing!r} can't be: choose one of {', '.join(SMOOTHINGS)}.")
        if not (k > 0 and math.isfinite(k)):
            raise UsageError(f"k={k} can't be: what is added to each count is above 0.")
        self.counts, self.smoothing, self.k = counts, smoothing, k
        self.index = {word: at for at, word in enumerate(counts.words)}
        self._levels = self._add_k() if smoothing == "add-k" else self._kneser_ney()

    @classmethod
    def fit(
        cls,
        documents: Iterable[Sequence[str]],
        order: int = 3,
        smoothing: str = "kneser-ney",
        *,
        k: float = 1.0,
        min_count: int = 1,
    ) -> NGramModel:
        """A model of documents (lists of words); rarer words than `min_count` are <unk>."""
        return cls(count_ngrams(documents, order, min_count), smoothing, k)

    @property
    def order(self) -> int:
        """n."""
        return self.counts.order

    @property
    def outcomes(self) -> int:
        """V: what can follow, which is every word but <s>."""
        return len(self.counts.words) - 1

    def logp(self, document: Sequence[str]) -> Numbers:
        """log P of each word and of the document's end, given what is before; a word not known counts as <unk>."""
        ids = np.array(self.counts.ids(self.index, document))
        return np.log(self._p(ids)[1:])

    def perplexity(self, documents: Iterable[Sequence[str]]) -> Perplexity:
        """How well the model foretells documents, 1 at best; UsageError where there is none."""
        whole = known = 0.0
        tokens = unknown = 0
        for document in documents:
            logp = self.logp(document)
            lost = np.array([word not in self.index for word in document] + [False])
            whole, known = whole + logp.sum(), known + logp[~lost].sum()
            tokens, unknown = tokens + len(logp), unknown + int(lost.sum())
        if not tokens:
            raise UsageError("There is no document to measure perplexity on: give one at least.")
        return Perplexity(math.exp(-whole / tokens), math.exp(-known / (tokens - unknown)), tokens, unknown)

    def distribution(self, context: Sequence[str] = ()) -> Float64[np.ndarray, " V"]:
        """P of every word after a context, which begins with "<s>" at the start of a document; <s> itself has 0."""
        p_V = np.full(len(self.counts.words), 1.0 / self.outcomes)
        p_V[0] = 0.0
        for length, node in self._ladder([self.index.get(word, 2) for word in context]):
            words, own = self._children(length, node)
            p_V *= self._levels[length - 1].left_C[node]
            p_V[words] += own
        return p_V

    def sample(
        self, prompt: Sequence[str] = (), *, seed: int = 0, max_words: int = 100, unknown: bool = False
    ) -> list[str]:
        """Words that go on after a prompt until </s>; a function of the arguments. unknown: let <unk> be drawn."""
        draws = np.random.Generator(np.random.Philox(key=seed))
        ids = self.counts.ids(self.index, prompt)[:-1]
        begun = len(ids)
        while len(ids) - begun < max_words:
            drawn = self._draw(ids, draws)
            if drawn == 1:
                break
            if drawn != 2 or unknown:
                ids.append(drawn)
        return [self.counts.words[i] for i in ids[begun:]]

    # ------------------------------------------------------------------------------------------------------ the two smoothings

    def _add_k(self) -> list[Level]:
        """What is left goes to 1 / V at once; which level counts is a matter of how many words are before."""
        levels = []
        for length, table in enumerate(self.counts.tables, 1):
            count = _without_start(table.count_N, length)
            context, size = self._context(length)
            whole = np.bincount(context, weights=count, minlength=size) + self.k * self.outcomes
            levels.append(Level(count / whole[context], self.k * self.outcomes / whole))
        return levels

    def _kneser_ney(self) -> list[Level]:
        levels: list[Level] = []
        for length, table in enumerate(self.counts.tables, 1):
            count = _without_start(self._adjusted(length, table), length)
            discount = discounts(count, self.smoothing == "modified-kneser-ney")
            context, size = self._context(length)
            whole = np.bincount(context, weights=count, minlength=size)
            taken = discount[np.minimum(count, 3).astype(np.int64)]
            # What only </s> or nothing follows was never a context; all of it is left.
            seen = np.where(whole > 0, whole, 1.0)
            left = np.where(whole > 0, np.bincount(context, weights=taken, minlength=size) / seen, 1.0)
            levels.append(Level((count - taken) / seen[context], left))
        return levels

    def _adjusted(self, length: int, table: Table) -> Numbers:
        """How often, for the longest n-grams and those after <s>; for others, how many different words are before them."""
        if length == self.order:
            return table.count_N.astype(np.float64)
        before = np.bincount(self.counts.tables[length].suffix_N, minlength=len(table.key_N))
        return np.where(table.starts_N, table.count_N, before).astype(np.float64)

    # ------------------------------------------------------------------------------------------------------------- looking up

    def _context(self, length: int) -> tuple[Int64[np.ndarray, " N"], int]:
        """The context of each n-gram, and how many contexts there are."""
        tables, size = self.counts.tables, len(self.counts.words)
        if length == 1:
            return np.zeros(size, dtype=np.int64), 1
        return tables[length - 1].key_N // size, len(tables[length - 2].key_N)

    def _p(self, id_T: Int64[np.ndarray, " T"]) -> Numbers:
        """P of each id given those before it; the first is not asked for."""
        size, uniform = len(self.counts.words), 1.0 / self.outcomes
        place_T, node_T = np.arange(len(id_T)), id_T
        level = self._levels[0]
        p_T = level.own_N[id_T] + level.left_C[0] * uniform
        for length in range(2, self.order + 1):
            level, before_T = self._levels[length - 1], np.concatenate([[-1], node_T[:-1]])
            found = self.counts.tables[length - 1].find(before_T * size + id_T)
            node_T = np.where(before_T >= 0, found, -1)
            below = uniform if self.smoothing == "add-k" else p_T
            left = np.where(before_T >= 0, level.left_C[before_T], 1.0)
            # Short documents leave the longest n-grams without a single one.
            own = np.where(node_T >= 0, level.own_N[node_T], 0.0) if len(level.own_N) else np.zeros(len(id_T))
            p_T = np.where(place_T >= length - 1, own + left * below, p_T)
        return p_T

    def _ladder(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Each length of n-gram and the node of its context, as long as that was seen; of add-k the longest only."""
        size, most = len(self.counts.words), min(self.order, len(ids) + 1)
        found = []
        for length in range(1, most + 1):
            context = ids[len(ids) - length + 1 :]
            node = context[0] if context else 0
            for m, word in enumerate(context[1:], 2):
                node = (
                    int(self.counts.tables[m - 1].find(np.array([node * size + word]))[0])
                    if node >= 0
                    else -1
                )
            if node >= 0 and (self.smoothing != "add-k" or length == most):
                found.append((length, node))
        return found

    def _children(self, length: int, context: int) -> tuple[Int64[np.ndarray, " N"], Numbers]:
        """The words that follow a context, and the shares that they have by their own counts."""
        size, keys = len(self.counts.words), self.counts.tables[length - 1].key_N
        low, high = np.searchsorted(keys, [context * size, (context + 1) * size])
        return keys[low:high] % size, self._levels[length - 1].own_N[low:high]

    def _draw(self, ids: Sequence[int], draws: np.random.Generator) -> int:
        """A word: from the longest context by its own counts, or what is left of it from the next."""
        for length, node in reversed(self._ladder(ids[-self.order :])):
            words, own = self._children(length, node)
            place = int(np.searchsorted(np.cumsum(own), draws.random(), side="right"))
            if place < len(words):
                return int(words[place])
        return 1 + int(draws.integers(self.outcomes))


def _without_start(count_N: np.ndarray, length: int) -> Numbers:
    """<s> is never foretold."""
    count = count_N.astype(np.float64)
    if length == 1:
        count[0] = 0.0
    return count


def discounts(count_N: Numbers, modified: bool) -> Float64[np.ndarray, 4]:
    """What is taken from a count of 0, 1, 2, and 3 or more: D, or D1, D2, D3+ (Chen and Goodman 1999, eq. 17), from counts of counts."""
    n1, n2, n3, n4 = (float((count_N == times).sum()) for times in (1, 2, 3, 4))
    if not modified:
        # All of one count, D would be 1, and seen words would have no more than unseen ones.
        d = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
        return np.array([0.0, d, d, d])
    if not (n1 and n2 and n3 and n4):
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    inside = all(0 <= taken <= times for times, taken in enumerate(found))
    return found if inside else np.array([0.0, 0.5, 1.0, 1.5])
