"""Atari's games: what is shown of them, their own rewards, lives, and the same run twice."""

from __future__ import annotations

import numpy as np
import pytest

from lineal.environments.control.atari import AtariTask
from lineal.environments.control.opening import open_environment
from lineal.environments.control.preparation import Preparation
from lineal.environments.control.protocol import VectorEnvironment
from lineal.environments.control.spaces import Discrete
from lineal.errors import UsageError

pytest.importorskip("ale_py", reason="needs lineal[atari]")


def shape(environment: VectorEnvironment) -> tuple[int, ...]:
    return getattr(environment.observation, "shape", ())


def test_names_old_and_new() -> None:
    new, old = open_environment("ALE/Breakout-v5", 2), open_environment("BreakoutNoFrameskip-v4", 2)
    assert isinstance(new, AtariTask) and isinstance(old, AtariTask)
    assert new.action == old.action == Discrete(4) and shape(new) == shape(old) == (4, 84, 84)
    assert isinstance(new, VectorEnvironment) and new.time_limit == 27_000
    with pytest.raises(UsageError, match="did you mean ALE/Pong-v5"):
        open_environment("ALE/Pongo-v5")


def test_what_is_asked_for_is_shown() -> None:
    small = Preparation(image_size=42, grey=False, frame_stack=2)
    environment = open_environment("ALE/Pong-v5", 3, preparation=small)
    assert shape(environment) == (2, 42, 42, 3)
    assert environment.reset(0).shape == (3, 2, 42, 42, 3)
    assert environment.render(1).shape == (336, 336, 3)
    with pytest.raises(UsageError, match="--sticky 1"):
        Preparation(sticky=1.0)


def play(environment: VectorEnvironment, seed: int, steps: int) -> tuple[np.ndarray, list, list, list]:
    random = np.random.default_rng(seed)
    shown, rewards, lost, ended = [environment.reset(seed)], [], [], []
    for _ in range(steps):
        got = environment.step(random.integers(0, 4, environment.count))
        shown.append(got.observation_BF)
        rewards.append(got.reward_B)
        lost.append(got.lost_B)
        ended.append(got.ended_B)
    return np.stack(shown), rewards, lost, ended


def test_a_seed_fixes_the_game() -> None:
    one = play(open_environment("ALE/Breakout-v5", 2), 5, 40)
    other = open_environment("ALE/Breakout-v5", 2)
    play(other, 1, 17)
    again = play(other, 5, 40)
    assert (one[0] == again[0]).all() and np.array_equal(one[1], again[1])
    assert not (one[0] == play(other, 6, 40)[0]).all()


def test_lives_are_told_and_the_game_goes_on() -> None:
    environment = open_environment("ALE/Breakout-v5", 2, preparation=Preparation(episodic_life=True))
    _, rewards, lost, ended = play(environment, 0, 250)
    assert np.sum(lost) >= 4 and np.sum(rewards) > 0
    first_end = int(np.argwhere(np.stack(ended)[:, 0])[0, 0])
    assert np.sum(np.stack(lost)[:first_end, 0]) == 4, "five lives, of which the last ends the game"
    assert not (np.stack(lost) & np.stack(ended)).any()
    assert play(open_environment("ALE/Breakout-v5", 2), 0, 5)[2] == [None] * 5
