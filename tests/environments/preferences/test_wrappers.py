from __future__ import annotations

import numpy as np
import pytest

from lineal.environments.control.opening import open_environment
from lineal.environments.control.protocol import VectorEnvironment
from lineal.environments.preferences.scenes import Scenes, states_of
from lineal.environments.preferences.wrappers import FixedHorizon, LearnedReward, choices_of, time_limit
from lineal.errors import EnvironmentFailure, UsageError


def act(environment, random):
    if choices_of(environment.action):
        return random.integers(0, 2, environment.count)
    return random.uniform(-2, 2, (environment.count, 1)).astype(np.float32)


def test_a_task_that_ends_early_has_a_constant_horizon():
    """Random play drops CartPole's pole after about 20 steps; the learner sees 50 every time."""
    world = FixedHorizon(open_environment("CartPole-v1", 3), 50, termination_reward=-10.0)
    random = np.random.default_rng(0)
    world.reset(0)
    fallen = 0
    for t in range(1, 201):
        step = world.step(act(world, random))
        assert not step.terminated_B.any()
        assert (step.truncated_B == (t % 50 == 0)).all()
        fallen += int((step.reward_B == -9.0).sum())
    assert fallen > 10


def test_both_wrappers_keep_to_the_protocol():
    inner = FixedHorizon(open_environment("Pendulum-v1", 2), 200)
    assert isinstance(inner, VectorEnvironment) and isinstance(LearnedReward(inner), VectorEnvironment)


def test_where_nothing_ends_it_is_the_environment_itself():
    plain, world = open_environment("Pendulum-v1", 2), FixedHorizon(open_environment("Pendulum-v1", 2), 200)
    assert (plain.reset(3) == world.reset(3)).all()
    random = np.random.default_rng(0)
    for _ in range(450):
        action = act(world, random)
        a, b = plain.step(action), world.step(action)
        for name, value in vars(a).items():
            assert np.array_equal(value, getattr(b, name)), name


def test_the_learner_sees_the_learned_reward_and_the_record_the_true_one():
    inner = open_environment("Pendulum-v1", 2)
    world = LearnedReward(inner, lambda feature_BF: feature_BF.sum(1).astype(np.float64))
    observation = world.reset(0)
    random = np.random.default_rng(0)
    rewards = []
    for _ in range(200):
        action = act(world, random)
        step = world.step(action)
        assert step.reward_B == pytest.approx(observation.sum(1) + action.sum(1), abs=1e-5)
        observation = step.observation_BF
        rewards.append(step.reward_B)
    segments, returns = world.take(25)
    assert len(segments) == 2 * 8 and len(returns) == 2
    first = segments[0]
    assert first.observation_TF.shape == (25, 3) and first.state["state"].shape == (25, 2)
    assert world.features(first).sum(1) == pytest.approx(np.array(rewards)[:25, 0], abs=1e-5)
    assert sum(s.reward_T.sum() for s in segments[:8]) == pytest.approx(returns[0])
    assert (first.reward_T < 0).all(), "the record holds the environment's own reward"
    assert world.take(25) == ([], []), "what was taken is gone"


def test_a_segment_never_crosses_the_end_of_an_episode():
    world = LearnedReward(open_environment("CartPole-v1", 2))
    observation = world.reset(0)
    assert observation.shape == (2, 4)
    random = np.random.default_rng(0)
    for _ in range(300):
        world.step(act(world, random))
    assert world.ended > 5, "and early ends are counted: they leak how well it went"
    segments, _ = world.take(5)
    assert len(segments) > 40
    for segment in segments:
        jump_T = np.abs(np.diff(segment.state["state"][:, 0]))
        assert jump_T.max() < 0.1


def test_the_state_survives_a_round_trip():
    world = LearnedReward(
        FixedHorizon(open_environment("CartPole-v1", 2), 30), lambda x: x[:, 0].astype(np.float64)
    )
    world.reset(0)
    random = np.random.default_rng(0)
    for _ in range(40):
        world.step(act(world, random))
    world.take(5)
    state = world.get_state()
    assert state is not None
    actions = [act(world, random) for _ in range(60)]
    expected = [world.step(action) for action in actions]
    wanted = world.take(5)
    other = LearnedReward(
        FixedHorizon(open_environment("CartPole-v1", 2), 30), lambda x: x[:, 0].astype(np.float64)
    )
    other.reset(9)
    other.set_state(state)
    for action, step in zip(actions, expected, strict=True):
        again = other.step(action)
        assert all(
            (value == getattr(again, name)).all() for name, value in vars(step).items() if value is not None
        )
    segments, returns = other.take(5)
    assert [s.id for s in segments] == [s.id for s in wanted[0]] and returns == wanted[1]


def test_what_is_not_finite_is_named():
    world = LearnedReward(open_environment("Pendulum-v1", 1))
    world.reset(0)
    with pytest.raises(EnvironmentFailure, match="not finite"):
        world.step(np.array([[np.nan]], np.float32))


def test_time_limits():
    assert time_limit(LearnedReward(open_environment("Pendulum-v1", 1))) == 200
    with pytest.raises(UsageError, match="at least 1"):
        FixedHorizon(open_environment("Pendulum-v1", 1), 0)


def test_a_clip_is_drawn_from_the_states_alone():
    pytest.importorskip("PIL")
    environment = open_environment("Pendulum-v1", 1)
    world = LearnedReward(environment)
    world.reset(0)
    frames = []
    for _ in range(3):
        frames.append(environment.render(0))
        world.step(np.ones((1, 1), np.float32))
    segment = world.take(3)[0][0]
    drawn = Scenes("Pendulum-v1")(segment)
    assert all((a == b).all() for a, b in zip(frames, drawn, strict=True))


def test_gymnasium_s_states_are_drawn_too():
    pytest.importorskip("gymnasium")
    pytest.importorskip("pygame")
    environment = open_environment("Pendulum-v1", 2, own=False)
    world = LearnedReward(environment)
    world.reset(0)
    assert states_of(world)["state"].shape == (2, 2)
    assert time_limit(world) == 200
    for _ in range(3):
        world.step(np.ones((2, 1), np.float32))
    segment = world.take(3)[0][0]
    assert Scenes("Pendulum-v1")(segment)[0].shape[2] == 3


def test_clips_without_a_state_say_so():
    world = LearnedReward(open_environment("Pendulum-v1", 1))
    world.reset(0)
    world.step(np.ones((1, 1), np.float32))
    segment = world.take(1)[0][0]
    bare = type(segment)(segment.observation_TF, segment.action_T, segment.reward_T)
    with pytest.raises(UsageError, match="no simulator state"):
        Scenes("Strange-v0")(bare)
