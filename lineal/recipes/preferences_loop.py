"""The loop of learning from preferences: act, learn from the predicted reward, ask, hear, fit the reward, again."""

from __future__ import annotations

import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from lineal.environments.control.images import image_shape
from lineal.environments.control.opening import open_environment
from lineal.environments.control.protocol import VectorEnvironment
from lineal.environments.control.spaces import Box
from lineal.environments.preferences.teachers import FunctionLabeller, Labeller, Teacher
from lineal.environments.preferences.wrappers import FixedHorizon, LearnedReward, choices_of, time_limit
from lineal.errors import UsageError
from lineal.models.pixel_reward import PixelReward, PixelRewardConfig
from lineal.models.reward import Ensemble, RewardConfig, RewardEnsemble
from lineal.recipes.environment_loop import EnvironmentLoop, open_loop, train_step
from lineal.recipes.environment_loop import plan as plan_policy
from lineal.recipes.preferences import PreferencesConfig
from lineal.train.checkpoint import Checkpoint
from lineal.train.console import note
from lineal.train.control.evaluate import Episodes, run_episodes
from lineal.train.control.files import save_policy
from lineal.train.control.seen import Features
from lineal.train.control.session import save_progress
from lineal.train.preferences.fit import Fitted
from lineal.train.preferences.labels import Answers, LabelStore, PairWriter
from lineal.train.preferences.options import PreferenceOptions
from lineal.train.preferences.schedule import LabelSchedule
from lineal.train.preferences.segments import SegmentStore
from lineal.train.preferences.teaching import (
    FOLDER,
    Teaching,
    answer,
    ask,
    fitting,
    gather,
    learn,
    restore,
    saved,
    settle,
    write_about,
)
from lineal.train.progress import Progress
from lineal.train.run import Run

SHOWN = ("true_return", "labels", "reward_model/validation_accuracy", "reward_model/pearson", "kl")
PAUSE = 0.5
"""Seconds between two looks at what the person has answered."""


def plan(config: PreferencesConfig) -> list[str]:
    """What a run would do, without doing it."""
    options = config.preferences
    schedule = LabelSchedule.of(options, config.run.env_steps)
    return [
        f"labels: {options.labels} from {options.labeller}, {schedule.first} of them before training; "
        f"{options.labels / config.run.env_steps:.2%} of {config.run.env_steps:,} interactions",
        f"clips of {options.segment} steps, pairs by {options.pairs}; reward: {options.members} networks "
        f"{' -> '.join(map(str, options.reward_hidden))} -> 1",
        *plan_policy(config),
    ]


@dataclass
class PreferenceLoop:
    """A run in progress: the policy's loop, and what learns its reward."""

    config: PreferencesConfig
    run: Run
    policy: EnvironmentLoop
    teaching: Teaching


def run(config: PreferencesConfig, run: Run) -> None:
    """Train a policy on a reward learned from preferences; resumes by itself when the run folder holds a checkpoint."""
    loop = open_preferences(config, run)
    try:
        if loop.policy.done == 0:
            _before_training(loop)
        _train(loop)
        _finish(loop)
    finally:
        loop.teaching.close()
        loop.policy.parts.environment.close()


def open_preferences(config: PreferencesConfig, run: Run) -> PreferenceLoop:
    """Build everything, and take up the newest checkpoint when there is one."""
    options, teachings = config.preferences, []

    def wrap(environment: VectorEnvironment) -> VectorEnvironment:
        if not options.terminations:
            environment = FixedHorizon(
                environment, horizon_of(environment, options), options.termination_reward
            )
        pictures = config.policy.network != "perceptron" and image_shape(environment.observation) is not None
        teachings.append(open_teaching(config, run, LearnedReward(environment, pictures=pictures)))
        return teachings[0].world

    def take(found: Checkpoint) -> None:
        restore(teachings[0], found.tensors, found.state)

    policy = open_loop(config, run, wrap, take)
    return PreferenceLoop(config, run, policy, teachings[0])


def horizon_of(environment: VectorEnvironment, options: PreferenceOptions) -> int:
    """The length of every episode; UsageError where the environment has no time limit and none is given."""
    horizon = options.horizon or time_limit(environment)
    if not horizon:
        raise UsageError(
            f"{environment.name} has no time limit: say how long an episode is, as in --horizon 1000."
        )
    if horizon < options.segment:
        raise UsageError(
            f"an episode of {horizon} steps holds no clip of --segment {options.segment}: make it shorter."
        )
    return horizon


def open_teaching(config: PreferencesConfig, run: Run, world: LearnedReward) -> Teaching:
    """What learns the reward, with its store in the run's folder."""
    options, folder, seed = config.preferences, run.path / FOLDER, config.run.seed
    write_about(folder, config.environment.env, options)
    labeller = labeller_of(options, seed)
    return Teaching(
        options=options,
        schedule=LabelSchedule.of(options, config.run.env_steps),
        seed=seed,
        world=world,
        fitted=Fitted.start(ensemble_for(world, options, seed), fitting(options, world.pictures)),
        answers=Answers(folder) if labeller is None else LabelStore(folder),
        writer=PairWriter(folder),
        segments=SegmentStore(folder),
        labeller=labeller,
        pool=ThreadPoolExecutor(1) if options.asynchronous else None,
    )


def ensemble_for(world: LearnedReward, options: PreferenceOptions, seed: int) -> Ensemble:
    """The reward that fits what the environment shows: of pictures alone, else of observation and action."""
    image = image_shape(world.observation) if world.pictures else None
    if image is not None:
        hidden = options.reward_hidden[-1]
        return PixelReward(PixelRewardConfig(image, hidden=hidden, members=options.members), seed)
    action = world.action
    acted = action.size if isinstance(action, Box) else sum(choices_of(action))
    shape = RewardConfig(Features(world).count + acted, options.reward_hidden, options.members)
    return RewardEnsemble(shape, seed)


def labeller_of(options: PreferenceOptions, seed: int) -> Labeller | None:
    """Who answers at once; None for the page, where a person answers in time."""
    if options.labeller == "web":
        return None
    if options.labeller == "synthetic":
        names = ("temperature", "mistake", "equal_margin", "skip_below", "myopia")
        return Teacher(**{name: getattr(options, name) for name in names}, seed=seed)
    path, _, name = options.labeller.rpartition(":")
    found: Any = None
    try:
        found = runpy.run_path(path)[name]
    except FileNotFoundError as error:
        raise UsageError(f"--labeller {options.labeller}: there is no file {path}.") from error
    except Exception as error:
        raise UsageError(f"--labeller {options.labeller}: {type(error).__name__}: {error}.") from error
    if not callable(found):
        raise UsageError(f"--labeller {options.labeller}: {name} is no function of (first, second, prompt).")
    return FunctionLabeller(cast(Any, found), options.labeller)


def _before_training(loop: PreferenceLoop) -> None:
    """The first labels, about a policy that has learned nothing; then the first fit."""
    teaching, parts = loop.teaching, loop.policy.parts
    wanted, turn = min(teaching.options.recent, max(2, teaching.schedule.first)), 0
    while len(teaching.recent) < wanted:
        # Numbers that no later iteration uses, so that its randomness is its own.
        seen = parts.collector.collect(
            2**40 + turn, loop.config.algorithm.rollout_steps, parts.whole_episodes
        )
        loop.policy.going.env_steps += seen.env_steps
        turn += 1
        gather(teaching)
        if turn > 1000 and not teaching.recent:
            raise UsageError(
                "no episode is as long as a clip: make --segment shorter, or leave --terminations off."
            )
    ask(teaching, teaching.schedule.first, 0)
    _hear(loop, waiting_for=len(teaching.asked))
    loop.run.log(
        0,
        {
            "env_steps": loop.policy.going.env_steps,
            **_counts(teaching),
            **learn(teaching),
            **settle(teaching),
        },
    )


def _hear(loop: PreferenceLoop, waiting_for: int) -> None:
    """Take in answers; with a person at the page, wait until that many questions are answered."""
    teaching, said = loop.teaching, False
    while True:
        answer(teaching)
        answered = len(teaching.answers.answered)
        if teaching.labeller is not None or answered >= waiting_for:
            return
        if not said:
            note(f"waiting for answers ({answered} of {waiting_for}): lineal label {loop.run.path}")
            said = True
        if loop.run.stop_requested:
            if loop.policy.done:
                _save(loop)
            loop.run.exit()
        time.sleep(PAUSE)


def _counts(teaching: Teaching) -> dict[str, Any]:
    counts = {"labels": len(teaching.answers.answered & set(teaching.asked)), "asked": len(teaching.asked)}
    same, repeated = teaching.answers.agreement()
    return counts | ({"agreement": same / repeated} if repeated else {})


def _train(loop: PreferenceLoop) -> None:
    config, policy = loop.config, loop.policy
    going, live = policy.going, False if loop.config.run.quiet else None
    total = config.run.env_steps
    with Progress(total, SHOWN, start=going.env_steps, live=live, seconds=config.run.time_limit) as progress:
        started = time.monotonic()
        while not going.finished:
            step = policy.done + 1
            metrics = preference_step(loop, step)
            late = 0 < config.run.time_limit < time.monotonic() - started
            enough = config.run.steps is None and going.env_steps >= total
            going.finished = late or enough or step == config.run.steps
            if config.run.eval_every and step % config.run.eval_every == 0 and not going.finished:
                metrics |= evaluate(loop).metrics()
            loop.run.log(step, metrics)
            if not config.run.quiet:
                progress.update(min(going.env_steps, total), metrics)
            policy.done = step
            if going.finished or step % config.run.save_every == 0 or loop.run.stop_requested:
                _save(loop)
            if loop.run.stop_requested and not going.finished:
                loop.run.exit()


def preference_step(loop: PreferenceLoop, step: int) -> dict[str, Any]:
    """One iteration: the policy learns from the predicted reward, then the reward from what people said of it."""
    teaching = loop.teaching
    metrics = train_step(loop.policy, step)
    # What the loop calls return is what the policy was paid: the predicted reward.
    for name in ("return", "return_100"):
        if name in metrics:
            metrics[f"predicted_{name}"] = metrics.pop(name)
    metrics |= gather(teaching)
    ask(teaching, teaching.schedule.due(loop.policy.going.env_steps), loop.policy.going.env_steps)
    _hear(loop, waiting_for=len(teaching.asked) - teaching.options.backlog)
    return metrics | learn(teaching) | _counts(teaching)


def _save(loop: PreferenceLoop) -> None:
    settle(loop.teaching)
    tensors, state = saved(loop.teaching)
    policy = loop.policy
    save_progress(loop.run, policy.done, policy.parts, policy.going, tensors=tensors, state=state)


def evaluate(loop: PreferenceLoop) -> Episodes:
    """Episodes of the environment as it is, by its own reward and with its own ends."""
    where, wanted = loop.config.environment, loop.config.run.eval_episodes
    shown = where.preparation()
    copies = open_environment(where.env, min(8, wanted), own=where.own, preparation=shown)
    try:
        return run_episodes(loop.policy.parts.policy, copies, wanted, loop.config.run.seed)
    finally:
        copies.close()


def _finish(loop: PreferenceLoop) -> None:
    if loop.run.final.exists():
        return
    found, policy, teaching = evaluate(loop), loop.policy, loop.teaching
    steps, labels = policy.going.env_steps, len(teaching.answers.answered)
    loop.run.log(policy.done, found.metrics() | {"eval/final": True, "env_steps": steps, **_counts(teaching)})
    line = f"{found.line()} by the true reward, from {labels} labels ({labels / steps:.2%} of {steps:,} interactions)"
    note(f"step {policy.done}: {line}")
    env = loop.config.environment.env
    card = f"---\ntags: [lineal, reinforcement-learning, preferences, {env}]\n---\n# {env}, taught by preferences\n\n{line}.\n"
    with loop.run.final_folder() as folder:
        save_policy(
            folder, policy.parts.policy, policy.parts.environment, card, loop.config.environment.preparation()
        )
        teaching.fitted.ensemble.save(folder / "reward")
