"""Learning-rate schedules: step -> what the learning rate is multiplied by.

`step` is the number of optimiser steps already taken, so the first one asks for step 0. A schedule is a value
without state: a resumed run asks it for the same numbers. Warm-up never gives a rate of 0, which would
waste the first step: step s of w gets (s + 1) / (w + 1), and the peak comes at step w.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

from lineal.errors import UsageError

Schedule = Callable[[int], float]
"""Any of these schedules, or a function of one's own."""


@dataclass(frozen=True)
class Constant:
    """1 after `warmup` steps."""

    warmup: int = 0

    def __post_init__(self) -> None:
        _check(None, self.warmup)

    def __call__(self, step: int) -> float:
        return _rise(step, self.warmup)


@dataclass(frozen=True)
class Linear:
    """1 after `warmup`, then straight down to `floor` at step `total`."""

    total: int
    warmup: int = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check(self.total, self.warmup)

    def __call__(self, step: int) -> float:
        done = _progress(step, self.warmup, self.total)
        return _rise(step, self.warmup) * (self.floor + (1 - self.floor) * (1 - done))


@dataclass(frozen=True)
class Cosine:
    """1 after `warmup`, then floor + (1 - floor) (1 + cos(π p)) / 2  (Loshchilov and Hutter 2017, eq. 5).

    p is the share of the steps between `warmup` and `total` that is done.
    """

    total: int
    warmup: int = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check(self.total, self.warmup)

    def __call__(self, step: int) -> float:
        done = _progress(step, self.warmup, self.total)
        return _rise(step, self.warmup) * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class WarmupStableDecay:
    """1 after `warmup` until `decay` steps before `total`, then floor + (1 - floor) (1 - p^power)  (Hu et
    al. 2024).

    p is the share of the decay that is done: power 1 is a straight line, 0.5 the '1 - sqrt' of Hägele et
    al. (2024).
    """

    total: int
    decay: int
    warmup: int = 0
    floor: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        _check(self.total, self.warmup)
        if not 0 <= self.decay <= self.total - self.warmup:
            raise UsageError(
                f"a decay of {self.decay} steps does not fit between {self.warmup} of warm-up and the end at "
                f"{self.total}: use 0 to {self.total - self.warmup}."
            )

    def __call__(self, step: int) -> float:
        done = _progress(step, self.total - self.decay, self.total)
        return _rise(step, self.warmup) * (self.floor + (1 - self.floor) * (1 - done**self.power))


@dataclass(frozen=True)
class Noam:
    """width^-½ min(s^-½, s warmup^-3/2) with s = step + 1, for a learning rate of 1  (Vaswani et al. 2017,
    eq. 3).

    The peak, (width warmup)^-½, is at s = warmup.
    """

    width: int
    warmup: int = 4000

    def __post_init__(self) -> None:
        if self.width < 1 or self.warmup < 1:
            raise UsageError(
                f"Noam with width {self.width} and warm-up {self.warmup}: both must be 1 or more."
            )

    def __call__(self, step: int) -> float:
        s = step + 1
        return self.width**-0.5 * min(s**-0.5, s * self.warmup**-1.5)


@dataclass(frozen=True)
class InverseSquareRoot:
    """A rise to 1 in `warmup` steps, then sqrt((warmup + 1) / s) with s = step + 1, in proportion to s^-1/2  (Shazeer et
    al. 2017, appendix C)."""

    warmup: int = 1000

    def __post_init__(self) -> None:
        _check(None, self.warmup)

    def __call__(self, step: int) -> float:
        return _rise(step, self.warmup) if step < self.warmup else ((self.warmup + 1) / (step + 1)) ** 0.5


@dataclass(frozen=True)
class SlantedTriangular:
    """(1 + p (ratio - 1)) / ratio: a short rise and a long fall  (Howard and Ruder 2018, eq. 3).

    cut = max(1, floor(total cut_fraction)); p = step / cut before it, then 1 - (step - cut) / (cut
    (1/cut_fraction - 1)), never below 0: where the floor cut something off, the formula's p would end below
    it.
    """

    total: int
    cut_fraction: float = 0.1
    ratio: float = 32.0

    def __post_init__(self) -> None:
        _check(self.total, 0)
        if not 0 < self.cut_fraction < 1 or self.ratio < 1:
            raise UsageError(
                f"slanted triangle with cut {self.cut_fraction} and ratio {self.ratio}: "
                "the cut must lie between 0 and 1, and the ratio be 1 or more."
            )

    def __call__(self, step: int) -> float:
        # 0.29 * 100 is 28.999999999999996: what is meant is 29.
        cut = max(1, math.floor(self.total * self.cut_fraction + 1e-9))
        if step < cut:
            p = step / cut
        else:
            p = max(0.0, 1 - (step - cut) / (cut * (1 / self.cut_fraction - 1)))
        return (1 + p * (self.ratio - 1)) / self.ratio


SCHEDULES = ("constant", "linear", "cosine", "wsd", "inverse_sqrt")
"""The names that `make_schedule` knows."""


def make_schedule(name: str, total: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """The schedule of that name over `total` steps; "wsd" decays over the last fifth of them."""
    if name == "constant":
        return Constant(warmup)
    if name == "linear":
        return Linear(total, warmup, floor)
    if name == "cosine":
        return Cosine(total, warmup, floor)
    if name == "wsd":
        return WarmupStableDecay(total, min(total // 5, total - warmup), warmup, floor)
    if name == "inverse_sqrt":
        return InverseSquareRoot(warmup)
    near = difflib.get_close_matches(name, SCHEDULES, 1)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(SCHEDULES)}."
    raise UsageError(f"there is no schedule called {name!r}: {hint}")


def _rise(step: int, warmup: int) -> float:
    return (step + 1) / (warmup + 1) if step < warmup else 1.0


def _progress(step: int, start: int, end: int) -> float:
    if step >= end:
        return 1.0
    return 0.0 if step <= start else (step - start) / (end - start)


def _check(total: int | None, warmup: int) -> None:
    if warmup < 0:
        raise UsageError(f"a warm-up of {warmup} steps: use 0 or more.")
    if total is not None and total < max(1, warmup):
        raise UsageError(
            f"{total} steps with {warmup} of warm-up: the warm-up must fit into the steps, use fewer."
        )
