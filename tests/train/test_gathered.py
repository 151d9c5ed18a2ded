"""Groups of several processes become the list that one process would have had."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.environments.scoring import Scored
from lineal.environments.text import Example
from lineal.train.distributed import Ranks
from lineal.train.gathered import Gathered, exchange
from lineal.types import Completion

SIZE = 2
WHAT = {torch.int64: "ids", torch.float64: "logps", torch.int32: "routes"}
"""What travels, by the type it travels in."""


@dataclass(frozen=True)
class Table(Ranks):
    """Stands for the other processes: what they would send is in their seats already."""

    sent: dict[str, list[Any]] = field(default_factory=dict)

    def gather(self, x_N: Tensor) -> list[Tensor]:
        """Tensors in the order they were sent, for this call."""
        return self.sent[WHAT[x_N.dtype]]

    def gather_json(self, value: Any) -> list[Any]:
        """The JSON values that were sent."""
        return self.sent["json"]


@dataclass(frozen=True)
class Mail(Ranks):
    """Keeps what a process sends."""

    box: dict[str, list[Any]] = field(default_factory=dict)

    def gather(self, x_N: Tensor) -> list[Tensor]:
        """Keep a tensor; what comes back is of the right form."""
        self.box.setdefault(WHAT[x_N.dtype], []).append(x_N)
        return [x_N] * self.world

    def gather_json(self, value: Any) -> list[Any]:
        """Keep a value, and stop there."""
        self.box.setdefault("json", []).append(value)
        raise StopIteration


def group(number: int, lengths: list[int]) -> list[Completion]:
    """Completions whose ids and log-probabilities say where they belong."""
    return [
        Completion(
            tuple(100 * number + 10 * place + i for i in range(length)),
            tuple(-(number + 1) / (place + i + 3) for i in range(length)),
            "stop" if place else "length",
        )
        for place, length in enumerate(lengths)
    ]


def scored(numbers: list[int], problem: bool = False) -> Scored:
    """Scores of some groups, one of them with a failure where asked."""
    flat = [float(10 * number + place) for number in numbers for place in range(SIZE)]
    return Scored(
        rewards=tuple(math.nan if problem and i == 0 else value for i, value in enumerate(flat)),
        keep=tuple(not problem or i > 0 for i in range(len(flat))),
        parts={"right": tuple(None if problem and i == 0 else value for i, value in enumerate(flat))},
        failures={"right": 1} if problem else {},
        problems={"right": "sample 0: raised"} if problem else {},
        metrics={"seen": float(len(flat))},
        extra={"thought": [f"of {n} {place}" for n in numbers for place in range(SIZE)]},
        output={"right": "said"} if problem else {},
    )


def whole_list(lengths: list[list[int]]) -> Gathered:
    """All groups, as one process has them."""
    count = range(len(lengths))
    return Gathered(
        [Example(f"prompt {i}") for i in count],
        [[i, i + 1] for i in count],
        [group(i, lengths[i]) for i in count],
        [[f"text {i} {place}" for place in range(SIZE)] for i in count],
    )


def share(whole: Gathered, ranks: Ranks) -> Gathered:
    """The part of one process."""
    names = ("examples", "prompts", "completions", "texts")
    return Gathered(*(list(ranks.mine(getattr(whole, name))) for name in names))


def post(mine: Gathered, scores: Scored | None, ranks: Ranks, box: dict[str, list[Any]]) -> None:
    """What this process sends, into the box."""
    with pytest.raises(StopIteration):
        exchange(mine, scores, mine.examples, Mail(ranks.rank, ranks.world, box))


lists_of_lengths = st.lists(st.lists(st.integers(0, 4), min_size=SIZE, max_size=SIZE), min_size=1, max_size=7)


@given(lists_of_lengths, st.integers(1, 4))
def test_the_groups_come_back_in_the_order_of_their_prompts(lengths: list[list[int]], world: int) -> None:
    whole, box = whole_list(lengths), {}
    for rank in range(world):
        ranks = Ranks(rank, world)
        numbers = list(ranks.mine(range(len(lengths))))
        post(share(whole, ranks), scored(numbers) if numbers else None, ranks, box)
    for rank in range(world):
        table = Table(rank, world, box)
        found, scores = exchange(share(whole, table), None, whole.examples, table)
        assert found == whole
        assert scores.rewards == scored(list(range(len(lengths)))).rewards
        assert scores.parts == scored(list(range(len(lengths)))).parts
        assert scores.extra == scored(list(range(len(lengths)))).extra
        assert scores.keep == (True,) * (SIZE * len(lengths))


def test_failures_are_added_and_logged_numbers_averaged() -> None:
    whole, box = whole_list([[1, 2], [3, 1], [2, 2]]), {}
    for rank, scores in enumerate((scored([0, 2]), scored([1], problem=True))):
        post(share(whole, Ranks(rank, 2)), scores, Ranks(rank, 2), box)
    table = Table(0, 2, box)
    _, found = exchange(share(whole, table), scored([0, 2]), whole.examples, table)
    assert found.failures == {"right": 1}
    assert found.problems == {"right": "sample 0: raised"}
    assert found.output == {"right": "said"}
    assert found.metrics == {"seen": 3.0}
    assert found.keep == (True, True, False, True, True, True)
    assert math.isnan(found.rewards[2]) and found.rewards[3] == 11.0
    summary = found.summary()
    assert summary["rewards/right/failed"] == 1.0
    assert summary["rewards/right/mean"] == pytest.approx((0 + 1 + 11 + 20 + 21) / 5)


def test_kept_groups_are_added() -> None:
    whole = whole_list([[1, 1], [2, 2], [3, 3]])
    whole.rewards = [[0.0, 1.0], [1.0, 1.0], [0.5, 0.0]]
    whole.extra = [{"n": ["0", "1"]}, {"n": ["2", "3"]}, {}]
    kept = Gathered()
    kept.extend(whole, [True, False, True])
    assert kept.prompts == [[0, 1], [2, 3]]
    assert kept.rewards == [[0.0, 1.0], [0.5, 0.0]]
    assert kept.extra == [{"n": ["0", "1"]}, {}]
    assert [e.prompt for e in kept.examples] == ["prompt 0", "prompt 2"]
