"""The overlong penalty is DAPO's formula; the shuffle is a permutation that a seed and step fix."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.environments.shaping import SoftOverlong, shuffle_rewards
from lineal.errors import UsageError


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (101, -1.0), (999, -1.0)],
)
def test_the_three_pieces(length: int, penalty: float) -> None:
    assert SoftOverlong(limit=100, buffer=20)(length) == pytest.approx(penalty, abs=1e-15)


@given(st.integers(1, 500), st.data())
def test_it_never_rises_and_stays_in_bounds(limit: int, data: st.DataObject) -> None:
    penalty = SoftOverlong(limit, data.draw(st.integers(1, limit)))
    values = [penalty(length) for length in range(limit + 3)]
    assert values[0] == 0.0 and values[-1] == -1.0
    assert all(later <= earlier for earlier, later in pairwise(values))


@pytest.mark.parametrize(("limit", "buffer"), [(10, 0), (10, 11), (10, -1), (0, 1)])
def test_a_buffer_that_does_not_fit_is_refused(limit: int, buffer: int) -> None:
    with pytest.raises(UsageError, match="--overlong-buffer"):
        SoftOverlong(limit, buffer)


def test_it_prints_its_numbers() -> None:
    assert str(SoftOverlong(100, 20)) == "overlong(L=100, c=20)"


@given(st.lists(st.floats(allow_nan=False), max_size=40), st.integers(0, 9), st.integers(0, 9))
def test_shuffling_keeps_every_reward_and_is_repeatable(rewards: list[float], seed: int, step: int) -> None:
    once = shuffle_rewards(rewards, seed, step)
    assert sorted(once) == sorted(rewards)
    assert once == shuffle_rewards(rewards, seed, step)


def test_shuffling_depends_on_seed_and_step() -> None:
    rewards = list(range(50))
    orders = {tuple(shuffle_rewards(rewards, seed, step)) for seed in range(3) for step in range(3)}
    assert len(orders) == 9 and tuple(rewards) not in orders
