"""Learning from preferences about pictures: from end to end, resumable, and learned right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lineal.environments.preferences.records import Segment
from lineal.environments.preferences.scenes import Scenes
from lineal.models.pixel_reward import PixelReward
from lineal.recipes import preferences_loop
from lineal.train.metrics import read_lines
from lineal.train.preferences.labels import Answers
from lineal.train.preferences.segments import SegmentStore

Command = Callable[..., int]
Say = Callable[..., Any]


def words(out: Path, env: str, *more: str) -> list[str]:
    return ["run", "preferences", "--env", env, "--out", str(out), "--algorithm", "ppo", "--envs", "4", "--quiet",
            "--rollout-steps", "64", "--minibatches", "2", "--epochs", "2", "--hidden", "16", "--threads", "1",
            "--eval-episodes", "1", "--segment", "8", "--save-every", "2", "--recent", "40", "--seed", "3", *more]  # fmt: skip


@pytest.mark.usefixtures("catch")
def test_it_learns_from_pictures_and_a_killed_run_ends_as_the_uninterrupted_one(
    command: Command, tmp_path: Path
) -> None:
    small = ("--labels", "24", "--env-steps", "1600", "--reward-updates", "4", "--horizon", "60")

    def die() -> None:
        real, count = preferences_loop.learn, 0

        def counted(*args: Any) -> Any:
            nonlocal count
            count += 1
            if count == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        preferences_loop.learn = counted

    log, one, other = tmp_path / "log", tmp_path / "a", tmp_path / "b"
    assert command(words(one, "Catch-v0", *small), log=log) == 0, log.read_text()
    assert command(words(other, "Catch-v0", *small), before=die, log=log) == -signal.SIGKILL, log.read_text()
    assert command(["resume", str(other)], log=log) == 0, log.read_text()
    for name in ("final/policy.safetensors", "final/reward/model.safetensors", "metrics.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    answers, segments = Answers(one / "preferences"), SegmentStore(one / "preferences")
    assert len(answers.labels) == 24
    ensemble = PixelReward.load(one / "final" / "reward")
    assert ensemble.config.image == (1, 10, 10)
    clip = Scenes("Catch-v0")(segments[next(iter(answers.pairs.values())).first])
    assert len(clip) == 8 and clip[0].shape == (320, 320, 3)


def test_stacks_of_pictures_are_kept_as_the_pictures(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (11, 6, 6), dtype=np.uint8)
    stacked = np.stack([frames[t : t + 4] for t in range(8)])
    whole = Segment(stacked, np.arange(8), np.ones(8))
    assert whole.arrays()["frames"].shape == (11, 6, 6) and "observation" not in whole.arrays()
    broken = stacked.copy()
    broken[5] = 0
    other = Segment(broken, np.arange(8), np.ones(8))
    assert "frames" not in other.arrays(), "an episode that began anew inside is kept as it was shown"
    SegmentStore(tmp_path).add([whole, other])
    for segment in (whole, other):
        again = SegmentStore(tmp_path)[segment.id]
        assert (again.observation_TF == segment.observation_TF).all() and again.id == segment.id


def test_atari_is_taught_too(say: Say, tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="needs lineal[atari]")
    out = tmp_path / "run"
    small = (
        "--labels",
        "6",
        "--env-steps",
        "300",
        "--reward-updates",
        "2",
        "--horizon",
        "100",
        "--image-size",
        "40",
    )
    said = say(*words(out, "ALE/Pong-v5", *small))
    assert said.code == 0, said.err
    lines = list(read_lines(out / "metrics.jsonl"))
    assert lines[-1]["eval/final"] and any("reward_model/validation_loss" in line for line in lines)
    segments = SegmentStore(out / "preferences")
    segment = segments[next(iter(segments))]
    assert segment.observation_TF.shape == (8, 4, 40, 40) and "frames" in segment.arrays()
