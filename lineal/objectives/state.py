"""Everything of an algorithm that changes between steps, as one value of plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class AlgorithmState:
    """The moving numbers of an algorithm; `update_state` makes the next one, checkpoints save it as JSON.

    beta: coefficient of the adaptive KL penalty; None until `initial_state` or the first update sets it.
    baseline_sum, baseline_count: decayed sums of the running-mean baseline.
    return_sum, return_square, return_count: sums over every counted step's discounted return, for reward
    scaling.
    """

    beta: float | None = None
    baseline_sum: float = 0.0
    baseline_count: float = 0.0
    return_sum: float = 0.0
    return_square: float = 0.0
    return_count: float = 0.0

    @property
    def baseline_mean(self) -> float:
        """The running mean, 0 before anything was seen."""
        return self.baseline_sum / self.baseline_count if self.baseline_count else 0.0

    def to_json(self) -> dict[str, float | None]:
        """A dictionary that json can write; floats survive exactly."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> AlgorithmState:
        """The state that `to_json` wrote; names it does not know are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in record.items() if name in known})
