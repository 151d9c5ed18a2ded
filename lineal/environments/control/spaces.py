"""What an environment shows and takes: three kinds of spaces, as values without behaviour of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Discrete:
    """One of `n` choices, 0..n-1; an action is a number."""

    n: int


@dataclass(frozen=True)
class MultiDiscrete:
    """Several choices at once, the i-th one of `n[i]`; an action is a row of numbers."""

    n: tuple[int, ...]


@dataclass(frozen=True)
class Box:
    """Numbers between bounds, which may be infinite; `low` and `high` are flat, in row-major order, or one number for all."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """How many numbers one element has."""
        return math.prod(self.shape)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """low and high as arrays of the space's shape and dtype."""
        low, high = (
            np.broadcast_to(np.array(x, self.dtype), self.size).reshape(self.shape)
            for x in (self.low, self.high)
        )
        return low, high

    def __str__(self) -> str:
        """On one line, however many numbers there are."""
        if self.size <= 32:
            return repr(self)
        return f"Box({min(self.low):g} to {max(self.high):g}, shape={self.shape}, dtype={self.dtype})"


Space = Discrete | MultiDiscrete | Box


def box(low: float | list[float], high: float | list[float], shape: tuple[int, ...], dtype: str) -> Box:
    """A Box whose bounds may be given as one number for all."""
    size = math.prod(shape)
    spread = [tuple(map(float, x)) if isinstance(x, list) else (float(x),) * size for x in (low, high)]
    return Box(spread[0], spread[1], shape, dtype)


def space_to_json(space: Space) -> dict[str, Any]:
    """The space as JSON values; infinite bounds become text."""
    record = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(space).items()}
    for name in ("low", "high"):
        if name in record:
            record[name] = [x if math.isfinite(x) else repr(x) for x in record[name]]
    return {"kind": type(space).__name__, **record}


def space_from_json(record: dict[str, Any]) -> Space:
    """The space that `space_to_json` wrote."""
    kinds: dict[str, type] = {"Discrete": Discrete, "MultiDiscrete": MultiDiscrete, "Box": Box}
    values = {name: tuple(x) if isinstance(x, list) else x for name, x in record.items() if name != "kind"}
    for name in ("low", "high"):
        if name in values:
            values[name] = tuple(float(x) for x in values[name])
    return kinds[record["kind"]](**values)
