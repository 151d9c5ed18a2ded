from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.objectives.group import Group, Members, mixed_groups, renumber

pairs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 5), st.booleans()), min_size=1, max_size=20
)


@given(pairs)
def test_sums_counts_and_spreads_by_group(rows):
    reward_B = torch.tensor([r for r, _, _ in rows], dtype=torch.float64)
    group_B, alive_B = torch.tensor([g for _, g, _ in rows]), torch.tensor([a for _, _, a in rows])
    members = Members.of(group_B, 6, alive_B)
    for group in range(6):
        rewards = [r for r, g, alive in rows if g == group and alive]
        assert members.count()[group] == len(rewards)
        assert members.sum(reward_B)[group].item() == pytest.approx(sum(rewards))
        assert members.mixed(reward_B)[group] == (len(set(rewards)) > 1)


@given(pairs)
def test_mixed_groups_are_those_with_different_rewards(rows):
    rewards, groups = [r for r, _, _ in rows], [g for _, g, _ in rows]
    found = mixed_groups(torch.tensor(rewards), torch.tensor(groups), 7)
    wanted = [len({r for r, g in zip(rewards, groups) if g == group}) > 1 for group in range(7)]
    assert found.tolist() == wanted


def test_absent_groups_are_not_mixed():
    assert mixed_groups(torch.tensor([1.0, 0.0]), torch.tensor([2, 2]), 4).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_renumber_keeps_the_order():
    index_B, groups = renumber(torch.tensor([7, 3, 7, 9]))
    assert index_B.tolist() == [1, 0, 1, 2]
    assert groups == 3


def test_a_group_is_checked():
    with pytest.raises(UsageError, match="group_size is 0"):
        Group(0)
    with pytest.raises(UsageError, match="'all' or 'mixed'"):
        Group(4, keep="some")
