"""From completions to one reward each: reward functions called, checked, weighted, summed, and counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lineal.environments.rewards import Reward
from lineal.environments.shaping import SoftOverlong
from lineal.environments.worker import Limits, Worker, WorkerFailure
from lineal.environments.worker_child import accepted, describe, read_rewards, run_function
from lineal.errors import RewardError, UsageError

ON_ERROR = ("stop", "zero", "drop")

LOCATED = ("raised", "badrow")
"""Failures of a call that single samples may have caused; scoring them one by one tells which."""

RESERVED = ("prompts", "completions", "completion_ids", "prompt", "completion", "finish", "trainer_state")
"""Names that a data column cannot have in a reward function: the arguments of its signature (as in TRL)."""


@dataclass(frozen=True)
class Samples:
    """N completions as reward functions see them: everything is a list of N, columns repeated per completion.

    prompts, completions: text, or lists of messages for chat data. completion_ids: the sampled token ids.
    columns: the data's other columns. finish: "stop" or "length" for each completion, when known.
    """

    prompts: Sequence[Any]
    completions: Sequence[Any]
    completion_ids: Sequence[Sequence[int]]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    finish: Sequence[str] | None = None

    def __post_init__(self) -> None:
        parts = {"prompts": self.prompts, "completion_ids": self.completion_ids, **self.columns}
        if self.finish is not None:
            parts["finish"] = self.finish
        for name, values in parts.items():
            if len(values) != len(self.completions):
                raise RewardError(
                    f"{len(self.completions)} completions came with {len(values)} values of {name}: "
                    "give one for each completion."
                )

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of a reward function."""
        columns = {name: list(values) for name, values in self.columns.items() if name not in RESERVED}
        return {
            "prompts": list(self.prompts),
            "completions": list(self.completions),
            "completion_ids": [list(ids) for ids in self.completion_ids],
            **columns,
            **({} if self.finish is None else {"finish": list(self.finish)}),
        }

    def one(self, index: int) -> Samples:
        """The sample at `index` alone."""
        at = slice(index, index + 1)
        columns = {name: values[at] for name, values in self.columns.items()}
        finish = None if self.finish is None else self.finish[at]
        return Samples(self.prompts[at], self.completions[at], self.completion_ids[at], columns, finish)


@dataclass(frozen=True)
class Scored:
    """The rewards of N completions.

    rewards: the weighted sums; nan where `keep` is False, and such a completion must not be trained on.
    parts: for each reward function its own values, None where it does not apply or failed.
    failures: for each reward function how many samples it failed on, and `problems` what the first failure
    was. metrics, extra, output: what the functions logged and printed (the end of it).
    """

    rewards: tuple[float, ...]
    keep: tuple[bool, ...]
    parts: dict[str, tuple[float | None, ...]]
    failures: dict[str, int]
    problems: dict[str, str]
    metrics: dict[str, float]
    extra: dict[str, list[str]]
    output: dict[str, str]

    def summary(self) -> dict[str, float]:
        """Means and standard deviations under the names of TRL's logs, with failed and dropped counts."""
        logged = dict(self.metrics)
        for name, values in self.parts.items():
            there = [value for value in values if value is not None]
            mean = sum(there) / len(there) if there else math.nan
            logged[f"rewards/{name}/mean"] = mean
            spread = sum((value - mean) ** 2 for value in there)
            logged[f"rewards/{name}/std"] = math.sqrt(spread / (len(there) - 1)) if len(there) > 1 else 0.0
            logged[f"rewards/{name}/failed"] = float(self.failures.get(name, 0))
        logged["rewards/dropped"] = float(self.keep.count(False))
        return logged


@dataclass(frozen=True)
class _Part:
    """What one reward function gave: values, and for each sample that failed what was wrong."""

    values: list[float | None]
    faults: dict[int, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    extra: dict[str, list[str]] = field(default_factory=dict)
    output: str = ""


class Scorer:
    """Scores completions with several reward functions; the user's own run in workers that it owns.

    The reward of a completion is sum_k weight_k * reward_k over the functions that apply to it, plus the
    overlong penalty. One to which none applies (all None) has no reward and is not kept.
    on_error: what a function that raises, hangs, exits or returns nonsense does to the samples concerned:
    stop (RewardError), zero (that function counts as 0), drop (the sample is not kept). Each is counted.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        *,
        on_error: str = "stop",
        overlong: SoftOverlong | None = None,
        limits: Limits | None = None,
    ) -> None:
        if on_error not in ON_ERROR:
            raise UsageError(f"--on-reward-error {on_error} is not one of {', '.join(ON_ERROR)}.")
        self.rewards, self.on_error, self.overlong = tuple(rewards), on_error, overlong
        self._workers = {r.name: Worker(r.path, r.attribute, limits) for r in rewards if r.path is not None}

    def __enter__(self) -> Scorer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start every worker now, so that a file that cannot be loaded is known before training begins.

        Raises RewardError.
        """
        for reward in self.rewards:
            worker = self._workers.get(reward.name)
            if worker is not None:
                try:
                    worker.start()
                except WorkerFailure as error:
                    raise RewardError(_load_message(reward, error)) from error

    def close(self) -> None:
        """End every worker."""
        for worker in self._workers.values():
            worker.close()

    def __call__(self, samples: Samples, state: Mapping[str, Any] | None = None) -> Scored:
        """Score N completions; `state` (plain values) is what functions see as `trainer_state`.

        Raises RewardError as `on_error` says.
        """
        parts = {r.name: self._one_reward(r, samples, dict(state or {})) for r in self.rewards}
        if self.on_error == "stop":
            for reward in self.rewards:
                for index, fault in parts[reward.name].faults.items():
                    raise RewardError(_sample_message(reward, index, fault, samples))
            if samples.completions and all(v is None for part in parts.values() for v in part.values):
                names = ", ".join(parts)
                raise RewardError(
                    f"no reward applies to any of the {len(samples.completions)} completions: {names} gave "
                    "None for all of them, so there is nothing to learn from; return a number for some, or "
                    "add a reward."
                )
        return self._combine(parts, samples)

    def _one_reward(self, reward: Reward, samples: Samples, state: dict[str, Any]) -> _Part:
        if not samples.completions:
            return _Part([])
        try:
            return self._call(reward, samples, state)
        except WorkerFailure as error:
            located = self._locate(reward, samples, state, error)
            if located is not None:
                return located
            if self.on_error == "stop" or error.kind in ("load", "misfit"):
                message = (
                    _load_message(reward, error) if error.kind == "load" else _call_message(reward, error)
                )
                raise RewardError(message) from error
            count = len(samples.completions)
            faults = dict.fromkeys(range(count), str(error))
            return _Part([None] * count, faults, output=error.output)

    def _call(self, reward: Reward, samples: Samples, state: dict[str, Any]) -> _Part:
        arguments = {**samples.arguments(), **dict(reward.fixed)}
        worker = self._workers.get(reward.name)
        if worker is None:
            return _call_here(reward, arguments, len(samples.completions))
        try:
            reply = worker.call(arguments, state)
        except (TypeError, ValueError) as error:
            raise RewardError(_transport_message(reward, arguments, error)) from error
        faults = {int(index): f"gave {fault}" for index, fault in reply["faults"].items()}
        return _Part(reply["values"], faults, reply["metrics"], reply["extra"], worker.output)

    def _locate(
        self, reward: Reward, samples: Samples, state: dict[str, Any], error: WorkerFailure
    ) -> _Part | None:
        """After an exception: the same samples one by one, to find those that cause it; None if none does."""
        count = len(samples.completions)
        if error.kind not in LOCATED:
            return None
        values: list[float | None] = []
        faults: dict[int, str] = {}
        for index in range(count):
            try:
                alone = self._call(reward, samples.one(index), state)
            except WorkerFailure as own:
                if own.kind not in LOCATED:
                    return None
                faults[index] = str(own)
                values.append(None)
                if self.on_error == "stop":
                    return _Part([None] * count, faults, output=own.output)
                continue
            values += alone.values
            if alone.faults:
                faults[index] = alone.faults[0]
        return _Part(values, faults, output=error.output) if faults else None

    def _combine(self, parts: dict[str, _Part], samples: Samples) -> Scored:
        totals: list[float] = []
        keep: list[bool] = []
        penalties: list[float | None] = []
        for index, ids in enumerate(samples.completion_ids):
            given = [(r.weight, parts[r.name].values[index]) for r in self.rewards]
            failed = [r for r in self.rewards if index in parts[r.name].faults]
            if self.on_error == "zero":
                given += [(0.0, 0.0)] * len(failed)
            there = [weight * value for weight, value in given if value is not None]
            kept = bool(there) and not (failed and self.on_error == "drop")
            penalties.append(None if self.overlong is None else self.overlong(len(ids)))
            totals.append(math.fsum([*there, penalties[-1] or 0.0]) if kept else math.nan)
            keep.append(kept)
        values = {name: tuple(part.values) for name, part in parts.items()}
        if self.overlong is not None:
            values["overlong"] = tuple(penalties)
        faults = {name: part.faults for name, part in parts.items() if part.faults}
        return Scored(
            tuple(totals),
            tuple(keep),
            values,
            failures={name: len(found) for name, found in faults.items()},
            problems={name: "sample {}: {}".format(*next(iter(f.items()))) for name, f in faults.items()},
            metrics={key: value for part in parts.values() for key, value in part.metrics.items()},
            extra={key: value for part in parts.values() for key, value in part.extra.items()},
            output={name: part.output for name, part in parts.items() if part.output},
        )


def _call_here(reward: Reward, arguments: dict[str, Any], count: int) -> _Part:
    """A function of this process, with the same checks and errors as one in a worker."""
    assert reward.function is not None
    try:
        returned = run_function(reward.function, accepted(reward.function, arguments))
        values, faults = read_rewards(returned, count)
        return _Part(values, {index: f"gave {fault}" for index, fault in faults.items()})
    except Exception as error:
        raise WorkerFailure(**describe(error, "")) from error


def _name(reward: Reward) -> str:
    return f"reward {reward.name}" + (f" ({reward.spec})" if reward.spec != reward.name else "")


def _printed(error: WorkerFailure) -> str:
    lines = [line for line in error.output.strip().splitlines() if line.isprintable()]
    return f" It last printed {lines[-1][:200]!r}." if lines and error.kind == "exit" else ""


def _load_message(reward: Reward, error: WorkerFailure) -> str:
    return f"{_name(reward)} cannot be loaded: {error}.{_printed(error)} Correct {reward.path}."


def _call_message(reward: Reward, error: WorkerFailure) -> str:
    remedy = {
        "timeout": "Make it faster, or allow more with --reward-timeout",
        "exit": "Let it return instead",
        "reply": "Log less",
        "nonsense": "It must return one number or None per completion, as docs/rewards.md shows",
    }.get(error.kind, "Correct it")
    if error.kind == "misfit":
        return f"{_name(reward)} {error}: rename a column of the data, or the argument."
    return f"{_name(reward)} {error}.{_printed(error)} {remedy}; or choose --on-reward-error zero or drop."


def _sample_message(reward: Reward, index: int, fault: str, samples: Samples) -> str:
    said = repr(samples.completions[index])
    said = said if len(said) <= 60 else said[:57] + "..."
    return (
        f"{_name(reward)} {fault}, for sample {index} of {len(samples.completions)} (completion {said}). "
        "Correct it, or choose --on-reward-error zero or drop."
    )


def _transport_message(reward: Reward, arguments: dict[str, Any], error: Exception) -> str:
    plain = (str, int, float, bool, list, dict, type(None))
    for name, values in arguments.items():
        odd = (
            next((v for v in values if not isinstance(v, plain)), None) if isinstance(values, list) else None
        )
        if odd is not None:
            return (
                f"{_name(reward)} cannot be given column {name!r}: it holds a {type(odd).__name__}, and only "
                "text, numbers, lists and objects travel to a worker; convert the column or leave it out."
            )
    return f"{_name(reward)} cannot be given these columns ({error}): only plain values travel."
