"""An environment as the learner of preferences sees it: episodes of one length, and a reward that was learned.

Both keep to `VectorEnvironment`, so the same loop trains on them as on any environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineal.environments.control.classic import ClassicTask
from lineal.environments.control.gymnasium import VectorTask
from lineal.environments.control.images import channels_first
from lineal.environments.control.protocol import Step, VectorEnvironment
from lineal.environments.control.spaces import Discrete, MultiDiscrete, Space
from lineal.environments.preferences.records import Segment
from lineal.environments.preferences.scenes import states_of, unwrapped
from lineal.errors import EnvironmentFailure, UsageError
from lineal.models.reward import step_features

Array = NDArray[Any]
Reward = Callable[[Array], NDArray[np.float64]]


def time_limit(environment: VectorEnvironment) -> int | None:
    """Steps after which the environment itself cuts an episode off; None where it does not say."""
    inner = unwrapped(environment)
    if isinstance(inner, ClassicTask):
        return inner.physics.time_limit
    return inner.time_limit if isinstance(inner, VectorTask) else None


def choices_of(space: Space) -> tuple[int, ...]:
    """The sizes of the discrete parts of an action; () for a continuous one."""
    if isinstance(space, Discrete):
        return (space.n,)
    return space.n if isinstance(space, MultiDiscrete) else ()


class FixedHorizon:
    """Episodes of exactly `horizon` steps: the end of an episode must not say how well it went (Christiano et al. 2017).

    Where the task would end, it begins again and the episode goes on; the learner is not told. `termination_reward` is
    added to the environment's own reward there, for a teacher who sees it: a task whose reward is that it lasts would
    otherwise look the same whatever happens. Copies run in step, and their clock goes on when they begin again.
    """

    def __init__(self, inner: VectorEnvironment, horizon: int, termination_reward: float = 0.0) -> None:
        if horizon < 1:
            raise UsageError(f"a horizon of {horizon} steps: it takes at least 1.")
        self.inner, self.horizon, self.termination_reward = inner, horizon, termination_reward
        self.name, self.count = inner.name, inner.count
        self.observation, self.action = inner.observation, inner.action
        self._clock = 0

    def reset(self, seed: int | None = None) -> Array:
        """Begin an episode in every copy."""
        self._clock = 0
        return self.inner.reset(seed)

    def step(self, action: Array) -> Step:
        """One step; `terminated` never, `truncated` for all copies at once, every `horizon` steps."""
        step = self.inner.step(action)
        self._clock = (self._clock + 1) % self.horizon
        over = self._clock == 0
        ended_B = step.ended_B
        # A restart inside an episode is part of the world: what follows is the new beginning.
        final_BF = np.where(_wide(ended_B, step), step.final_observation_BF, step.observation_BF)
        return Step(
            step.observation_BF,
            step.reward_B + self.termination_reward * step.terminated_B,
            np.zeros(self.count, bool),
            np.full(self.count, over),
            final_BF if over else step.observation_BF,
            step.counted_B,
        )

    def render(self, index: int = 0) -> Array:
        """A picture of one copy."""
        return self.inner.render(index)

    def get_state(self) -> dict[str, Any] | None:
        """The inner state and the clock."""
        inner = self.inner.get_state()
        return None if inner is None else {"inner": inner, "clock": self._clock}

    def set_state(self, state: dict[str, Any]) -> Array:
        """Go on from there."""
        self._clock = state["clock"]
        return self.inner.set_state(state["inner"])

    def close(self) -> None:
        """Close the inner environment."""
        self.inner.close()


def _wide(flag_B: Array, step: Step) -> Array:
    return flag_B.reshape(-1, *[1] * (step.observation_BF.ndim - 1))


class LearnedReward:
    """An environment whose reward is `reward` of (observation, action); its own is kept where the learner cannot see it.

    reward: features [B, F] to rewards [B]; None gives 0 everywhere, for acting before anything was learned. What was
    done is recorded until `take` collects it as segments. ended: how often an episode ended early since the last `take`
    (a horizon that varies tells the learner how well it did). pictures: the reward sees the observation as a picture, and
    not the action.
    """

    def __init__(
        self, inner: VectorEnvironment, reward: Reward | None = None, *, pictures: bool = False
    ) -> None:
        self.inner, self.reward, self.pictures = inner, reward, pictures
        self.name, self.count = inner.name, inner.count
        self.observation, self.action = inner.observation, inner.action
        self.choices = choices_of(inner.action)
        self._now: Array = np.zeros(0)
        self._log: list[dict[str, Array]] = []
        self._sum_B = np.zeros(self.count)
        self.returns: list[float] = []
        self.ended = 0

    def reset(self, seed: int | None = None) -> Array:
        """Begin an episode in every copy."""
        self._now = self.inner.reset(seed)
        self._sum_B = np.zeros(self.count)
        return self._now

    def step(self, action: Array) -> Step:
        """One step with the learned reward."""
        before = {"observation": self._now, "action": np.array(action)}
        before |= {f"state/{name}": x for name, x in states_of(self.inner).items()}
        step = self.inner.step(action)
        feature_BF = self._seen(before["observation"], before["action"])
        if not np.isfinite(feature_BF).all() or not np.isfinite(step.reward_B).all():
            raise EnvironmentFailure(
                f"{self.name} showed an observation or gave a reward that is not finite: nothing can be learned from it. "
                "Fix the environment; what was saved before is untouched."
            )
        counted_B = np.ones(self.count, bool) if step.counted_B is None else step.counted_B
        self._log.append({**before, "reward": step.reward_B, "ended": step.ended_B, "counted": counted_B})
        self._count(step)
        self._now = step.observation_BF
        reward_B = np.zeros(self.count) if self.reward is None else self.reward(feature_BF)
        return replace(step, reward_B=reward_B)

    def _count(self, step: Step) -> None:
        self._sum_B = self._sum_B + step.reward_B
        self.ended += int(step.terminated_B.sum())
        if step.ended_B.any():
            self.returns += self._sum_B[step.ended_B].tolist()
            self._sum_B = np.where(step.ended_B, 0.0, self._sum_B)

    def take(self, length: int) -> tuple[list[Segment], list[float]]:
        """What was done since the last call: segments of `length` steps within an episode, and true returns of episodes."""
        segments = [segment for copy in range(self.count) for segment in self._segments(copy, length)]
        returns, self.returns, self._log, self.ended = self.returns, [], [], 0
        return segments, returns

    def _segments(self, copy: int, length: int) -> list[Segment]:
        if not self._log:
            return []
        column = {name: np.stack([record[name][copy] for record in self._log]) for name in self._log[0]}
        ended_T, idle_T = column.pop("ended"), ~column.pop("counted")
        found, start = [], 0
        while start + length <= len(ended_T):
            # A clip neither goes on beyond an end nor holds a step in which nothing was done.
            stops_T = idle_T[start : start + length].copy()
            stops_T[:-1] |= ended_T[start : start + length - 1]
            inside = stops_T.nonzero()[0]
            if len(inside):
                start += int(inside[-1]) + 1
                continue
            found.append(Segment.from_arrays({name: x[start : start + length] for name, x in column.items()}))
            start += length
        return found

    def features(self, segment: Segment) -> Array:
        """A segment's steps as the reward sees them, [T, F]: float32, or uint8 where they are pictures."""
        return self._seen(segment.observation_TF, segment.action_T)

    def _seen(self, observation_NF: Array, action_N: Array) -> Array:
        if self.pictures:
            return channels_first(observation_NF, self.observation).reshape(len(observation_NF), -1)
        return step_features(observation_NF, action_N, self.choices)

    def render(self, index: int = 0) -> Array:
        """A picture of one copy."""
        return self.inner.render(index)

    def get_state(self) -> dict[str, Any] | None:
        """The inner state and the true return so far; taken between two `take`s, the record is empty."""
        inner = self.inner.get_state()
        return None if inner is None else {"inner": inner, "sum": self._sum_B.tolist()}

    def set_state(self, state: dict[str, Any]) -> Array:
        """Go on from there."""
        self._now = self.inner.set_state(state["inner"])
        self._sum_B = np.array(state["sum"])
        self._log, self.returns, self.ended = [], [], 0
        return self._now

    def close(self) -> None:
        """Close the inner environment."""
        self.inner.close()


def as_protocol(environment: FixedHorizon | LearnedReward) -> VectorEnvironment:
    """The wrapped environment by its protocol's name, which a type checker verifies here."""
    return environment
