"""What every vectorised environment can do. Whoever wraps one (a learned reward, a fixed horizon) keeps to it.

A batch of `count` copies is stepped at once. A copy whose episode ends in a step is reset within the same step:
`observation_BF` is then of the new episode and `final_observation_BF` of the old one's end, which is what a critic
must see where the episode was cut off rather than over. Environments that reset a copy in the step after (NEXT_STEP)
say so in `counted_B`: nothing is learned from that step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lineal.environments.control.spaces import Space


@dataclass(frozen=True)
class Step:
    """What one step of all copies gave; F stands for the observation's own shape.

    observation_BF: after the automatic reset. reward_B: float64. terminated_B: the task itself ended the episode, so
    nothing follows. truncated_B: a time limit cut it off, so something would have followed.
    final_observation_BF: before the reset; equals observation_BF where nothing ended.
    counted_B: False where the copy took no action but only began its next episode, as environments with NEXT_STEP
    autoreset do: such a step is no experience. None: all count. lost_B: where a life was lost though the episode goes on,
    which to the learner is an end. None: nowhere.
    """

    observation_BF: np.ndarray
    reward_B: np.ndarray
    terminated_B: np.ndarray
    truncated_B: np.ndarray
    final_observation_BF: np.ndarray
    counted_B: np.ndarray | None = None
    lost_B: np.ndarray | None = None

    @property
    def ended_B(self) -> np.ndarray:
        """Where an episode ended, for either reason."""
        return self.terminated_B | self.truncated_B


@runtime_checkable
class VectorEnvironment(Protocol):
    """`count` copies of an environment, stepped together.

    The arrays that `reset` and `step` return are the caller's: the environment never writes into them again.
    """

    name: str
    count: int
    observation: Space
    action: Space

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin an episode in every copy; returns observation_BF. Copy i is seeded with seed + i."""
        ...

    def step(self, action: np.ndarray) -> Step:
        """Take action_B (discrete, int64), action_BA (multi-discrete, int64) or action_BA (box, float) in each copy."""
        ...

    def render(self, index: int = 0) -> np.ndarray:
        """A picture of one copy, uint8 [height, width, 3]; UsageError where the environment cannot draw."""
        ...

    def get_state(self) -> dict[str, Any] | None:
        """Everything that decides what follows, as JSON values; None where the simulator cannot tell."""
        ...

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        """Go on from what `get_state` gave; returns the observation_BF of that moment."""
        ...

    def close(self) -> None:
        """Release what the copies hold; closing twice is harmless."""
        ...
