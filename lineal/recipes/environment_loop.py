"""The loop of every policy-gradient method on environments: collect, weigh, step. The algorithm is a value it is given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from lineal.environments.control.opening import open_environment
from lineal.errors import EnvironmentFailure
from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    Batch,
    initial_state,
    needs,
    prepare,
    statistics,
    summarise,
    update_state,
)
from lineal.objectives.surrogate import Clip
from lineal.optim.groups import set_learning_rate
from lineal.optim.schedules import Schedule, make_schedule
from lineal.train.checkpoint import Checkpoint
from lineal.train.console import note
from lineal.train.control.collect import Experience
from lineal.train.control.evaluate import Episodes, run_episodes
from lineal.train.control.files import save_policy
from lineal.train.control.natural import critic_update, natural_update
from lineal.train.control.outline import layers, mebibytes
from lineal.train.control.parts import EnvironmentParts, Going, Wrap, build_environment, read_step_algorithm
from lineal.train.control.session import restore_policy, save_progress
from lineal.train.control.update import StepProblem, adam_update
from lineal.train.environment_options import EnvironmentConfig
from lineal.train.guard import Guard
from lineal.train.metrics import to_host
from lineal.train.progress import Progress
from lineal.train.run import Run

SHOWN = ("return_100", "env_steps", "entropy", "kl", "explained_variance")
EVALUATED = 8
"""Copies of the environment that an evaluation steps together, at most."""


def iterations(config: EnvironmentConfig, whole: bool) -> int:
    """How many iterations a run takes at most; with whole episodes env_steps decides, at one step per copy at least."""
    if config.run.steps is not None:
        return config.run.steps
    each = config.environment.envs * (1 if whole else config.algorithm.rollout_steps)
    return -(-config.run.env_steps // each)


def plan(config: EnvironmentConfig) -> list[str]:
    """What a run would do, without doing it."""
    parts = build_environment(config)
    algorithm, policy, where = parts.algorithm, parts.policy, config.environment
    parts.environment.close()
    used = "one whole episode" if parts.whole_episodes else f"{config.algorithm.rollout_steps} steps"
    return [
        str(algorithm),
        f"environment {where.env}: shows {parts.environment.observation}, takes {parts.environment.action}",
        f"policy {layers(policy.config)}: {policy.theta.numel():,} parameters with the critic",
        f"an iteration: {where.envs} copies x {used}, {algorithm.optimiser_steps} optimiser steps",
        f"memory about {mebibytes(policy, where.envs * config.algorithm.rollout_steps):.1f} MiB beside torch's own",
    ]


@dataclass
class EnvironmentLoop:
    """A run in progress."""

    config: EnvironmentConfig
    run: Run
    parts: EnvironmentParts
    going: Going
    guard: Guard
    schedule: Schedule
    clip: Schedule
    total: int
    done: int


def open_loop(
    config: EnvironmentConfig,
    run: Run,
    wrap: Wrap | None = None,
    take: Callable[[Checkpoint], None] | None = None,
) -> EnvironmentLoop:
    """Build everything, and take up the newest checkpoint when there is one.

    wrap: puts something around the environment. take: gets the checkpoint too.
    """
    parts = build_environment(config, wrap)
    for line in str(parts.algorithm).splitlines():
        note(line)
    total = iterations(config, parts.whole_episodes)
    done, saved = restore_policy(run, parts, take)
    going = Going.from_json(saved["going"]) if saved else Going(initial_state(parts.algorithm))
    if saved:
        parts.collector.resume(saved["collector"])
    else:
        parts.collector.restart(0)
        if parts.environment.get_state() is None:
            note(f"{config.environment.env} is Gymnasium's: at each checkpoint its copies begin new episodes")
    # Only the steps of whole episodes are unknown before; schedules then follow env_steps.
    span = total if not parts.whole_episodes else max(1, config.run.env_steps)
    guard = Guard(run.refused, in_a_row=going.refused)
    rate, clip = (
        make_schedule(name, span) for name in (config.algorithm.schedule, config.algorithm.clip_schedule)
    )
    return EnvironmentLoop(config, run, parts, going, guard, rate, clip, total, done)


def run(config: EnvironmentConfig, run: Run) -> None:
    """Train a policy on an environment; resumes by itself when the run folder holds a checkpoint."""
    loop = open_loop(config, run)
    try:
        _train(loop)
    finally:
        loop.parts.environment.close()


def _train(loop: EnvironmentLoop) -> None:
    config, going = loop.config, loop.going
    live = False if config.run.quiet else None
    total = loop.total if not loop.parts.whole_episodes or config.run.steps else config.run.env_steps
    by_iteration = total == loop.total
    begun = loop.done if by_iteration else going.env_steps
    show = Progress(total, SHOWN, start=begun, live=live, seconds=config.run.time_limit)
    with show as progress:
        started = time.monotonic()
        while loop.done < loop.total and not going.finished:
            step = loop.done + 1
            try:
                metrics = train_step(loop, step)
            except EnvironmentFailure:
                # What was learned so far is worth more than the failed environment's state.
                if loop.done:
                    save_progress(loop.run, loop.done, loop.parts, going, renewed=True)
                raise
            spent = time.monotonic() - started
            late = 0 < config.run.time_limit < spent
            enough = config.run.steps is None and going.env_steps >= config.run.env_steps
            going.finished = late or enough or step == loop.total
            if config.run.eval_every and step % config.run.eval_every == 0 and not going.finished:
                metrics |= _evaluate(loop).metrics()
            loop.run.log(step, metrics)
            if not config.run.quiet:
                progress.update(step if by_iteration else min(going.env_steps, total), metrics)
            loop.done = step
            if going.finished or step % config.run.save_every == 0 or loop.run.stop_requested:
                save_progress(loop.run, step, loop.parts, going)
            if loop.run.stop_requested and not going.finished:
                loop.run.exit()
    _finish(loop)


def train_step(loop: EnvironmentLoop, step: int) -> dict[str, Any]:
    """Collect and learn: one iteration and its metrics; its times go to timing.jsonl."""
    parts, going, begun = loop.parts, loop.going, time.monotonic()
    at = going.env_steps if parts.whole_episodes else step - 1
    algorithm = _at(parts.algorithm, loop.clip(at))
    rate = _rate(parts.algorithm) * loop.schedule(at)
    set_learning_rate(parts.optimiser, rate)
    experience = parts.collector.collect(step, loop.config.algorithm.rollout_steps, parts.whole_episodes)
    sampled = time.monotonic()
    learnt = _learn(loop, algorithm, experience, step)
    going.env_steps += experience.env_steps
    going.refused = loop.guard.in_a_row
    spent = time.monotonic() - begun
    times = {
        "step_time": spent,
        "sample_time": sampled - begun,
        "env_steps_per_second": experience.env_steps / spent,
    }
    loop.run.time(step, times)
    metrics: dict[str, Any] = {"env_steps": going.env_steps}
    recent = going.note(experience.returns)
    if math.isfinite(recent):
        metrics["return_100"] = recent
    if experience.returns:
        metrics["return"] = math.fsum(experience.returns) / len(experience.returns)
        metrics["episode_length"] = math.fsum(experience.lengths) / len(experience.lengths)
    return {**metrics, "episodes": going.episodes, **learnt, "learning_rate": rate}


def _rate(algorithm: Algorithm) -> float:
    critic = needs(algorithm).critic
    if isinstance(algorithm.step, Adam):
        return algorithm.step.learning_rate
    return critic.learning_rate if critic else 0.0


def _at(algorithm: Algorithm, share: float) -> Algorithm:
    """The algorithm with its clip bounds at a share of theirs, where they follow a schedule."""
    surrogate = algorithm.surrogate
    if share == 1.0 or not isinstance(surrogate, Clip):
        return algorithm
    return replace(
        algorithm, surrogate=replace(surrogate, low=surrogate.low * share, high=surrogate.high * share)
    )


def _learn(
    loop: EnvironmentLoop, algorithm: Algorithm, experience: Experience, step: int
) -> dict[str, float]:
    """One update; moves the algorithm's state on, and returns the metrics."""
    parts, going, guard = loop.parts, loop.going, loop.guard
    rollout = experience.rollout
    batch = prepare(algorithm, rollout, going.state)
    problem = StepProblem(parts.policy, algorithm, going.state, experience, batch)
    extra: dict[str, float] = {}

    def accept(norm: float, part: Batch) -> bool:
        if math.isfinite(norm):
            guard.in_a_row = 0
            return True
        guard.watch(step, lambda: {name: x for name, x in vars(part).items() if isinstance(x, torch.Tensor)})
        return guard.finite(norm)

    if isinstance(algorithm.step, Adam):
        sums, norms = adam_update(problem, parts.optimiser, accept, step)
        extra["grad_norm"] = math.fsum(norms) / len(norms)
        batches = algorithm.step.minibatches
    else:
        sums, report = natural_update(problem)
        extra |= {f"trust_region/{k}": float(x) for k, x in vars(report).items() if not isinstance(x, str)}
        batches = 1
        extra["kl"] = report.kl if report.accepted else 0.0
        if needs(algorithm).critic is not None:
            fitted = critic_update(problem, parts.optimiser, loop.config.algorithm.critic_minibatches, step)
            extra["value_loss"] = float(fitted.pop("value_loss")) / loop.config.algorithm.critic_minibatches
            sums |= fitted
    numbers = to_host(sums)
    metrics = summarise(numbers, batches) | extra
    statistic = statistics(algorithm, rollout, going.state)
    if "measured_kl" in numbers:
        statistic["kl"] = metrics["measured_kl"] = numbers["measured_kl"]
    going.state = update_state(algorithm, going.state, statistic)
    if going.state.beta is not None:
        metrics["beta"] = going.state.beta
    return metrics


def _evaluate(loop: EnvironmentLoop) -> Episodes:
    """Episodes by the most probable actions, on copies of their own."""
    where, wanted = loop.config.environment, loop.config.run.eval_episodes
    shown = where.preparation()
    copies = open_environment(where.env, min(EVALUATED, wanted), own=where.own, preparation=shown)
    try:
        return run_episodes(loop.parts.policy, copies, wanted, loop.config.run.seed)
    finally:
        copies.close()


def _finish(loop: EnvironmentLoop) -> None:
    if loop.run.final.exists():
        return
    found = _evaluate(loop)
    loop.run.log(loop.done, found.metrics() | {"eval/final": True, "env_steps": loop.going.env_steps})
    note(f"step {loop.done}: {found.line()}")
    name, where = read_step_algorithm(loop.config).name, loop.config.environment.env
    card = (
        f"---\ntags: [lineal, reinforcement-learning, {name}, {where}]\n---\n# {where}, by `lineal run {name}`\n\n"
        f"{found.line()} by the most probable actions, after {loop.going.env_steps:,} steps.\n"
    )
    with loop.run.final_folder() as folder:
        shown = loop.config.environment.preparation()
        save_policy(folder, loop.parts.policy, loop.parts.environment, card, shown)
