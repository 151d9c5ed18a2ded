"""MuJoCo's simulators: runs, films, and clips from stored states, where MuJoCo is installed and can draw."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lineal.environments.control.opening import open_environment
from lineal.environments.preferences.scenes import Scenes, states_of
from lineal.environments.preferences.wrappers import FixedHorizon, LearnedReward, time_limit
from lineal.train.preferences.labels import Answers
from lineal.train.preferences.segments import SegmentStore

pytest.importorskip("mujoco", reason="needs lineal[mujoco]")
Say = Callable[..., Any]

DRAWS = """
import gymnasium
copy = gymnasium.make("Hopper-v5", render_mode="rgb_array", width=64, height=48)
copy.reset(seed=0)
assert copy.render().shape == (48, 64, 3)
"""


@pytest.fixture(scope="session")
def drawing() -> None:
    """Skips where nothing can be drawn, with what was tried; in a process of its own, for a failed GL can kill one."""
    tried = []
    for way in (os.environ.get("MUJOCO_GL"), "egl", "osmesa"):
        if way is None:
            continue
        done = subprocess.run(
            [sys.executable, "-c", DRAWS],
            capture_output=True,
            text=True,
            env={**os.environ, "MUJOCO_GL": way},
        )
        if done.returncode == 0:
            os.environ["MUJOCO_GL"] = way
            return
        tried.append(f"MUJOCO_GL={way}: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    pytest.skip("MuJoCo cannot draw here: " + "; ".join(tried))


def test_a_simulators_state_is_kept_and_horizons_are_known() -> None:
    world = LearnedReward(FixedHorizon(open_environment("Hopper-v5", 2), 50))
    world.reset(0)
    state = states_of(world)
    assert state["qpos"].shape == (2, 6) and state["qvel"].shape == (2, 6)
    assert time_limit(world) == 1000
    for _ in range(20):
        step = world.step(np.zeros((2, 3), np.float32))
    assert not step.ended_B.any()
    segments, _ = world.take(10)
    assert len(segments) == 4 and segments[0].state["qpos"].shape == (10, 6)


@pytest.mark.usefixtures("drawing")
def test_a_clip_is_drawn_from_the_states_alone() -> None:
    """What is drawn later is what the simulator itself drew then."""
    environment = open_environment("InvertedPendulum-v5", 1, draw=True)
    world, frames = LearnedReward(environment), []
    world.reset(3)
    for _ in range(4):
        frames.append(environment.render(0))
        world.step(np.full((1, 1), 0.5, np.float32))
    (segment,), _ = world.take(4)
    clip = Scenes("InvertedPendulum-v5")(segment)
    assert len(clip) == 4 and clip[0].shape == frames[0].shape
    for drawn, seen in zip(clip, frames, strict=True):
        assert np.abs(drawn.astype(int) - seen.astype(int)).mean() < 1.0
    assert (clip[0] != clip[3]).any()


@pytest.mark.usefixtures("drawing")
def test_a_run_is_filmed_and_taught(say: Say, tmp_path: Path) -> None:
    small = ("--envs", "2", "--rollout-steps", "32", "--hidden", "8", "--eval-episodes", "1", "--quiet", "--threads", "1",
             "--minibatches", "2", "--epochs", "2")  # fmt: skip
    out = tmp_path / "run"
    said = say("run", "ppo", "--env", "InvertedPendulum-v5", "--out", out, "--steps", "2", *small)
    assert said.code == 0, said.err
    film = say("record", out, "--frames", 6)
    assert film.code == 0 and (out / "episode.gif").stat().st_size > 0, film.err
    assert "data:image/gif" in (out / "report.html").read_text()
    taught = tmp_path / "taught"
    said = say("run", "preferences", "--env", "InvertedPendulum-v5", "--algorithm", "ppo", "--out", taught, *small,
               "--labels", "6", "--segment", "8", "--horizon", "40", "--env-steps", "200", "--reward-updates", "2")  # fmt: skip
    assert said.code == 0, said.err
    segments = SegmentStore(taught / "preferences")
    pair = next(iter(Answers(taught / "preferences").pairs.values()))
    assert len(Scenes("InvertedPendulum-v5")(segments[pair.first])) == 8
