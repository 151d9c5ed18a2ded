"""The classic tasks as arrays: all copies of one are a matrix of states, and a step is a few operations on it.

What a task's equations are stands in its own file (`cartpole`, `pendulum`, `acrobot`, `mountain_car`); here is what
they share: seeds, episodes, time limits. Every number equals Gymnasium's, in float64 and bit for bit, which the tests
hold; its own loop over single environments takes 7 to 30 % of a run.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from lineal.environments.control.protocol import Step
from lineal.environments.control.spaces import Box, Discrete, Space
from lineal.errors import UsageError


@runtime_checkable
class Physics(Protocol):
    """The equations of one task; S numbers describe the state of a copy."""

    @property
    def observation(self) -> Box:
        """What is shown."""
        ...

    @property
    def action(self) -> Space:
        """What is taken."""
        ...

    @property
    def time_limit(self) -> int:
        """Steps after which an episode is cut off."""
        ...

    def start(self, random: np.random.Generator) -> np.ndarray:
        """The state_S at the beginning of an episode."""
        ...

    def advance(self, state_BS: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The state_BS that follows, reward_B, and terminated_B."""
        ...

    def observe(self, state_BS: np.ndarray, fresh: bool = False) -> np.ndarray:
        """observation_BF of states; `fresh`: they are the first of their episodes."""
        ...

    def draw(self, state_S: np.ndarray) -> np.ndarray:
        """A picture, uint8 [height, width, 3]."""
        ...


class ClassicTask:
    """`count` copies of a task as one matrix; a `VectorEnvironment`.

    Each copy has a random generator of its own, seeded as Gymnasium seeds its environments, so that whole runs of
    episodes are the same here and there. `seed`: used by the first `reset` that is given none.
    """

    def __init__(self, name: str, physics: Physics, count: int, seed: int = 0) -> None:
        if count < 1:
            raise UsageError(f"{name} with {count} copies: nothing would be stepped. Use 1 or more.")
        self.name, self.count, self.physics = name, count, physics
        self.observation: Space = physics.observation
        self.action: Space = physics.action
        self._seed = seed
        self._random: list[np.random.Generator] = []
        self._state_BS = np.zeros((0, 0))
        self._elapsed_B = np.zeros(count, np.int64)
        whole = (count,) if isinstance(physics.action, Discrete) else None
        self._action_shape = whole or (count, *getattr(physics.action, "shape", ()))

    @property
    def states(self) -> np.ndarray:
        """The state of every copy now, [B, S]."""
        return self._state_BS

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin an episode in every copy; without a seed the generators go on where they are."""
        if seed is not None or not self._random:
            first = self._seed if seed is None else seed
            self._random = [np.random.Generator(np.random.PCG64(first + i)) for i in range(self.count)]
        self._state_BS = np.stack([self.physics.start(random) for random in self._random])
        self._elapsed_B = np.zeros(self.count, np.int64)
        return self.physics.observe(self._state_BS, fresh=True)

    def step(self, action: np.ndarray) -> Step:
        """One step of every copy; those whose episode ended begin the next."""
        if not self._random:
            raise UsageError(f"{self.name} was stepped before its first reset. Call reset() first.")
        if action.shape != self._action_shape:
            raise UsageError(
                f"{self.name} was given actions of shape {action.shape}; {self.count} copies take {self._action_shape}."
            )
        state_BS, reward_B, terminated_B = self.physics.advance(self._state_BS, action)
        elapsed_B = self._elapsed_B + 1
        truncated_B = elapsed_B >= self.physics.time_limit
        final_BF = observation_BF = self.physics.observe(state_BS)
        ended_B = terminated_B | truncated_B
        if ended_B.any():
            index_N = ended_B.nonzero()[0]
            start_NS = np.stack([self.physics.start(self._random[i]) for i in index_N])
            state_BS[index_N] = start_NS
            elapsed_B[index_N] = 0
            observation_BF = final_BF.copy()
            observation_BF[index_N] = self.physics.observe(start_NS, fresh=True)
        self._state_BS, self._elapsed_B = state_BS, elapsed_B
        return Step(observation_BF, reward_B, terminated_B, truncated_B, final_BF)

    def render(self, index: int = 0) -> np.ndarray:
        """A line drawing of one copy."""
        return self.physics.draw(self._state_BS[index])

    def get_state(self) -> dict[str, Any]:
        """States, steps since each reset, and the generators."""
        return {
            "state": self._state_BS.tolist(),
            "elapsed": self._elapsed_B.tolist(),
            "random": [random.bit_generator.state for random in self._random],
        }

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        """Go on from there; float64 survives JSON exactly."""
        self._state_BS = np.array(state["state"], np.float64)
        self._elapsed_B = np.array(state["elapsed"], np.int64)
        self._random = [np.random.Generator(np.random.PCG64(0)) for _ in state["random"]]
        for random, saved in zip(self._random, state["random"], strict=True):
            random.bit_generator.state = saved
        observation_BF = self.physics.observe(self._state_BS)
        fresh_B = self._elapsed_B == 0
        if fresh_B.any():
            observation_BF[fresh_B] = self.physics.observe(self._state_BS[fresh_B], fresh=True)
        return observation_BF

    def close(self) -> None:
        """Nothing is held."""
