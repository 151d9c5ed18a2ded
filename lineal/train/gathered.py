"""Groups of completions with their rewards, and how those of several processes become one list in the prompts' order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from lineal.environments.scoring import Scored
from lineal.environments.text import Example
from lineal.train.distributed import Ranks
from lineal.types import Completion


@dataclass
class Gathered:
    """Groups gathered so far in one step, in the order of their prompts.

    extra: for each group what reward functions said about its completions (`log_extra`), by column.
    """

    examples: list[Example] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    completions: list[list[Completion]] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)
    rewards: list[list[float]] = field(default_factory=list)
    extra: list[dict[str, list[str]]] = field(default_factory=list)

    def extend(self, other: Gathered, keep: Sequence[bool]) -> None:
        """Add the groups of `other` that are kept."""
        for name in ("examples", "prompts", "completions", "texts", "rewards", "extra"):
            getattr(self, name).extend(x for x, kept in zip(getattr(other, name), keep, strict=True) if kept)


def exchange(
    mine: Gathered, scored: Scored | None, examples: Sequence[Example], ranks: Ranks
) -> tuple[Gathered, Scored]:
    """The groups of all processes, and their scores, as one process would have them; equal on each of them.

    mine, scored: this process's groups, those of `ranks.mine(examples)`; scored is None when it had none. Token ids and
    log-probabilities travel as tensors, what is small or text as JSON.
    """
    flat = [completion for group in mine.completions for completion in group]
    ids = ranks.gather(torch.tensor([i for c in flat for i in c.ids], dtype=torch.int64))
    logps = ranks.gather(torch.tensor([p for c in flat for p in c.logp], dtype=torch.float64))
    routes = [completion.route_NLK for completion in flat if completion.route_NLK is not None]
    went = ranks.gather(
        torch.cat([route.flatten() for route in routes]).int() if routes else torch.zeros(0).int()
    )
    about = {
        "prompts": mine.prompts,
        "texts": mine.texts,
        "ends": [[(len(c.ids), c.finish) for c in group] for group in mine.completions],
        "scored": None if scored is None else vars(scored),
        "route": list(routes[0].shape[1:]) if routes else None,
    }
    parts = ranks.gather_json(about)
    answers = [
        _routed(_completions(part["ends"], ids_N.tolist(), logp_N.tolist()), part, route_N)
        for part, ids_N, logp_N, route_N in zip(parts, ids, logps, went, strict=True)
    ]
    texts, prompts = (_in_turn([part[name] for part in parts]) for name in ("texts", "prompts"))
    whole = Gathered(list(examples), prompts, _in_turn(answers), texts)
    size = len(whole.completions[0])
    return whole, _merged([part["scored"] for part in parts if part["scored"] is not None], size)


def _completions(ends: list[list[Any]], ids: list[int], logps: list[float]) -> list[list[Completion]]:
    found, start = [], 0
    for group in ends:
        found.append([])
        for length, finish in group:
            part = slice(start, start + length)
            found[-1].append(Completion(tuple(ids[part]), tuple(logps[part]), finish))
            start += length
    return found


def _routed(groups: list[list[Completion]], part: dict[str, Any], route_N: Tensor) -> list[list[Completion]]:
    """The completions with the experts that their tokens went to, as they were sent one after another."""
    if part["route"] is None:
        return groups
    route_NLK, start = route_N.to(torch.int16).unflatten(0, (-1, *part["route"])), 0
    found = []
    for prompt, group in zip(part["prompts"], groups, strict=True):
        found.append([])
        for completion in group:
            end = start + len(prompt) + len(completion.ids) - 1
            found[-1].append(replace(completion, route_NLK=route_NLK[start:end]))
            start = end
    return found


def _in_turn(parts: list[list[Any]]) -> list[Any]:
    """Items dealt to the processes one by one, back in one row."""
    return [parts[place % len(parts)][place // len(parts)] for place in range(sum(map(len, parts)))]


def _merged(parts: list[dict[str, Any]], size: int) -> Scored:
    """One `Scored` of several processes' completions, whole groups of `size` in turn."""

    def in_turn(values: list[Sequence[Any]]) -> list[Any]:
        groups = [[part[i : i + size] for i in range(0, len(part), size)] for part in values]
        return list(chain.from_iterable(_in_turn(groups)))

    first = parts[0]
    logged = {
        name: [p["metrics"][name] for p in parts if name in p["metrics"]]
        for p in parts
        for name in p["metrics"]
    }
    failures = [name for name in first["parts"] if any(name in part["failures"] for part in parts)]
    return Scored(
        rewards=tuple(in_turn([part["rewards"] for part in parts])),
        keep=tuple(in_turn([part["keep"] for part in parts])),
        parts={name: tuple(in_turn([part["parts"][name] for part in parts])) for name in first["parts"]},
        failures={name: sum(part["failures"].get(name, 0) for part in parts) for name in failures},
        problems=_first_of("problems", parts),
        metrics={name: math.fsum(values) / len(values) for name, values in logged.items()},
        # A column without a value for each completion belongs to none of them.
        extra={
            name: in_turn([part["extra"][name] for part in parts])
            for name in first["extra"]
            if all(len(part["extra"].get(name, ())) == len(part["rewards"]) for part in parts)
        },
        output=_first_of("output", parts),
    )


def _first_of(field_name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for part in reversed(parts) for name, value in part[field_name].items()}
