"""Learning a Unigram model on arrays: the steps of `unigram_train` with compiled cores, on all words at once."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import ModuleType
from typing import Any

from lineal.errors import UsageError
from lineal.native import compiled

MOST = 0x7FFFFFFF
FOREVER = 1e300


def lattice_cores() -> tuple[ModuleType, ModuleType] | None:
    """The compiled cores for suffixes and steps; None unless both are there."""
    found = compiled("lineal.tokenizers.core.suffixes"), compiled("lineal.tokenizers.core.unigram_train")
    return (found[0], found[1]) if found[0] and found[1] else None


class Lattice:
    """All words in one text, a zero between them, and for each place the pieces that begin there.

    `training` has `longest` and `seeds`. cores: those of `lattice_cores`, in either form.
    Raises UsageError when the words are too long in all for 31 bits.
    """

    def __init__(
        self,
        words: Mapping[str, int],
        alphabet: Sequence[str],
        training: Any,
        cores: tuple[ModuleType, ModuleType],
    ):
        self._suffixes, self._steps = cores
        self._text = "".join(word + "\0" for word in words)
        if len(self._text) > MOST // 16:
            raise UsageError(
                f"{len(words)} different words have {len(self._text)} characters in all, more than {MOST // 16}: "
                "count fewer (cap), or split texts into words."
            )
        self._counts = array("q", words.values())
        ends = list(accumulate(len(word) + 1 for word in words))
        self._words = array(
            "i", [place for start, end in zip([0, *ends], ends) for place in (start, end - 1)]
        )
        longest = max(map(len, words), default=0) + 1
        self._work, self._back = array("d", bytes(16 * longest)), array("i", bytes(8 * longest))
        self._lay_out(alphabet, training)

    def _lay_out(self, alphabet: Sequence[str], training: Any) -> None:
        """Find the seeds, and where each stands."""
        text, limit = self._text, training.longest + 1
        codes = array("i", text.encode("utf-32-le"))
        order, weights = self._sorted(codes, limit)
        shared = array("i", bytes(4 * (len(order) + 1)))
        self._suffixes.common(codes, order, shared, limit)
        found = array("q", bytes(64 * len(order) + 64))
        count = self._suffixes.repeats(order, shared, weights, codes, limit, found)
        del found[4 * count :]
        singles = self._characters(order, weights, shared, codes)
        wanted = [singles[character] for character in alphabet if character in singles]
        worth = [times * length for times, length in zip(found[3::4], found[2::4])]
        chosen = range(count)
        if count > training.seeds:
            chosen = sorted(
                sorted(chosen, key=lambda at: (-worth[at], self._spelled(order, found, at)))[: training.seeds]
            )
        rows = array("q", [number for single in wanted for number in single])
        for at in chosen:
            rows.extend(found[4 * at : 4 * at + 4])
        self._sizes = array("i", rows[2::4])
        self._places = array("i", [order[at] for at in rows[0::4]])
        values = [times * length for times, length in zip(rows[3::4], rows[2::4])]
        total = math.log(sum(values))
        self._scores = array("d", [math.log(value) - total for value in values])
        self._edges(order, rows, array("i", range(len(self._sizes))))

    def _sorted(self, codes: array[int], limit: int) -> tuple[array[int], array[int]]:
        """Places of characters in the order of what stands there, and how often those before each occur."""
        order = array("i", [at for at, code in enumerate(codes) if code])
        self._suffixes.sort(codes, order, limit, array("q", bytes(8 * 3 * 64 * (limit + 2))))
        often = array("q", bytes(8 * len(codes)))
        for at, count in enumerate(self._counts):
            start, end = self._words[2 * at], self._words[2 * at + 1]
            often[start:end] = array("q", (count,)) * (end - start)
        return order, array("q", accumulate((often[at] for at in order), initial=0))

    def _characters(
        self, order: array[int], weights: array[int], shared: array[int], codes: array[int]
    ) -> dict[str, tuple[int, int, int, int]]:
        """Each character, as `repeats` gives substrings."""
        starts = [at for at in range(len(order)) if shared[at] == 0]
        found = {}
        for start, end in zip(starts, [*starts[1:], len(order)]):
            found[chr(codes[order[start]])] = start, end, 1, weights[end] - weights[start]
        return found

    def _spelled(self, order: array[int], found: array[int], at: int) -> str:
        place = order[found[4 * at]]
        return self._text[place : place + found[4 * at + 2]]

    def _edges(self, order: array[int], rows: array[int], names: array[int]) -> None:
        """Lay out the pieces by the places where they begin."""
        many = array("i", bytes(4 * (len(self._text) + 1)))
        self._suffixes.tally(order, rows, names, many)
        first = array("i", accumulate(many[:-1], initial=0))
        self._lengths = bytearray(first[-1])
        self._tokens = array("i", bytes(4 * first[-1]))
        self._suffixes.edges(order, rows, names, first, self._lengths, self._tokens)
        # Each entry has become its place's end, which is where the next begins.
        first.insert(0, 0)
        first.pop()
        self._first = first

    def __len__(self) -> int:
        return len(self._scores)

    def improve(self) -> float:
        """One round of expectation and maximisation; the log-likelihood before it."""
        chances, expected = array("d", map(math.exp, self._scores)), array("d", bytes(8 * len(self)))
        where = self._words, self._counts, (self._first, self._lengths, self._tokens)
        likelihood = self._steps.expect(*where, chances, expected, self._work, self._back)
        kept = [count >= 0.5 or size == 1 for count, size in zip(expected, self._sizes)]
        values = array("d", [max(count, 0.5) for count, keep in zip(expected, kept) if keep])
        values.append(math.fsum(values))
        self._steps.digamma(values)
        total = values.pop()
        self._keep(kept)
        self._scores = array("d", [value - total for value in values])
        return likelihood

    def prune(self, size: int) -> None:
        """Leave the `size` pieces that are worth most."""
        found, out = array("q", bytes(8 * len(self))), array("d", bytes(8 * len(self)))
        where = (self._first, self._lengths, self._tokens), self._scores
        self._steps.best(self._words, self._counts, *where, found, self._work, self._back)
        self._steps.losses(self._places, self._sizes, *where, found, float(sum(found)), out)
        worth = sorted((value for value in out if value >= 0), reverse=True)
        least = worth[size - 1] if 0 < size <= len(worth) else 0.0
        room = size - sum(value > least for value in worth)
        kept = []
        for value in out:
            kept.append(value > least or (value == least and room > 0))
            room -= value == least
        self._keep(kept)

    def _keep(self, kept: Sequence[bool]) -> None:
        """Let the other pieces go."""
        if all(kept):
            return
        names = array("i", [number - 1 if keep else -1 for number, keep in zip(accumulate(kept), kept)])
        left = self._steps.compact(self._first, self._lengths, self._tokens, names)
        del self._lengths[left:], self._tokens[left:]
        for name in ("_sizes", "_places", "_scores"):
            old = getattr(self, name)
            setattr(self, name, array(old.typecode, [value for value, keep in zip(old, kept) if keep]))

    def pieces(self) -> dict[str, float]:
        """The pieces and their log-probabilities."""
        return {
            self._text[place : place + size]: score
            for place, size, score in zip(self._places, self._sizes, self._scores)
        }
