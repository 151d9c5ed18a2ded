"""Runs on environments: they learn, resume bit for bit, refuse what means nothing, and lose nothing when one breaks."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lineal.recipes.environment_loop as loop
from lineal.cli_options import options_of
from lineal.errors import UsageError
from lineal.recipes.config import EnvironmentConfig, from_json, to_json, with_options
from lineal.recipes.environment import OnEnvironment
from lineal.recipes.environment_presets import PLAIN, ZOO, preset
from lineal.train.control.parts import read_step_algorithm
from lineal.train.run import Run

ALGORITHMS = ("reinforce", "trpo", "ppo", "ppo-kl")
SMALL = ("--envs", "3", "--rollout-steps", "40", "--steps", "6", "--save-every", "2", "--eval-episodes", "3",
         "--hidden", "8", "--quiet", "--seed", "3")  # fmt: skip
Command = Callable[..., int]
Say = Callable[..., Any]
Read = Callable[[Path], list[dict[str, Any]]]


def words(algorithm: str, out: Path, *more: str, env: str = "CartPole-v1") -> list[str]:
    minibatches = ("--minibatches", "2") if algorithm.startswith("ppo") else ()
    return ["run", algorithm, "--env", env, "--out", str(out), *SMALL, *minibatches, *more]


def outcome(path: Path, steps: int = 6) -> dict[str, bytes]:
    """Everything that must be equal."""
    newest = path / "checkpoints" / f"step-{steps}"
    names = ("final/policy.safetensors", "final/config.json", "metrics.jsonl")
    content = {name: (path / name).read_bytes() for name in names}
    content["checkpoint"] = (newest / "tensors.safetensors").read_bytes()
    content["state"] = (newest / "state.json").read_bytes().split(b'"lengths"')[0]
    return content


def die_at(step: int, name: str) -> Callable[[], None]:
    """Kills the process in the middle of a step, right before it calls loop.NAME."""

    def install() -> None:
        real, count = getattr(loop, name), 0

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        setattr(loop, name, counted)

    return install


CASES = [
    ("ppo", "CartPole-v1", ("--normalise-observations", "--normalise-rewards"), "adam_update"),
    ("ppo-kl", "Pendulum-v1", ("--clip-schedule", "linear", "--schedule", "linear"), "prepare"),
    ("trpo", "Acrobot-v1", (), "critic_update"),
    ("reinforce", "CartPole-v1", (), "update_state"),
]


@pytest.mark.parametrize(("algorithm", "env", "more", "where"), CASES)
def test_killed_and_resumed_it_ends_bit_identical(
    algorithm: str, env: str, more: tuple[str, ...], where: str, command: Command, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    assert command(words(algorithm, tmp_path / "a", *more, env=env), log=log) == 0, log.read_text()
    killed = command(words(algorithm, tmp_path / "b", *more, env=env), before=die_at(4, where), log=log)
    assert killed == -signal.SIGKILL, log.read_text()
    assert command(["resume", str(tmp_path / "b")], log=log) == 0, log.read_text()
    assert "continuing after step 2" in log.read_text()
    one, other = outcome(tmp_path / "a"), outcome(tmp_path / "b")
    assert [name for name in one if one[name] != other[name]] == []


def test_gymnasiums_environments_resume_at_new_episodes_and_say_so(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    log = tmp_path / "log"
    assert command(words("ppo", tmp_path / "a", "--no-own"), log=log) == 0, log.read_text()
    assert "at each checkpoint its copies begin new episodes" in log.read_text()
    assert command(words("ppo", tmp_path / "b", "--no-own"), before=die_at(4, "prepare")) == -signal.SIGKILL
    assert command(["resume", str(tmp_path / "b")], log=log) == 0, log.read_text()
    one, other = outcome(tmp_path / "a"), outcome(tmp_path / "b")
    assert [name for name in one if one[name] != other[name]] == []


def test_a_stop_signal_checkpoints_and_exits(command: Command, tmp_path: Path) -> None:
    def interrupt() -> None:
        real = loop.train_step

        def stopping(going: Any, step: int) -> Any:
            if step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(going, step)

        loop.train_step = stopping

    assert command(words("ppo", tmp_path / "run"), before=interrupt) == 143
    assert (tmp_path / "run" / "checkpoints" / "step-3").is_dir()
    assert command(["resume", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_runs_and_logs(algorithm: str, say: Say, read: Read, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = say(*words(algorithm, out))
    assert said.code == 0, said.err
    records = read(out / "metrics.jsonl")
    assert len(records) == 7 and records[-1]["eval/final"] is True
    assert records[5]["env_steps"] > 0 and records[5]["return_100"] > 0
    assert all(np.isfinite(x) for r in records for x in r.values() if isinstance(x, float))
    assert (out / "final" / "policy.safetensors").exists() and (out / "report.html").exists()
    report = (out / "report.html").read_text()
    assert "maximise" in report and "Return" in report and "lineal record" in report
    played = say("eval", out, "--episodes", 4, "--json")
    assert played.code == 0 and len(json.loads(played.out)["returns"]) == 4


GATES = [
    ("trpo", "CartPole-v1", 50_000, 475, 1),
    ("ppo", "CartPole-v1", 50_000, 475, 1),
    pytest.param("ppo-kl", "CartPole-v1", 50_000, 475, 3, marks=pytest.mark.slow),
    pytest.param("ppo", "CartPole-v1", 50_000, 475, 3, marks=pytest.mark.slow),
    pytest.param("trpo", "CartPole-v1", 50_000, 475, 3, marks=pytest.mark.slow),
    pytest.param("reinforce", "CartPole-v1", 150_000, 475, 3, marks=pytest.mark.slow),
    pytest.param("ppo", "Pendulum-v1", 100_000, -250, 3, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("algorithm", "env", "steps", "bar", "seeds"), GATES)
def test_it_learns_within_its_budget(
    algorithm: str, env: str, steps: int, bar: float, seeds: int, tmp_path: Path
) -> None:
    """By the preset's numbers; the median of the seeds."""
    _, numbers = preset(algorithm, env)
    chosen = {
        **numbers,
        "algorithm": algorithm,
        "env": env,
        "env_steps": steps,
        "quiet": True,
        "save_every": 10_000,
    }
    threads, reached = torch.get_num_threads(), []
    try:
        for seed in range(seeds):
            config = with_options(EnvironmentConfig(), **chosen, seed=seed)
            path = tmp_path / f"run-{seed}"
            with Run.create(path, {"recipe": algorithm, "options": to_json(config)}) as run:
                loop.run(config, run)
            last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
            reached.append(last["eval/return"])
    finally:
        torch.set_num_threads(threads)
    assert sorted(reached)[seeds // 2] >= bar, reached


def test_a_film_is_made(say: Say, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    out = tmp_path / "run"
    assert say(*words("ppo", out)).code == 0
    for suffix in ("gif", "png", "webp"):
        film = tmp_path / f"film.{suffix}"
        said = say("record", out, "--out", film, "--frames", 12)
        assert said.code == 0, said.err
        with pil.open(film) as picture:
            assert picture.n_frames > 5 and picture.size == (400, 300)
    assert "ends in" in say("record", out, "--out", tmp_path / "film.txt").err


def test_what_means_nothing_is_refused_before_a_folder_is_made(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for line, said in (
        (["run", "grpo", "--env", "CartPole-v1"], "compares several completions of one prompt"),
        (["run", "gspo", "--env", "CartPole-v1"], "compares several completions"),
        (["run", "sft", "--env", "CartPole-v1"], "learns from text"),
        (["run", "ppo", "--env", "Cartpole-v1"], "CartPole-v1"),
        (["run", "ppo", "--env", "MountainCar-v0", "--preset", "best"], "none of auto, zoo and plain"),
        (["run", "reinforce", "--env", "CartPole-v1", "--preset", "zoo"], "has no numbers for reinforce"),
        (["run", "trpo", "--env", "CartPole-v1", "--clip", "0.2"], "has no clip"),
        (
            ["run", "ppo", "--env", "CartPole-v1", "--baseline", "learned"],
            "takes its advantage from a critic",
        ),
        (["run", "ppo", "--env", "CartPole-v1", "--hidden", "0"], "width of at least 1"),
        (["run", "ppo", "--env", "CartPole-v1", "--group-size", "2"], "no option --group-size"),
        (["eval", "nowhere", "--episodes", "2"], "nowhere"),
        (["record"], "0 folders"),
    ):
        found = say(*line)
        assert found.code in (1, 2) and said in found.err, found
        assert found.err.count("\n") <= 3
    assert not list((tmp_path).glob("runs/*"))


def test_an_environment_that_breaks_costs_no_checkpoint(say: Say, tmp_path: Path) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    from gymnasium.envs.classic_control import CartPoleEnv

    class Fragile(CartPoleEnv):
        taken = 0

        def step(self, action: Any) -> Any:
            Fragile.taken += 1
            if Fragile.taken == 300:
                raise RuntimeError("a cable came off")
            return super().step(action)

    gymnasium.register("Fragile-v0", entry_point=Fragile, max_episode_steps=50)
    try:
        out = tmp_path / "run"
        said = say(*words("ppo", out, env="Fragile-v0"))
        assert said.code == 1
        assert "Fragile-v0 raised RuntimeError in step: a cable came off" in said.err
        assert (out / "checkpoints" / "step-2").is_dir()
        assert say("resume", out).code == 0
    finally:
        gymnasium.registry.pop("Fragile-v0")


def test_presets_are_known_options_and_print() -> None:
    for algorithm in ALGORITHMS:
        for env in [*ZOO[algorithm], "Anything-v3"]:
            made = OnEnvironment(algorithm, env)
            config = made.default()
            assert read_step_algorithm(config).name == algorithm
            assert from_json(EnvironmentConfig, json.loads(json.dumps(to_json(config)))) == config
            batch = config.environment.envs * config.algorithm.rollout_steps
            assert batch % (config.algorithm.minibatches or 1) == 0
            assert made.line().startswith("preset ")
    assert OnEnvironment("ppo", "Hopper-v5").default().policy.hidden == (256, 256)
    assert preset("ppo", "CartPole-v1")[1]["epochs"] == 20
    assert preset("ppo", "CartPole-v1", "plain")[1] == PLAIN["ppo"]
    assert "gSDE" in OnEnvironment("ppo", "Pendulum-v1").line()
    with pytest.raises(UsageError, match="--preset plain"):
        OnEnvironment("ppo", "Anything-v3", "zoo").default()


def test_every_option_says_what_it_does() -> None:
    options = options_of(EnvironmentConfig())
    assert all(option.help.endswith(".") for option in options)
    assert len({option.name for option in options}) == len(options)


def test_dry_run_and_help_make_nothing(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = say("run", "trpo", "--env", "Pendulum-v1", "--dry-run")
    assert said.code == 0 and "trust region" in said.out and "2 copies x 1024 steps" in said.out
    said = say("run", "ppo", "--env", "CartPole-v1", "--help-all")
    assert said.code == 0 and "--adam-eps" in said.out
    for verb in ("eval", "record"):
        run = tmp_path / "final"
        run.mkdir(exist_ok=True)
        (run / "config.json").write_text('{"kind": "lineal-control-policy"}')
        assert "--episodes" in say(verb, run, "--help").out
    assert not (tmp_path / "runs").exists()


def test_a_damaged_policy_is_named(say: Say, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert say(*words("ppo", out)).code == 0
    file = out / "final" / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    said = say("eval", out)
    assert said.code == 1 and "holds no control policy" in said.err
    record = json.loads((out / "final" / "config.json").read_text())
    assert record["environment"] == "CartPole-v1"


def test_an_unfinished_run_can_be_watched(say: Say, command: Command, tmp_path: Path) -> None:
    assert command(words("ppo", tmp_path / "run"), before=die_at(4, "prepare")) == -signal.SIGKILL
    said = say("eval", tmp_path / "run", "--episodes", 2)
    assert said.code == 0 and "is not finished" in said.err and "return" in said.out
    assert "changed its spaces" in say("eval", tmp_path / "run", "--env", "Acrobot-v1").err


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "control.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        exec(compile(code, "control.md", "exec"), {})
    finally:
        torch.set_num_threads(threads)
    assert "over 20 episodes" in capsys.readouterr().out and (tmp_path / "runs/pole/final").is_dir()


def test_beta_moves_once_per_iteration_by_a_factor_of_two_at_most(
    say: Say, read: Read, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert say(*words("ppo-kl", out, "--epochs", "6", "--learning-rate", "0.02", "--steps", "8")).code == 0
    beta = [line["beta"] for line in read(out / "metrics.jsonl") if "beta" in line]
    assert len(beta) == 8 and set(np.diff(np.log2([1.0, *beta])).tolist()) <= {-1.0, 0.0, 1.0}
    assert len(set(beta)) > 1


class Changing:
    """Registers Changing-v0, which shows `size` numbers and pays `reward`."""

    def __init__(self, size: int, reward: float = 1.0) -> None:
        import gymnasium

        class Environment(gymnasium.Env):  # type: ignore[name-defined]
            observation_space = gymnasium.spaces.Box(-1, 1, (size,), np.float32)
            action_space = gymnasium.spaces.Discrete(2)
            taken = 0

            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                return np.zeros(size, np.float32), {}

            def step(self, action: Any) -> Any:
                Environment.taken += 1
                paid = reward if Environment.taken > 200 else 1.0
                return np.zeros(size, np.float32), paid, False, Environment.taken % 10 == 0, {}

        gymnasium.register("Changing-v0", entry_point=Environment)  # type: ignore[arg-type]

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        import gymnasium

        gymnasium.registry.pop("Changing-v0")


def test_a_run_goes_on_only_with_the_spaces_it_began_with(say: Say, command: Command, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    with Changing(3):
        killed = command(words("ppo", tmp_path / "run", env="Changing-v0"), before=die_at(4, "prepare"))
        assert killed == -signal.SIGKILL
    with Changing(5):
        said = say("resume", tmp_path / "run")
        assert said.code == 1 and "the environment changed its spaces" in said.err.splitlines()[-1], said.err
    with Changing(3):
        assert say("resume", tmp_path / "run").code == 0


def test_nan_from_an_environment_ends_the_run_with_its_name_and_costs_no_checkpoint(
    say: Say, tmp_path: Path
) -> None:
    pytest.importorskip("gymnasium")
    with Changing(3, reward=math.nan):
        said = say(*words("trpo", tmp_path / "run", env="Changing-v0"))
    assert said.code == 1 and "Changing-v0 gave reward nan in copy" in said.err.splitlines()[-1], said.err
    assert (tmp_path / "run" / "checkpoints").is_dir() and not (tmp_path / "run" / "final").exists()
