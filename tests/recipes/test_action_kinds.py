"""Every kind of action by the command: several choices at once, and real numbers with a covariance that is fixed or learned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lineal.train.control.files import load_policy

gymnasium = pytest.importorskip("gymnasium")
Say = Callable[..., Any]


class Reach(gymnasium.Env):  # type: ignore[name-defined]
    """Two real numbers whose sum should be what is shown; the noise of one should then mirror that of the other."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-5, 5, (2,), np.float32)
        self.goal, self.time = np.zeros(1, np.float32), 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.show(), {}

    def show(self) -> np.ndarray:
        self.goal = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.goal

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        reward = -float((action.sum() - self.goal[0]) ** 2)
        return self.show(), reward, False, self.time == 10, {}


class Locks(Reach):
    """Two dials, of 3 and 2 places: the first should be where the sign says, the second at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.MultiDiscrete([3, 2])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        reward = float(action[0] == (2 if self.goal[0] > 0 else 0)) + float(action[1] == 1)
        return self.show(), reward, False, self.time == 10, {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    threads = torch.get_num_threads()
    for kind in (Reach, Locks):
        gymnasium.register(f"{kind.__name__}-v0", entry_point=kind)
    yield
    torch.set_num_threads(threads)
    for kind in (Reach, Locks):
        gymnasium.registry.pop(f"{kind.__name__}-v0")


def run(say: Say, out: Path, algorithm: str, env: str, *more: str) -> dict[str, Any]:
    """Train, play what was saved, and return the last evaluation."""
    numbers = (
        ("--minibatches", "4", "--epochs", "8", "--learning-rate", "0.01")
        if algorithm != "trpo"
        else ("--max-kl", "0.05")
    )
    said = say("run", algorithm, "--env", env, "--out", out, "--envs", "8", "--rollout-steps", "64", "--hidden", "16",
               "--discount", "0.5", "--eval-episodes", "10", "--quiet", *numbers, *more)  # fmt: skip
    assert said.code == 0, said.err
    played = say("eval", out, "--episodes", 4, "--sample", "--json")
    assert played.code == 0 and len(json.loads(played.out)["returns"]) == 4, played.err
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("algorithm", ["ppo", "trpo"])
def test_several_choices_at_once_are_learned(algorithm: str, say: Say, tmp_path: Path) -> None:
    last = run(say, tmp_path / "run", algorithm, "Locks-v0", "--steps", "15")
    assert last["eval/return"] > 17, "of 20; chance has 8.3"
    assert load_policy(tmp_path / "run" / "final").policy.config.choices == (3, 2)


@pytest.mark.parametrize("algorithm", ["ppo", pytest.param("trpo", marks=pytest.mark.slow)])
def test_a_full_covariance_is_learned_and_saved(algorithm: str, say: Say, tmp_path: Path) -> None:
    """Only the sum is paid for, so the two numbers' noise should become opposite: a negative correlation."""
    last = run(
        say,
        tmp_path / "run",
        algorithm,
        "Reach-v0",
        "--covariance",
        "full",
        "--steps",
        "30",
        "--log-std",
        "-0.5",
    )
    assert last["eval/return"] > -1.0, "the mean squared error of a step is below 0.1"
    policy = load_policy(tmp_path / "run" / "final").policy
    factor_AA = policy.actions.factor(policy.spread())  # type: ignore[union-attr]
    covariance_AA = factor_AA @ factor_AA.T
    correlation = covariance_AA[0, 1] / (covariance_AA[0, 0] * covariance_AA[1, 1]).sqrt()
    assert policy.config.covariance == "full" and float(correlation) < -0.3


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("algorithm", ["ppo", "trpo"])
def test_a_fixed_covariance_stays_what_it_was(
    algorithm: str, covariance: str, say: Say, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(
        say,
        out,
        algorithm,
        "Reach-v0",
        "--covariance",
        covariance,
        "--no-learn-std",
        "--log-std",
        "-0.7",
        "--steps",
        "4",
    )
    spread_E = load_policy(out / "final").policy.spread()
    assert torch.equal(spread_E, torch.tensor([-0.7, -0.7, 0.0][: len(spread_E)]))
    assert len(spread_E) == (3 if covariance == "full" else 2)


def test_actions_that_fit_nothing_are_refused(say: Say, tmp_path: Path) -> None:
    class Odd(Reach):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.Box(0, 1, (2, 2), np.float32)

    gymnasium.register("Odd-v0", entry_point=Odd)
    try:
        found = say("run", "ppo", "--env", "Odd-v0", "--out", tmp_path / "run")
        assert found.code == 2 and "fits no policy" in found.err
    finally:
        gymnasium.registry.pop("Odd-v0")
