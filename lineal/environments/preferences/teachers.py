"""Who answers without a page: a synthetic teacher with human faults, or any function.

The person behind the page answers through the label store instead.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lineal.environments.preferences.records import EQUAL, FIRST, SECOND, Label, Pair, Segment
from lineal.errors import RewardError, UsageError


@runtime_checkable
class Labeller(Protocol):
    """Answers questions; `name` goes into every label."""

    @property
    def name(self) -> str:
        """Who is asked."""
        ...

    def __call__(self, pair: Pair, segments: Mapping[str, Segment]) -> Label:
        """The answer about one pair; segments: those of the pair by id (none where it holds texts)."""
        ...


def uniform(*words: Any) -> float:
    """A number in [0, 1) that is a hash of the words: the same on every machine, in whatever order it is asked."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class Teacher:
    """A synthetic labeller that sees the true reward, with the faults of B-Pref's teachers (Lee et al. 2021, eq. 2-4).

    With s = Σ_t myopia^(T-1-t) r_t, a pair is answered so, in this order:

    - skipped ("can't tell") when the greater of the two plain sums is below `skip_below`;
    - "equally good" when the plain sums differ by less than `equal_margin` (or not at all);
    - first with probability σ((s_1 - s_2) / temperature), and at temperature 0 whichever has the greater s;
    - turned round with probability `mistake`.

    The defaults are the perfectly rational teacher. Its randomness is a function of (seed, pair), so that the same
    question has the same answer however a run was interrupted.
    """

    temperature: float = 0.0
    mistake: float = 0.0
    equal_margin: float = 0.0
    skip_below: float | None = None
    myopia: float = 1.0
    seed: int = 0
    name: str = "synthetic"

    def __post_init__(self) -> None:
        for flag, low, high in (
            ("temperature", 0, math.inf),
            ("mistake", 0, 1),
            ("equal_margin", 0, math.inf),
        ):
            if not low <= getattr(self, flag) <= high:
                raise UsageError(f"{flag} is {getattr(self, flag)}: it must lie between {low} and {high}.")
        if not 0 < self.myopia <= 1:
            raise UsageError(
                f"myopia is {self.myopia}: it must be above 0 and at most 1 (1: sees all steps alike)."
            )

    def __call__(self, pair: Pair, segments: Mapping[str, Segment]) -> Label:
        """The answer about one pair of clips."""
        if pair.first not in segments or pair.second not in segments:
            raise UsageError(
                "the synthetic teacher compares clips by their reward; texts need a person or a function."
            )
        preference = self._preference(pair, segments[pair.first].reward_T, segments[pair.second].reward_T)
        return Label(pair.id, preference, self.name)

    def _preference(self, pair: Pair, first_T: Any, second_T: Any) -> float | None:
        plain = float(np.sum(first_T)), float(np.sum(second_T))
        if self.skip_below is not None and max(plain) < self.skip_below:
            return None
        if abs(plain[0] - plain[1]) < self.equal_margin or plain[0] == plain[1]:
            return EQUAL
        gap = self._seen(first_T) - self._seen(second_T)
        if self.temperature:
            better = uniform("choice", self.seed, pair.id) < _sigmoid(gap / self.temperature)
        else:
            better = gap > 0
        if uniform("mistake", self.seed, pair.id) < self.mistake:
            better = not better
        return FIRST if better else SECOND

    def _seen(self, reward_T: Any) -> float:
        weight_T = self.myopia ** np.arange(len(reward_T) - 1, -1, -1, dtype=np.float64)
        return float(np.sum(weight_T * reward_T))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True)
class FunctionLabeller:
    """Any function of two things as a labeller: a vision or language model as judge, a rule, a remote service.

    function: takes (first, second, prompt), two `Segment`s or two texts, and returns the probability that the first is
    better, or None for "can't tell". RewardError when it raises or returns something else.
    """

    function: Callable[[Any, Any, str], float | None]
    name: str = "function"

    def __call__(self, pair: Pair, segments: Mapping[str, Segment]) -> Label:
        """Ask the function about one pair."""
        first, second = (segments.get(side, side) for side in (pair.first, pair.second))
        try:
            value = self.function(first, second, pair.prompt)
        except Exception as error:
            raise RewardError(
                f"the labeller {self.name} raised {type(error).__name__}: {error}, on pair {pair.id}. Let it return "
                "None where it cannot tell."
            ) from error
        fits = value is None or (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1)
        if not fits:
            raise RewardError(
                f"the labeller {self.name} returned {value!r} on pair {pair.id}: it must be the probability that the "
                "first is better, or None."
            )
        return Label(pair.id, None if value is None else float(value), self.name)
