"""The classic tasks as arrays: bit for bit Gymnasium's, and their state can be taken and put back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lineal.environments.control.opening import OWN, open_environment
from lineal.environments.control.protocol import VectorEnvironment
from lineal.environments.control.spaces import Box, Discrete, MultiDiscrete, space_from_json, space_to_json
from lineal.errors import UsageError

NAMES = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0"]


def random_action(environment: VectorEnvironment, random: np.random.Generator) -> np.ndarray:
    if isinstance(environment.action, Discrete):
        return random.integers(0, environment.action.n, environment.count)
    return random.uniform(-3, 3, (environment.count, 1)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_ten_thousand_random_steps_equal_gymnasium(name: str) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    count, steps = 4, 2500
    ours = open_environment(name, count)
    same = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
    theirs = gymnasium.make_vec(name, num_envs=count, vectorization_mode="sync", vector_kwargs=same)
    assert (ours.reset(3) == theirs.reset(seed=3)[0]).all()
    random, ends = np.random.default_rng(0), 0
    for _ in range(steps):
        action = random_action(ours, random)
        got = ours.step(action)
        observation, reward, terminated, truncated, info = theirs.step(action)
        assert (got.observation_BF == observation).all() and got.observation_BF.dtype == observation.dtype
        assert (got.reward_B == reward).all()
        assert (got.terminated_B == terminated).all() and (got.truncated_B == truncated).all()
        state = np.array([np.array(one.unwrapped.state, float) for one in theirs.envs])
        assert np.abs(np.array(ours.get_state()["state"]) - state).max() == 0  # pyright: ignore[reportOptionalSubscript]
        for i in got.ended_B.nonzero()[0]:
            ends += 1
            assert (got.final_observation_BF[i] == info["final_obs"][i]).all()
    assert ends >= 10


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_state_taken_through_json_goes_on_identically(name: str) -> None:
    first, second = open_environment(name, 3), open_environment(name, 3)
    first.reset(11)
    random = np.random.default_rng(1)
    for _ in range(37):
        first.step(random_action(first, random))
    saved = json.loads(json.dumps(first.get_state()))
    shown = second.set_state(saved)
    for _ in range(600):
        action = random_action(first, random)
        a, b = first.step(action), second.step(action)
        assert (a.observation_BF == b.observation_BF).all() and (a.reward_B == b.reward_B).all()
        assert (a.ended_B == b.ended_B).all()
    assert shown.shape == a.observation_BF.shape


def test_a_state_at_the_beginning_of_an_episode_shows_what_reset_showed() -> None:
    first, second = open_environment("Acrobot-v1", 5), open_environment("Acrobot-v1", 5)
    assert (second.set_state(first.reset(2) is not None and first.get_state()) == first.reset(2)).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_the_time_limit_truncates_and_the_final_observation_is_the_old_episodes(name: str) -> None:
    environment = open_environment(name, 2)
    environment.reset(0)
    limit = {"CartPole-v1": 500, "Pendulum-v1": 200, "Acrobot-v1": 500, "MountainCar-v0": 200}[name]
    action = random_action(environment, np.random.default_rng(0)) * 0
    ended = np.zeros(2, bool)
    for step in range(1, limit + 1):
        before = environment.step(action)
        ended |= before.terminated_B
        if step == limit and not ended.any():
            assert before.truncated_B.all() and not before.terminated_B.any()
            assert (before.final_observation_BF != before.observation_BF).any(1).all()
        elif not before.ended_B.any():
            assert before.final_observation_BF is before.observation_BF
    assert name == "CartPole-v1" or not ended.any()


def test_what_was_returned_is_never_written_again() -> None:
    environment = open_environment("CartPole-v1", 3)
    seen = [environment.reset(0)]
    kept = [seen[0].copy()]
    for _ in range(60):
        got = environment.step(np.ones(3, np.int64))
        for array in (got.observation_BF, got.final_observation_BF, got.reward_B):
            seen.append(array)
            kept.append(array.copy())
    assert all((a == b).all() for a, b in zip(seen, kept, strict=True))


def test_copies_are_seeded_apart_and_repeatably() -> None:
    environment = open_environment("Pendulum-v1", 3, seed=5)
    first = environment.reset()
    assert len({row.tobytes() for row in first}) == 3
    assert (environment.reset(5) == first).all()
    assert (environment.reset() != first).any()
    assert (open_environment("Pendulum-v1", 1).reset(7) == first[2:]).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_task_can_be_drawn(name: str) -> None:
    pytest.importorskip("PIL")
    environment = open_environment(name, 2)
    environment.reset(0)
    picture = environment.render(1)
    assert picture.shape == (300, 400, 3) and picture.dtype == np.uint8
    assert len(np.unique(picture)) > 2


def test_misuse_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="0 copies"):
        open_environment("CartPole-v1", 0)
    environment = open_environment("CartPole-v1", 2)
    with pytest.raises(UsageError, match="before its first reset"):
        environment.step(np.zeros(2, np.int64))
    environment.reset(0)
    with pytest.raises(UsageError, match=r"shape \(3,\); 2 copies take \(2,\)"):
        environment.step(np.zeros(3, np.int64))


def test_spaces_survive_json() -> None:
    for space in (
        Discrete(3),
        MultiDiscrete((2, 5)),
        Box((-math.inf, 0.0), (1.0, math.inf), (2,), "float64"),
    ):
        assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space
    low, high = Box((0.0,) * 4, (1.0,) * 4, (2, 2)).bounds()
    assert low.shape == high.shape == (2, 2)
