"""Numbers on their way from tensors to a line of JSON, a bar on the screen, and back.

JSON has no nan: a number that is not finite is written as null, and its line gets `"non_finite": true`.
`read_lines` gives nan back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lineal.errors import RunError

BARS = "▁▂▃▄▅▆▇█"


class Means:
    """Running sums of tensors on their device, and one transfer to the host for all of their means.

    `add(name, value, count)` accumulates value and count; `means()` is sum / count, nan where the count is 0.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float | int] = {}
        self._counts: dict[str, Tensor | float | int] = {}

    def add(self, name: str, value: Tensor | float | int, count: Tensor | float | int = 1.0) -> None:
        """Add a sum and the number of things it sums; both may be tensors or numbers."""
        for store, amount in ((self._sums, value), (self._counts, count)):
            # Sums of many float32 numbers are taken in float64.
            part = amount.detach().to(_wide(amount)) if isinstance(amount, Tensor) else float(amount)
            store[name] = store[name] + part if name in store else part

    def means(self) -> dict[str, float]:
        """Mean of each name, in the order of first `add`."""
        sums = to_host(self._sums | {f"{name} count": count for name, count in self._counts.items()})
        return {name: _divide(sums[name], sums[f"{name} count"]) for name in self._sums}


def _divide(value: float, count: float) -> float:
    return value / count if count else math.nan


def to_host(values: Mapping[str, Tensor | float | int]) -> dict[str, float]:
    """All numbers as Python floats, with one transfer per device instead of one per number."""
    result: dict[str, float] = {}
    waiting: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, value in values.items():
        result[name] = math.nan if isinstance(value, Tensor) else float(value)
        if isinstance(value, Tensor):
            waiting.setdefault(value.device, []).append((name, value.detach().reshape(())))
    for group in waiting.values():
        packed = torch.stack([tensor.to(_wide(tensor)) for _, tensor in group]).tolist()
        result.update(zip((name for name, _ in group), packed, strict=True))
    return result


def _wide(tensor: Tensor) -> torch.dtype:
    # Apple's GPU has no float64.
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def encode_line(record: Mapping[str, Any]) -> bytes:
    """One line of JSON; numbers that are not finite become null and mark the line `"non_finite": true`."""
    flags: list[bool] = []
    body = _plain(dict(record), flags)
    if flags:
        body["non_finite"] = True
    try:
        return json.dumps(body, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half of a surrogate pair, as a decoder of bytes can produce, is no UTF-8: escape everything.
        return json.dumps(body).encode() + b"\n"


def _plain(value: Any, flags: list[bool]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, flags) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item, flags) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        flags.append(True)
        return None
    return value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl file of a run, nan where a number was not finite.

    A last line without its end is still being written and is left out. RunError for a line that is no JSON.
    """
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise RunError(f"{path}:{number}: not a line that a run writes ({error}).") from error
            if record.pop("non_finite", False):
                record = {key: math.nan if value is None else value for key, value in record.items()}
            yield record


def sparkline(values: Sequence[float | int], width: int = 24) -> str:
    """The last values as a row of bars scaled from their least to their greatest; more than `width` are
    averaged.

    A value that is not finite shows as ×.
    """
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [_mean(values[a:b]) for a, b in pairwise(edges)]
    finite = [v for v in values if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    # Halved, because the distance of two finite numbers may not be finite.
    span = high / 2 - low / 2
    top = len(BARS) - 1

    def bar(value: float | int) -> str:
        if not math.isfinite(value):
            return "×"
        return BARS[0] if span == 0 else BARS[min(top, max(0, round((value / 2 - low / 2) / span * top)))]

    return "".join(bar(v) for v in values)


def _mean(values: Sequence[float | int]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
