"""Runs on pictures: they learn, resume bit for bit, and Atari's games are environments like any other."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import lineal.recipes.environment_loop as loop
from lineal.recipes.atari_presets import ATARI, preset
from lineal.recipes.config import EnvironmentConfig, to_json, with_options
from lineal.recipes.environment import OnEnvironment
from lineal.train.control.files import load_policy
from lineal.train.run import Run

gymnasium = pytest.importorskip("gymnasium")
Command = Callable[..., int]
Say = Callable[..., Any]
SIDE = 10


class Catch(gymnasium.vector.VectorEnv):  # type: ignore[name-defined]
    """A ball falls on a field of 10 x 10 pixels; the paddle below it moves left, stays or moves right; 1 if it catches."""

    metadata: ClassVar = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, render_mode: str | None = None) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
        self.single_action_space = gymnasium.spaces.Discrete(3)
        self.random, self.over_B = np.random.default_rng(0), np.zeros(num_envs, bool)

    def begin(self, which_B: np.ndarray) -> None:
        self.ball_B2[which_B] = np.stack(
            [np.zeros(which_B.sum()), self.random.integers(0, SIDE, which_B.sum())], 1
        )
        self.paddle_B[which_B] = SIDE // 2

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.ball_B2, self.paddle_B = np.zeros((self.num_envs, 2), int), np.zeros(self.num_envs, int)
        self.begin(np.ones(self.num_envs, bool))
        self.over_B = np.zeros(self.num_envs, bool)
        return self.show(), {}

    def show(self) -> np.ndarray:
        shown, row_B = np.zeros((self.num_envs, SIDE, SIDE), np.uint8), np.arange(self.num_envs)
        shown[row_B, self.ball_B2[:, 0], self.ball_B2[:, 1]] = 255
        shown[row_B, SIDE - 1, self.paddle_B] = 255
        return shown

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        fresh_B = self.over_B
        self.ball_B2[~fresh_B, 0] += 1
        self.paddle_B = np.where(fresh_B, self.paddle_B, np.clip(self.paddle_B + action - 1, 0, SIDE - 1))
        self.begin(fresh_B)
        self.over_B = self.ball_B2[:, 0] == SIDE - 1
        reward_B = np.where(self.over_B, np.where(self.ball_B2[:, 1] == self.paddle_B, 1.0, -1.0), 0.0)
        return self.show(), reward_B, self.over_B.copy(), np.zeros(self.num_envs, bool), {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Catch-v0", vector_entry_point=Catch)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    gymnasium.registry.pop("Catch-v0")


LEARNING = {
    "ppo": {
        "epochs": 4,
        "minibatches": 4,
        "learning_rate": 2e-3,
        "clip": 0.2,
        "entropy": 0.01,
        "env_steps": 40_000,
    },
    "trpo": {
        "max_kl": 0.02,
        "critic_epochs": 5,
        "critic_minibatches": 4,
        "learning_rate": 2e-3,
        "env_steps": 40_000,
    },
}


@pytest.mark.parametrize("algorithm", ["ppo"])
def test_it_learns_to_catch_from_pixels(algorithm: str, tmp_path: Path) -> None:
    """Nine of ten caught; the ball lands where it was seen, and chance catches about one in five."""
    settings = {
        **LEARNING[algorithm], "algorithm": algorithm, "env": "Catch-v0", "envs": 32, "rollout_steps": 32,
        "discount": 0.95, "trace_decay": 0.95, "hidden": (64,), "threads": 1, "quiet": True, "save_every": 10_000,
        "eval_episodes": 50,
    }  # fmt: skip
    config = with_options(EnvironmentConfig(), **settings)
    with Run.create(tmp_path / "run", {"recipe": algorithm, "options": to_json(config)}) as run:
        loop.run(config, run)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["eval/return"] >= 0.8, "0.8 is 90 % caught"


def words(out: Path, env: str, *more: str) -> list[str]:
    small = ("--envs", "3", "--rollout-steps", "16", "--steps", "4", "--save-every", "2", "--eval-episodes", "2",
             "--threads", "1", "--hidden", "16", "--seed", "3", "--quiet")  # fmt: skip
    return [
        "run",
        "ppo",
        "--env",
        env,
        "--out",
        str(out),
        "--minibatches",
        "2",
        "--epochs",
        "2",
        *small,
        *more,
    ]


def die_at(step: int) -> Callable[[], None]:
    def install() -> None:
        real, count = loop.adam_update, 0

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        loop.adam_update = counted

    return install


@pytest.mark.serial
@pytest.mark.parametrize("env", ["Catch-v0", "ALE/Pong-v5"])
def test_killed_and_resumed_it_ends_bit_identical(env: str, command: Command, tmp_path: Path) -> None:
    small = ()
    if env.startswith("ALE/"):
        pytest.importorskip("ale_py", reason="needs lineal[atari]")
        small = ("--image-size", "40", "--eval-episodes", "1")
    log = tmp_path / "log"
    assert command(words(tmp_path / "a", env, *small), log=log) == 0, log.read_text()
    assert command(words(tmp_path / "b", env, *small), before=die_at(4), log=log) == -signal.SIGKILL
    assert command(["resume", str(tmp_path / "b")], log=log) == 0, log.read_text()
    for name in ("final/policy.safetensors", "final/config.json", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_an_atari_run_from_end_to_end(say: Say, tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="needs lineal[atari]")
    out = tmp_path / "run"
    said = say(*words(out, "ALE/Pong-v5", "--frame-stack", "2", "--image-size", "42", "--eval-episodes", "1"))
    assert said.code == 0, said.err
    assert "preset zoo ppo Atari" in said.err and "clip-rewards True" in said.err
    saved = load_policy(out / "final")
    assert saved.policy.config.image == (2, 42, 42) and saved.preparation.frame_stack == 2
    assert not saved.preparation.episodic_life, "what is played later has no ends of its own"
    assert (out / "final" / "config.json").stat().st_size < 5000
    played = say("eval", out, "--episodes", 2, "--json", "--sample")
    assert played.code == 0 and len(json.loads(played.out)["returns"]) == 2
    film = say("record", out, "--frames", 5, "--out", tmp_path / "film.gif")
    assert film.code == 0 and (tmp_path / "film.gif").stat().st_size > 0


def test_presets_for_atari() -> None:
    for algorithm in ATARI:
        config = OnEnvironment(algorithm, "ALE/Pong-v5").default()
        assert config.environment.episodic_life and config.environment.clip_rewards
        assert config.environment.envs == 8 and config.algorithm.rollout_steps == 128
    ppo = OnEnvironment("ppo", "ALE/Pong-v5").default()
    assert (ppo.algorithm.epochs, ppo.algorithm.minibatches, ppo.algorithm.learning_rate) == (4, 4, 2.5e-4)
    assert (ppo.algorithm.clip, ppo.algorithm.clip_schedule, ppo.algorithm.entropy) == (0.1, "linear", 0.01)
    assert (
        preset("trpo", "ALE/Pong-v5", "zoo") == ("", {}) and preset("ppo", "CartPole-v1")[1]["epochs"] == 20
    )
    assert preset("ppo", "ALE/Pong-v5", "plain")[0] == "plain ppo"


def test_what_does_not_fit_pictures_is_refused(say: Say, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for more, said in (
        (("--normalise-observations",), "divided by 255"),
        (("--convolutions", "32x8/4", "64x4/2"), "do not fit"),
        (("--network", "perceptron", "--convolutions", "8x3/1"), "convolutions read pictures"),
    ):
        found = say(*words(out, "Catch-v0", *more))
        assert found.code == 2 and said in found.err.splitlines()[-1], found.err
    found = say(*words(out, "CartPole-v1", "--network", "convolutional"))
    assert found.code == 2 and "convolutions read pictures" in found.err
    assert say(*words(out, "Catch-v0", "--network", "perceptron", "--steps", "2")).code == 0
