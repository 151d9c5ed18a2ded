from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lineal.types import Rollout


def _rollout(
    rewards: list[float], groups: list[int], lengths: list[int] | None = None, width: int = 4
) -> Rollout:
    rows = len(rewards)
    length_B = torch.tensor(lengths or [2 + row % 3 for row in range(rows)])
    place_T = torch.arange(width)
    mask_BT, last_BT = place_T < length_B[:, None], place_T == length_B[:, None] - 1
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    return Rollout(
        action_BT=torch.zeros(rows, width, dtype=torch.int64),
        mask_BT=mask_BT,
        reward_BT=torch.where(last_BT, reward_B[:, None], 0.0),
        behaviour_logp_BT=torch.zeros(rows, width, dtype=torch.float64),
        group_B=torch.tensor(groups),
        terminated_BT=last_BT,
        truncated_BT=torch.zeros_like(last_BT),
        segment_BT=torch.zeros(rows, width, dtype=torch.int64),
    )


@pytest.fixture(scope="session")
def make_rollout() -> Callable[..., Rollout]:
    """(rewards, groups, lengths, width) -> a text rollout with its rewards on the last tokens."""
    return _rollout
