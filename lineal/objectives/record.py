"""Algorithms as JSON: each part is its class and its numbers."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from lineal.errors import UsageError
from lineal.objectives.advantage import GAE, FullReturn, GroupMean, GroupNormalised, RewardToGo
from lineal.objectives.baseline import Learned, LeaveOneOut, NoBaseline, RunningMean
from lineal.objectives.group import Group
from lineal.objectives.penalty import AdaptiveKL, Entropy, OldKL, ReferenceKL, SqrtKL
from lineal.objectives.ratio import NoRatio, SequenceRatio, SequenceTokenRatio, TokenRatio
from lineal.objectives.reduction import PerBudget, PerPromptToken, PerSequence, PerToken, PlainSum
from lineal.objectives.step import Adam, NaturalGradient, TrustRegion
from lineal.objectives.surrogate import Clip, ClippedWeight, Linear, LogLikelihood
from lineal.objectives.value import Critic

PARTS: dict[str, type] = {
    part.__name__: part
    for part in (
        *(Group, FullReturn, RewardToGo, GroupMean, GroupNormalised, GAE),
        *(NoBaseline, RunningMean, LeaveOneOut, Learned, Critic),
        *(NoRatio, TokenRatio, SequenceRatio, SequenceTokenRatio),
        *(LogLikelihood, Linear, Clip, ClippedWeight),
        *(PerSequence, PerToken, PerPromptToken, PerBudget, PlainSum),
        *(OldKL, AdaptiveKL, SqrtKL, ReferenceKL, Entropy),
        *(Adam, TrustRegion, NaturalGradient),
    )
}
"""Every part that JSON can name; parts of your own are passed to `from_json`."""


def encode(value: Any) -> Any:
    """The value as JSON types; a part becomes {"part": its class, field: value, ...}."""
    if is_dataclass(value) and not isinstance(value, type):
        part = {} if type(value).__name__ == "Algorithm" else {"part": type(value).__name__}
        return part | {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(record: dict[str, Any] | str, parts: dict[str, type] | None = None) -> dict[str, Any]:
    """The slots of the algorithm that `encode` wrote."""
    loaded = json.loads(record) if isinstance(record, str) else record
    if not isinstance(loaded, dict):
        raise UsageError(
            "an algorithm's JSON is an object with its slots. Write it with algorithm.to_json()."
        )
    return {name: _decode(value, PARTS | (parts or {})) for name, value in loaded.items()}


def _decode(value: Any, parts: dict[str, type]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, parts) for item in value)
    if not isinstance(value, dict):
        return value
    part = value.get("part")
    if part not in parts:
        raise UsageError(
            f"no part is called {part!r}. Pass your own as from_json(record, parts={{{part!r}: YourClass}})."
        )
    return parts[part](**{name: _decode(item, parts) for name, item in value.items() if name != "part"})
