"""What is compared and what was said about it: segments of behaviour, pairs of them (or of texts), labels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineal.errors import DataError

Array = NDArray[Any]
CLIPS, TEXTS = "clips", "texts"
FIRST, SECOND, EQUAL = 1.0, 0.0, 0.5
"""μ, the probability that the first is the better one; "can't tell" is None."""


@dataclass(frozen=True)
class Segment:
    """A short stretch of behaviour: T steps of one environment.

    observation_TF: what the policy saw before each step. action_T: what it did, [T] or [T, A]. reward_T: the
    environment's own reward, which only a synthetic teacher and the diagnostics look at. state: the simulator's state
    before each step, by name, [T, ...] each: enough to draw the clip later, when somebody asks for it.
    Observations that are stacks of pictures, each the one before moved on by one, are kept as the pictures themselves.
    """

    observation_TF: Array
    action_T: Array
    reward_T: Array
    state: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = {"observation": self.observation_TF, "action": self.action_T, "reward": self.reward_T}
        steps = {name: len(x) for name, x in (own | dict(self.state)).items()}
        if len(set(steps.values())) != 1 or 0 in steps.values():
            raise DataError(f"a segment's parts must have the same number of steps, 1 or more: {steps}.")

    def __len__(self) -> int:
        return len(self.reward_T)

    def arrays(self) -> dict[str, Array]:
        """Every array by the name it is saved under."""
        frames = _unstacked(self.observation_TF)
        shown = {"observation": self.observation_TF} if frames is None else {"frames": frames}
        own = {"action": self.action_T, "reward": self.reward_T}
        return shown | own | {f"state/{name}": x for name, x in self.state.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Segment:
        """The segment that `arrays` came from."""
        prefix = "state/"
        state = {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}
        steps = len(arrays["reward"])
        shown = _stacked(arrays["frames"], steps) if "frames" in arrays else arrays["observation"]
        return cls(shown, arrays["action"], arrays["reward"], state)

    @cached_property
    def id(self) -> str:
        """A hash of everything in it: equal for equal behaviour, on any machine."""
        digest = hashlib.sha256()
        for name, x in sorted(self.arrays().items()):
            digest.update(json.dumps([name, x.dtype.str, list(x.shape)]).encode())
            digest.update(np.ascontiguousarray(x).tobytes())
        return digest.hexdigest()[:20]


def _unstacked(observation_TF: Array) -> Array | None:
    """The pictures of which the observations are stacks, oldest first; None where that would lose anything."""
    if observation_TF.dtype != np.uint8 or observation_TF.ndim < 4 or len(observation_TF) < 2:
        return None
    if not np.array_equal(observation_TF[1:, :-1], observation_TF[:-1, 1:]):
        return None
    return np.concatenate([observation_TF[0], observation_TF[1:, -1]])


def _stacked(frames: Array, steps: int) -> Array:
    """The stacks that `_unstacked` took apart, as a view."""
    deep = len(frames) - steps + 1
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(frames, deep, axis=0), -1, 1)


@dataclass(frozen=True)
class Pair:
    """A question: which of two is better? Segments by their ids, or two texts (with the prompt they answer).

    step: when it was asked (environment steps so far, or 0).
    """

    first: str
    second: str
    kind: str = CLIPS
    prompt: str = ""
    step: int = 0

    def __post_init__(self) -> None:
        if self.first == self.second:
            raise DataError(
                f"a pair compares two different things; both sides are {self.first[:60]!r}. Leave it out."
            )
        if self.kind not in (CLIPS, TEXTS):
            raise DataError(f"a pair holds {CLIPS} or {TEXTS}, not {self.kind!r}.")

    @cached_property
    def id(self) -> str:
        """A hash of the question; when it was asked does not matter."""
        text = json.dumps([self.kind, self.prompt, self.first, self.second])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]

    def to_json(self) -> dict[str, Any]:
        """A line of pairs.jsonl."""
        return {"pair": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Pair:
        """The pair that `to_json` wrote; DataError where its id is not the hash of what it holds."""
        pair = cls(**{f.name: record[f.name] for f in fields(cls)})
        if record["pair"] != pair.id:
            raise DataError(f"pair {record['pair']} was altered: its content hashes to {pair.id}.")
        return pair


@dataclass(frozen=True)
class Label:
    """An answer about one pair.

    preference: μ = 1 for the first, 0 for the second, .5 for "equally good" (any probability is allowed); None for
    "can't tell". labeller: who said so. seconds: how long it took. control: the pair was shown a second time, to see
    whether the labeller agrees with himself; such answers are never trained on. retracted: takes the answer back.
    """

    pair: str
    preference: float | None
    labeller: str = "person"
    seconds: float = 0.0
    time: float = 0.0
    control: bool = False
    retracted: bool = False

    def __post_init__(self) -> None:
        value = self.preference
        if value is not None and not (math.isfinite(value) and 0.0 <= value <= 1.0):
            raise DataError(
                f"the preference of pair {self.pair} is {value}: it is a probability, 1 (first), 0 (second), .5 "
                "(equally good), or null (can't tell)."
            )

    def to_json(self) -> dict[str, Any]:
        """A line of labels.jsonl."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Label:
        """The label that `to_json` wrote; fields that are absent take their defaults."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(record) - known)
        missing = sorted({"pair", "preference"} - set(record))
        if unknown or missing:
            raise DataError(f"a label has {sorted(known)}; this one lacks {missing} and adds {unknown}.")
        value = record["preference"]
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise DataError(
                f"the preference of pair {record['pair']} is {value!r}: it must be a number or null."
            )
        return cls(**{**record, "preference": None if value is None else float(value)})
