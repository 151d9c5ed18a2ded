"""The parts of a worker's child that need no process."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.environments.worker_child import (
    Misfit,
    Nonsense,
    accepted,
    pack_ids,
    read_rewards,
    run_function,
    unpack_ids,
)

numbers = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats()


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1))))
def test_packed_ids_come_back(rows: list[list[int]]) -> None:
    assert unpack_ids(pack_ids(rows)) == rows


@given(st.lists(numbers, max_size=20))
def test_each_value_is_a_reward_or_a_fault(returned: list[Any]) -> None:
    rewards, faults = read_rewards(returned, len(returned))
    for index, (given_value, reward) in enumerate(zip(returned, rewards, strict=True)):
        if given_value is None:
            assert reward is None and index not in faults
        elif math.isfinite(given_value):
            assert reward == float(given_value) and type(reward) is float and index not in faults
        else:
            assert reward is None and index in faults


@given(st.lists(numbers, max_size=5), st.integers(0, 9))
def test_another_length_is_refused(returned: list[Any], count: int) -> None:
    if len(returned) != count:
        with pytest.raises(Nonsense, match=f"returned {len(returned)} rewards for {count} completions"):
            read_rewards(returned, count)


def test_numbers_of_other_libraries_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    values = [numpy.float32(0.5), numpy.int64(2), torch.tensor(3.0), torch.tensor([4.0]), Decimal("5")]
    assert read_rewards(values, 5) == ([0.5, 2.0, 3.0, 4.0, 5.0], {})
    for whole in (numpy.zeros(2), torch.zeros(2)):
        with pytest.raises(Nonsense, match=r"call \.tolist\(\) on it"):
            read_rewards(whole, 2)
    assert list(read_rewards([torch.zeros(2)], 1)[1]) == [0]


def test_a_function_gets_what_it_names() -> None:
    offered = {"completions": ["a"], "answer": ["b"], "log_metric": print}

    def some(completions: Any, nothing: Any = 3) -> None: ...
    def every(**columns: Any) -> None: ...
    def keyword(*, answer: Any) -> None: ...

    assert accepted(some, offered) == {"completions": ["a"]}
    assert accepted(every, offered) == offered
    assert accepted(keyword, offered) == {"answer": ["b"]}


def test_a_function_that_needs_more_is_told_what_there_is() -> None:
    def needs(completions: Any, gold: Any) -> None: ...

    with pytest.raises(Misfit, match=r"needs the argument 'gold', and there are only completions, answer$"):
        accepted(needs, {"completions": [], "answer": [], "log_metric": print})


def test_async_functions_run_to_their_end() -> None:
    async def later(value: int) -> int:
        return value + 1

    assert run_function(later, {"value": 2}) == 3
