"""Gymnasium's environments behind the protocol, and what becomes of broken ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lineal.environments.control.gymnasium import GymnasiumTask, VectorTask
from lineal.environments.control.opening import open_environment
from lineal.environments.control.preparation import Preparation
from lineal.environments.control.protocol import VectorEnvironment
from lineal.environments.control.spaces import Box, Discrete, MultiDiscrete
from lineal.errors import EnvironmentFailure, UsageError

gymnasium = pytest.importorskip("gymnasium")


class Broken(gymnasium.Env):  # type: ignore[name-defined]
    """Ends after three steps; breaks in the second in the way it is told."""

    def __init__(self, how: str = "", action: Any = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = action or gymnasium.spaces.MultiDiscrete([2, 3])
        self.how, self.time = how, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return np.full(2, 0.5, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        broken = self.how if self.time == 2 else ""
        if broken == "raise":
            raise RuntimeError("the motor is on fire")
        shown = np.full(3 if broken == "shape" else 2, 0.1 * self.time, np.float32)
        return shown, float("nan") if broken == "nan" else 1.0, False, self.time == 3, {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Broken-v0", entry_point=Broken)
    yield
    gymnasium.registry.pop("Broken-v0")


def test_the_protocol_is_kept_over_resets() -> None:
    environment = GymnasiumTask("Broken-v0", 2)
    assert isinstance(environment, VectorEnvironment)
    assert environment.action == MultiDiscrete((2, 3)) and isinstance(environment.observation, Box)
    assert (environment.reset(0) == np.float32(0.5)).all()
    action = np.zeros((2, 2), np.int64)
    first = environment.step(action)
    kept = first.observation_BF.copy()
    environment.step(action)
    last = environment.step(action)
    assert last.truncated_B.all() and not last.terminated_B.any()
    assert (last.final_observation_BF == np.float32(0.1 * 3)).all()
    assert (last.observation_BF == np.float32(0.5)).all()
    assert (first.observation_BF == kept).all()
    assert environment.get_state() is None
    with pytest.raises(UsageError, match="reset it instead"):
        environment.set_state({})
    environment.close()


@pytest.mark.parametrize(
    ("how", "said"), [("raise", "RuntimeError in step: the motor"), ("shape", "in step")]
)
def test_a_broken_environment_is_named(how: str, said: str) -> None:
    environment = GymnasiumTask("Broken-v0", 1, how=how)
    environment.reset(0)
    action = np.zeros((1, 2), np.int64)
    environment.step(action)
    with pytest.raises(EnvironmentFailure, match=said):
        environment.step(action)


def test_spaces_that_fit_nothing_are_refused() -> None:
    for action in (
        gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)]),
        gymnasium.spaces.Discrete(2, start=1),
    ):
        with pytest.raises(UsageError, match="Broken-v0 takes"):
            GymnasiumTask("Broken-v0", 1, action=action)


def test_names() -> None:
    assert isinstance(open_environment("CartPole-v1", own=False), GymnasiumTask)
    assert open_environment("CartPole-v1", own=False).action == Discrete(2)
    with pytest.raises(UsageError, match="did you mean CartPole-v1"):
        open_environment("Cartpole-v1")
    with pytest.raises(UsageError, match="no_such_module"):
        open_environment("no_such_module:Thing-v0")
    with pytest.raises(UsageError, match="no environment 'qwzx'"):
        open_environment("qwzx")


def test_drawing_must_be_asked_for() -> None:
    environment = open_environment("MountainCarContinuous-v0")
    environment.reset(0)
    with pytest.raises((UsageError, EnvironmentFailure)):
        environment.render()


class Clock(gymnasium.Env):  # type: ignore[name-defined]
    """Shows its episode and its time in it; ends after 3, 4, 3, 4, ... steps, cut off when even; reward: its time."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1000, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.episode, self.time = 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.episode, self.time = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        over, even = self.time == 3 + self.episode % 2, self.episode % 2 == 0
        shown = np.array([self.episode, self.time], np.float32)
        return shown, float(self.time), over and not even, over and even, {}


def clocks(mode: str) -> VectorTask:
    many = gymnasium.vector.SyncVectorEnv([Clock, Clock], autoreset_mode=gymnasium.vector.AutoresetMode[mode])
    return VectorTask("Clock-v0", many)


def test_resets_in_the_same_step_in_the_next_or_by_hand_tell_one_story() -> None:
    stories = {}
    for mode in ("SAME_STEP", "DISABLED", "NEXT_STEP"):
        environment, story = clocks(mode), []
        shown = environment.reset(0)
        while len(story) < 15:
            got = environment.step(np.zeros(2, np.int64))
            if got.counted_B is None or got.counted_B[0]:
                end = (bool(got.terminated_B[0]), bool(got.truncated_B[0]))
                story.append((*shown[0], got.reward_B[0], end, *got.final_observation_BF[0]))
            else:
                assert not got.ended_B.any() and got.reward_B.tolist() == [0, 0]
            shown = got.observation_BF
        stories[mode] = story
    assert stories["SAME_STEP"] == stories["DISABLED"] == stories["NEXT_STEP"]
    assert [end for *_, end, _, _ in stories["SAME_STEP"]].count((True, False)) == 2


def test_a_vector_entry_point_is_taken_where_there_is_nothing_else_or_it_is_asked_for() -> None:
    def many(num_envs: int, **settings: Any) -> Any:
        return gymnasium.vector.SyncVectorEnv([Clock] * num_envs)

    gymnasium.register("Clocks-v0", vector_entry_point=many)
    try:
        environment = open_environment("Clocks-v0", 3)
        environment.reset(0)
        steps = [environment.step(np.zeros(3, np.int64)) for _ in range(6)]
        assert [step.counted_B is None or bool(step.counted_B[0]) for step in steps] == [True] * 4 + [
            False,
            True,
        ]
        with pytest.raises(UsageError, match="--frame-stack 2"):
            open_environment("Clocks-v0", 3, preparation=Preparation(frame_stack=2))
    finally:
        gymnasium.registry.pop("Clocks-v0")
    own = open_environment("CartPole-v1", 4, own=False, preparation=Preparation(vector_entry=True))
    assert isinstance(own, VectorTask) and not own.copies and own.time_limit == 500
    assert own.reset(0).shape == (4, 4) and own.step(np.zeros(4, np.int64)).observation_BF.shape == (4, 4)


def test_observations_are_stacked_where_asked() -> None:
    environment = open_environment("Pendulum-v1", 2, preparation=Preparation(frame_stack=3))
    shown = environment.reset(0)
    assert shown.shape == (2, 3, 3) and (shown[:, 0] == shown[:, 2]).all()
    later = environment.step(np.ones((2, 1), np.float32)).observation_BF
    assert (later[:, 1] == shown[:, 2]).all() and not (later[:, 2] == shown[:, 2]).all()
