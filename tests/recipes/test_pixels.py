"""Runs on pictures: they learn, resume bit for bit, and Atari's games are environments like any other."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lineal.recipes.environment_loop as loop
from lineal.recipes.atari_presets import ATARI, preset
from lineal.recipes.config import EnvironmentConfig, to_json, with_options
from lineal.recipes.environment import OnEnvironment
from lineal.train.control.files import load_policy
from lineal.train.run import Run

Command = Callable[..., int]
Say = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("catch")


LEARNING = {
    "ppo": {
        "epochs": 4, "minibatches": 4, "learning_rate": 2e-3, "clip": 0.2, "entropy": 0.01, "env_steps": 40_000,
    },
    "trpo": {
        "max_kl": 0.1, "damping": 0.01, "cg_iterations": 6, "critic_epochs": 5, "critic_minibatches": 4,
        "learning_rate": 2e-3, "env_steps": 60_000,
    },
}  # fmt: skip


@pytest.mark.parametrize("algorithm", ["ppo", pytest.param("trpo", marks=pytest.mark.slow)])
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
    played = say("eval", out, "--episodes", 1, "--json", "--sample")
    assert played.code == 0 and len(json.loads(played.out)["returns"]) == 1
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
