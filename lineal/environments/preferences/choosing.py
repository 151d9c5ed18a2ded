"""Which pairs are worth asking about: at random, or where the reward ensemble disagrees most."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineal.environments.preferences.records import Pair, Segment
from lineal.errors import UsageError

Scores = Callable[[Sequence[Segment]], NDArray[np.float64]]
"""Summed predicted reward of each segment by each member, [M, S]; one forward for all of them."""
DISAGREEMENT, UNIFORM = "disagreement", "uniform"


@dataclass(frozen=True)
class PairSampler:
    """Chooses pairs of segments to ask about  (Christiano et al. 2017, section 2.2.4).

    how: "disagreement" draws `candidates` times as many pairs as are wanted and keeps those whose predicted preference
    P_m(1 > 2) = σ(Σ r_m(1) - Σ r_m(2)) has the greatest variance over the members m; "uniform" takes the first ones
    drawn. A pair never holds one segment twice, nor two of equal content, and is never asked again, either way round.
    """

    how: str = DISAGREEMENT
    candidates: int = 10

    def __post_init__(self) -> None:
        if self.how not in (DISAGREEMENT, UNIFORM):
            raise UsageError(f"pairs are chosen by {DISAGREEMENT} or {UNIFORM}, not {self.how!r}.")
        if self.candidates < 1:
            raise UsageError(f"{self.candidates} candidates per pair: it takes at least 1.")

    def __call__(
        self,
        segments: Sequence[Segment],
        count: int,
        seed: Sequence[int],
        *,
        scores: Scores | None = None,
        asked: Set[str] = frozenset(),
        step: int = 0,
    ) -> list[Pair]:
        """`count` pairs (fewer where there are no more), the most informative first; a function of its arguments.

        seed: numbers that fix the draw. scores: what the ensemble says; None (nothing learned yet) is uniform.
        asked: ids of pairs that were asked before.
        """
        ids = list(dict.fromkeys(segment.id for segment in segments))
        by_disagreement = self.how == DISAGREEMENT and scores is not None
        drawn = _draw(ids, count * (self.candidates if by_disagreement else 1), seed, asked, step)
        if not by_disagreement or scores is None or len(drawn) <= 1:
            return drawn[:count]
        place = {name: i for i, name in enumerate(ids)}
        unique = {segment.id: segment for segment in segments}
        score_MS = scores([unique[name] for name in ids])
        first_C = np.array([place[pair.first] for pair in drawn])
        second_C = np.array([place[pair.second] for pair in drawn])
        best_C = np.argsort(-disagreement(score_MS, first_C, second_C), kind="stable")
        return [drawn[i] for i in best_C[:count]]


def disagreement(
    score_MS: NDArray[np.float64], first_C: NDArray[np.int64], second_C: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Var_m σ(s_m[first] - s_m[second]) of each candidate pair, over the members."""
    gap_MC = score_MS[:, first_C] - score_MS[:, second_C]
    return (0.5 * (1 + np.tanh(gap_MC / 2))).var(0)


def _draw(ids: Sequence[str], wanted: int, seed: Sequence[int], asked: Set[str], step: int) -> list[Pair]:
    """Distinct unordered pairs in random order, at most `wanted` of them."""
    count = len(ids)
    possible = count * (count - 1) // 2
    random = np.random.default_rng(list(seed))
    if possible <= 4 * wanted:
        order = random.permutation(possible).tolist()
    else:
        # The few that come twice, or were asked before, are made up for by drawing more than are wanted.
        order = list(dict.fromkeys(random.integers(0, possible, 2 * wanted + 8).tolist()))
    found: list[Pair] = []
    for number in order:
        low, high = _unrank(number)
        flip = bool(random.integers(2))
        first, second = (high, low) if flip else (low, high)
        pair = Pair(ids[first], ids[second], step=step)
        if pair.id not in asked and Pair(pair.second, pair.first).id not in asked:
            found.append(pair)
        if len(found) == wanted:
            break
    return found


def _unrank(number: int) -> tuple[int, int]:
    """The number-th of the pairs (0, 1), (0, 2), (1, 2), (0, 3), ...: exact, without listing them."""
    high = int((1 + (1 + 8 * number) ** 0.5) / 2)
    while high * (high - 1) // 2 > number:
        high -= 1
    while (high + 1) * high // 2 <= number:
        high += 1
    return number - high * (high - 1) // 2, high
