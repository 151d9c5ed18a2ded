"""Policy gradients on environments: steps per second beside Stable-Baselines3, and the returns that are reached.

Both sides train with the same numbers, those of rl-baselines3-zoo, on one thread, taking turns; the environments' own
cost is part of it. Needs the extra `bench`. --quick: one seed and fewer steps, speed and the returns on CartPole only.
--long: Hopper-v5 for a million steps as well (half an hour), as a grid of resumable cells.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import Cell, Figure, main, median, run_cells

from lineal.environments.control.opening import open_environment
from lineal.recipes import environment_loop
from lineal.recipes.config import EnvironmentConfig, to_json, with_options
from lineal.recipes.environment_presets import preset
from lineal.train.control.evaluate import run_episodes
from lineal.train.metrics import read_lines
from lineal.train.run import Run

SEEDS = (0, 1, 2)
SPEED = (("ppo", "CartPole-v1", 3.0), ("trpo", "CartPole-v1", 2.5), ("ppo", "Hopper-v5", 1.5))
"""Algorithm, environment, and how many times the peer's steps per second are asked for."""
RETURNS = (
    ("trpo", "CartPole-v1", 50_000, 475),
    ("ppo", "CartPole-v1", 50_000, 475),
    ("ppo-kl", "CartPole-v1", 50_000, 475),
    ("reinforce", "CartPole-v1", 150_000, 475),
    ("ppo", "Pendulum-v1", 100_000, -250),
    ("trpo", "Pendulum-v1", 100_000, -250),
)
LONG = (
    (
        "ppo", "Hopper-v5", 1_000_000, 2300,
        {"--preset": "plain", "--envs": "1", "--rollout-steps": "2048", "--schedule": "linear"},
    ),
    (
        "trpo", "Hopper-v5", 1_000_000, 3000,
        {
            "--preset": "plain", "--envs": "1", "--rollout-steps": "1024", "--trace-decay": "0.97",
            "--cg-iterations": "20", "--critic-epochs": "5", "--critic-minibatches": "8",
        },
    ),
)  # fmt: skip
"""With options, chosen on other seeds; observations and rewards are normalised. rl-zoo's numbers are for `SPEED`."""


@dataclass(frozen=True)
class Trained:
    """Steps per second of training, and the mean return of 20 episodes by the most probable actions."""

    speed: float
    reached: float


def ours(algorithm: str, env: str, steps: int, seed: int) -> Trained:
    """One run of the library's own loop, its logs included."""
    _, numbers = preset(algorithm, env)
    chosen = {**numbers, "algorithm": algorithm, "env": env, "env_steps": steps, "seed": seed, "quiet": True}
    config = with_options(EnvironmentConfig(), **chosen)
    with tempfile.TemporaryDirectory() as folder:
        record = {"recipe": algorithm, "options": to_json(config)}
        with Run.create(Path(folder) / "run", record) as run:
            loop = environment_loop.open_loop(config, run)
            begun, step = time.perf_counter(), 0
            while loop.going.env_steps < steps:
                step += 1
                run.log(step, environment_loop.train_step(loop, step))
            spent = time.perf_counter() - begun
        found = run_episodes(loop.parts.policy, open_environment(env, 4), 20, seed)
        loop.parts.environment.close()
    return Trained(loop.going.env_steps / spent, found.mean)


def theirs(algorithm: str, env: str, steps: int, seed: int) -> Trained:
    """One run of Stable-Baselines3 with the same numbers."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    _, numbers = preset(algorithm, env)
    normalised = bool(numbers.get("normalise_observations"))
    many: Any = make_vec_env(env, n_envs=numbers["envs"], seed=seed)
    if normalised:
        many = VecNormalize(many, gamma=numbers["discount"])
    model = _peer(algorithm, numbers, many, seed)
    begun = time.perf_counter()
    model.learn(steps)
    spent = time.perf_counter() - begun
    if normalised:
        many.training, many.norm_reward = False, False
    reached, _ = evaluate_policy(model, many, n_eval_episodes=20, deterministic=True)
    taken = model.num_timesteps
    many.close()
    return Trained(taken / spent, float(reached))  # type: ignore[arg-type]


def _peer(algorithm: str, numbers: dict[str, Any], many: Any, seed: int) -> Any:
    batch = numbers["envs"] * numbers["rollout_steps"]
    shape: dict[str, Any] = {}
    if "hidden" in numbers:
        wide = list(numbers["hidden"])
        shape = {
            "net_arch": {"pi": wide, "vf": wide},
            "activation_fn": torch.nn.ReLU if numbers["activation"] == "relu" else torch.nn.Tanh,
            "ortho_init": numbers["orthogonal"],
            "log_std_init": numbers["log_std"],
        }
    common = {
        "n_steps": numbers["rollout_steps"],
        "gamma": numbers["discount"],
        "gae_lambda": numbers["trace_decay"],
        "policy_kwargs": shape,
        "device": "cpu",
        "seed": seed,
    }
    rate = numbers["learning_rate"]
    if algorithm == "trpo":
        from sb3_contrib import TRPO

        return TRPO(
            "MlpPolicy",
            many,
            learning_rate=rate,
            batch_size=batch // numbers["critic_minibatches"],
            cg_max_steps=numbers["cg_iterations"],
            cg_damping=numbers["damping"],
            line_search_shrinking_factor=numbers["backtrack"],
            n_critic_updates=numbers["critic_epochs"],
            target_kl=numbers["max_kl"],
            **common,
        )
    from stable_baselines3 import PPO

    clip = numbers["clip"]
    linear = numbers.get("schedule") == "linear"
    return PPO(
        "MlpPolicy",
        many,
        learning_rate=(lambda left: rate * left) if linear else rate,
        clip_range=(lambda left: clip * left) if linear else clip,
        batch_size=batch // numbers["minibatches"],
        n_epochs=numbers["epochs"],
        ent_coef=numbers.get("entropy", 0.0),
        vf_coef=numbers["value_coefficient"],
        max_grad_norm=numbers["max_grad_norm"],
        **common,
    )


def speed(algorithm: str, env: str, bar: float, steps: int, seeds: tuple[int, ...]) -> Iterator[Figure]:
    """Steps per second, the two sides taking turns."""
    for train in (ours, theirs):
        # What is imported and compiled at the first step is no part of the rate.
        train(algorithm, env, 1, 99)
    runs = [(ours(algorithm, env, steps, seed), theirs(algorithm, env, steps, seed)) for seed in seeds]
    us, them = (median(run[i].speed for run in runs) for i in (0, 1))
    ratio = median(run[0].speed / run[1].speed for run in runs)
    reached = {name: [round(run[i].reached, 1) for run in runs] for i, name in enumerate(("ours", "peer"))}
    yield Figure(
        f"{algorithm} on {env}: speed",
        us,
        them,
        "steps/s",
        f">= {bar:g} times Stable-Baselines3",
        ratio >= bar,
        ratio,
        seeds,
        {"steps": steps, "returns": reached, "ratios": [round(a.speed / b.speed, 2) for a, b in runs]},
    )


def returns(algorithm: str, env: str, steps: int, bar: float, seeds: tuple[int, ...]) -> Iterator[Figure]:
    """The return after a budget of steps."""
    found = [ours(algorithm, env, steps, seed) for seed in seeds]
    reached, speeds = [run.reached for run in found], [round(run.speed) for run in found]
    yield _returned(algorithm, env, steps, bar, seeds, reached, {"speeds": speeds})


def _returned(
    algorithm: str,
    env: str,
    steps: int,
    bar: float,
    seeds: tuple[int, ...],
    reached: list[float],
    more: dict[str, Any],
) -> Figure:
    middle, details = median(reached), {"returns": [round(x, 1) for x in reached], **more}
    unit = f"return after {steps:,} steps, median"
    name = f"{algorithm} on {env}: return"
    return Figure(name, middle, None, unit, f">= {bar:g}", middle >= bar, None, seeds, details)


def long_returns(
    algorithm: str, env: str, steps: int, bar: float, chosen: dict[str, str], arguments: argparse.Namespace
) -> Iterator[Figure]:
    """The same, of runs long enough to be cells."""
    cells = [
        Cell(
            arguments.cells / f"{algorithm}-{env}-{seed}",
            algorithm,
            {"--env": env, "--env-steps": str(steps), "--seed": str(seed), **chosen},
            ("--normalise-observations", "--normalise-rewards"),
        )
        for seed in SEEDS
    ]
    ends = [list(read_lines(folder / "metrics.jsonl")) for folder in run_cells(cells, arguments.jobs)]
    reached = [next(line["eval/return"] for line in lines if line.get("eval/final")) for lines in ends]
    last = [next(line["return_100"] for line in reversed(lines) if "return_100" in line) for lines in ends]
    yield _returned(algorithm, env, steps, bar, SEEDS, reached, {"while learning, last 100 episodes": last})


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Every figure."""
    torch.set_num_threads(1)
    seeds = SEEDS[:1] if arguments.quick else SEEDS
    for algorithm, env, bar in SPEED:
        if arguments.only not in f"{algorithm} on {env}: speed":
            continue
        yield from speed(algorithm, env, bar, 10_000 if arguments.quick else 50_000, seeds)
    for algorithm, env, steps, bar in RETURNS:
        wanted = env == "CartPole-v1" or not arguments.quick
        if wanted and arguments.only in f"{algorithm} on {env}: return":
            yield from returns(algorithm, env, steps, bar, seeds)
    for algorithm, env, steps, bar, chosen in LONG if arguments.long else ():
        if arguments.only in f"{algorithm} on {env}: return":
            yield from long_returns(algorithm, env, steps, bar, chosen, arguments)


def options(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--quick", action="store_true", help="one seed, fewer steps")
    parser.add_argument("--only", default="", help="only the figures whose name holds this text")
    parser.add_argument("--long", action="store_true", help="Hopper-v5 for a million steps as well")
    parser.add_argument("--jobs", type=int, default=1, help="cells of --long at a time")
    parser.add_argument("--cells", type=Path, default=Path("benchmarks/cells/control"), help="where they go")


if __name__ == "__main__":
    raise SystemExit(main("control", measure, options))
