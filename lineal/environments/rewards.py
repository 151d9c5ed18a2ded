"""The built-in reward functions, and how a reward is named on the command line.

A reward function has TRL's signature: f(prompts, completions, completion_ids, **columns) -> list[float |
None], one value per completion, None where it does not apply. `docs/rewards.md` shows how to write one.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from lineal.environments import patterns
from lineal.environments.countdown import Countdown
from lineal.environments.worker_child import BadRow
from lineal.errors import UsageError

RewardFunction = Callable[..., "list[float | None]"]

_SIGN = r"(?<![\w).])[-−]\$?|\$[-−]?"
_NUMBER = re.compile(
    rf"({_SIGN})?((?:[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,8}}(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:/([0-9]+))?"
)
_MARK = re.compile(r"####\s*(.*)")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
LONGEST_NUMBER = 100
"""Digits of the longest number that is read; a longer run of digits is no number."""


def exact(
    completions: Sequence[Any], answer: Sequence[Any], finish: Sequence[str] | None = None
) -> list[float | None]:
    """1 when the completion is column `answer`, spaces around both left out, and ended by itself; else 0."""
    return [
        None if gold is None else float(said_text(said).strip() == str(gold).strip() and done != "length")
        for said, gold, done in zip(completions, answer, finish or ["stop"] * len(completions), strict=True)
    ]


def number(completions: Sequence[Any], answer: Sequence[Any]) -> list[float | None]:
    """1 when the completion's final number equals that of column `answer`; else 0.

    The final number of a text follows its last ####, else its last \\boxed{}, else it is the last number
    there is. Signs, $, thousands commas, decimals and fractions are read: "$1,080.00" equals "1080".
    """
    rewards: list[float | None] = []
    for said, gold in zip(completions, answer, strict=True):
        if gold is None:
            rewards.append(None)
            continue
        wanted = find_number(str(gold))
        if wanted is None:
            raise BadRow(f"needs a number in column `answer`, and {str(gold)[:60]!r} holds none")
        rewards.append(float(find_number(said_text(said)) == wanted))
    return rewards


def countdown(completions: Sequence[Any], nums: Sequence[Any], target: Sequence[Any]) -> list[float | None]:
    """1 when the expression equals column `target` and uses each of column `nums` exactly once; else 0."""
    return [*Countdown(every=True)([said_text(c) for c in completions], nums, target)]


def countdown_subset(
    completions: Sequence[Any], nums: Sequence[Any], target: Sequence[Any]
) -> list[float | None]:
    """1 when the expression equals column `target` and uses each of column `nums` at most once; else 0."""
    return [*Countdown(every=False)([said_text(c) for c in completions], nums, target)]


BUILTIN_REWARDS: dict[str, RewardFunction] = {
    "exact": exact,
    "number": number,
    "countdown": countdown,
    "countdown-subset": countdown_subset,
}
"""Every reward that has a name of its own; `format:REGEX` and `path.py:function` come besides."""


def said_text(completion: Any) -> str:
    """The text of a completion, which for chat data is a list of messages."""
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)


def find_number(text: str) -> Fraction | None:
    """The number a solution ends on (see `number`), exactly; None when there is none."""
    for mark in (_MARK, _BOXED):
        marked = mark.findall(text)
        if marked:
            return _last_number(marked[-1], first=mark is _MARK)
    return _last_number(text)


def _last_number(text: str, *, first: bool = False) -> Fraction | None:
    matches = _NUMBER.finditer(text)
    match = next(matches, None) if first else next(iter(deque(matches, maxlen=1)), None)
    if match is None or len(match.group(0)) > LONGEST_NUMBER:
        return None
    sign, digits, divisor = match.groups()
    value = Fraction(digits.replace(",", ""))
    if divisor is not None and int(divisor) != 0:
        value /= int(divisor)
    return -value if sign and ("-" in sign or "−" in sign) else value


@dataclass(frozen=True)
class Reward:
    """One reward function and its weight in the sum.

    function: runs in this process (built-ins, and functions given from Python). path, attribute: runs in a
    worker. fixed: keyword arguments that never change.
    """

    name: str
    spec: str
    weight: float = 1.0
    function: RewardFunction | None = None
    path: Path | None = None
    attribute: str = ""
    fixed: tuple[tuple[str, Any], ...] = ()


def parse_reward_spec(spec: str, weight: float = 1.0) -> Reward:
    """The reward that a name means: a built-in, `format:REGEX`, or `path.py:function`.

    Raises UsageError, naming the nearest built-in, when there is no such reward.
    """
    if spec in BUILTIN_REWARDS:
        return Reward(spec, spec, weight, function=BUILTIN_REWARDS[spec])
    if spec.startswith("format:"):
        return _format(spec, weight)
    file, colon, attribute = spec.rpartition(":")
    if colon and file.endswith(".py"):
        if not Path(file).is_file():
            raise UsageError(f"--reward {spec}: there is no file {file}.")
        if not attribute.isidentifier():
            raise UsageError(f"--reward {spec}: {attribute!r} is no function's name; write path.py:function.")
        return Reward(attribute, spec, weight, path=Path(file), attribute=attribute)
    if spec.endswith(".py"):
        raise UsageError(f"--reward {spec} names no function: write {spec}:function.")
    near = difflib.get_close_matches(spec, BUILTIN_REWARDS, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    known = ", ".join([*BUILTIN_REWARDS, "format:REGEX", "path.py:function"])
    raise UsageError(f"--reward {spec} is no reward.{hint} There are {known}.")


def _format(spec: str, weight: float) -> Reward:
    pattern = spec.removeprefix("format:")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"--reward {spec}: not a regular expression ({error}).") from error
    fixed = (("pattern", pattern),)
    return Reward("format", spec, weight, path=Path(patterns.__file__), attribute="matches", fixed=fixed)


def parse_rewards(specs: Sequence[str], weights: Sequence[float] = ()) -> tuple[Reward, ...]:
    """The rewards of several specs with one weight each (default 1), their names made distinct.

    Raises UsageError when there is none, or when the numbers of specs and weights differ.
    """
    if not specs:
        raise UsageError("no reward was given: name one with --reward, for example --reward exact.")
    if weights and len(weights) != len(specs):
        raise UsageError(
            f"--reward-weights gives {len(weights)} weights for {len(specs)} rewards: give one for each."
        )
    if not all(math.isfinite(weight) for weight in weights):
        raise UsageError(f"--reward-weights {list(weights)}: a weight must be a finite number.")
    parsed = [parse_reward_spec(spec, float(w)) for spec, w in zip(specs, weights or [1.0] * len(specs))]
    names = [reward.name for reward in parsed]
    return tuple(
        replace(reward, name=f"{reward.name}-{names[:at].count(reward.name) + 1}")
        if reward.name in names[:at]
        else reward
        for at, reward in enumerate(parsed)
    )


def source_hash(spec: str) -> str | None:
    """The SHA-256 of the user's file behind `path.py:function`; None for a reward that comes with lineal.

    A run records it, so that resume can refuse a file that changed. Raises UsageError as `parse_reward_spec`.
    """
    reward = parse_reward_spec(spec)
    if reward.path is None or spec.startswith("format:"):
        return None
    return hashlib.sha256(reward.path.read_bytes()).hexdigest()
