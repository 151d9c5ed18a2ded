"""The half of a run that learns the reward: collects clips, asks about pairs of them, fits the ensemble to the answers.

One `Teaching` is all of its state; the functions here move it on. Given a deterministic labeller and the synchronous fit
everything is a function of the seed, so a run that was killed and resumed asks, hears and learns the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineal.environments.preferences.choosing import PairSampler
from lineal.environments.preferences.records import Label, Pair, Segment
from lineal.environments.preferences.teachers import Labeller
from lineal.environments.preferences.wrappers import LearnedReward
from lineal.models.pixel_reward import FastPixelReward
from lineal.models.reward import FastReward
from lineal.train import files
from lineal.train.console import warn
from lineal.train.preferences.comparisons import Comparisons, compare
from lineal.train.preferences.diagnostics import brier, calibration_error, drift, pearson, spearman
from lineal.train.preferences.fit import FitOptions, Fitted, fit, held_out_probability, overfits
from lineal.train.preferences.labels import Answers, LabelStore, PairWriter
from lineal.train.preferences.options import PreferenceOptions
from lineal.train.preferences.schedule import LabelSchedule
from lineal.train.preferences.segments import SegmentStore

FOLDER = "preferences"
Metrics = dict[str, float]
Version = FastReward | FastPixelReward
"""The reward as it was after one fit."""


@dataclass
class Teaching:
    """What the reward is learned from and with.

    world: the environment with the learned reward. answers: the store, which this process writes only when `labeller`
    answers at once; None leaves it to the page. recent: the newest segments. asked: pairs, in order. used: how many
    answers the last fit saw. pending: a fit under way in the pool's thread.
    """

    options: PreferenceOptions
    schedule: LabelSchedule
    seed: int
    world: LearnedReward
    fitted: Fitted
    answers: Answers
    writer: PairWriter
    segments: SegmentStore
    labeller: Labeller | None
    pool: ThreadPoolExecutor | None = None
    recent: list[Segment] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    used: int = -1
    version: Version | None = None
    pending: Future[tuple[Version, Metrics]] | None = None
    warned: set[str] = field(default_factory=set)

    def warn_once(self, about: str, message: str) -> None:
        """Say it once in a run."""
        if about not in self.warned:
            self.warned.add(about)
            warn(message)

    def close(self) -> None:
        """Let the fit under way end, close the files, release the store."""
        if self.pool is not None:
            self.pool.shutdown()
        self.writer.close()
        if isinstance(self.answers, LabelStore):
            self.answers.close()


def fitting(options: PreferenceOptions, pictures: bool = False) -> FitOptions:
    """How the ensemble is fitted; to pictures by 16 pairs at a time, as in the paper's appendix A.2."""
    return FitOptions(options.error_rate, options.reward_learning_rate, batch=16 if pictures else 64)


def write_about(folder: Path, env: str, options: PreferenceOptions) -> None:
    """What the page needs to know of the run."""
    about = {"env": env, "instruction": options.instruction, "fps": options.fps, "labels": options.labels}
    files.make_folder(folder)
    files.replace_file(folder / "about.json", json.dumps(about, indent=2).encode() + b"\n")


def gather(teaching: Teaching) -> Metrics:
    """Take in what was done since the last call; how well the learned reward fits the true one on these new steps."""
    if teaching.world.ended:
        teaching.warn_once(
            "horizon",
            f"{teaching.world.ended} episodes ended early: their length tells the learner how well it did, which nobody "
            "preferred. Leave --terminations off to make all episodes equally long.",
        )
    new, returns = teaching.world.take(teaching.options.segment)
    teaching.recent = [*teaching.recent, *new][-teaching.options.recent :]
    metrics: Metrics = {}
    if returns:
        metrics["true_return"] = float(np.mean(returns))
    if new and teaching.version is not None:
        true_N = np.concatenate([segment.reward_T for segment in new])
        seen_N = teaching.version(np.concatenate([teaching.world.features(segment) for segment in new]))
        metrics["reward_model/pearson"] = pearson(seen_N, true_N)
        metrics["reward_model/spearman"] = spearman(seen_N, true_N)
    return metrics


def ask(teaching: Teaching, due: int, env_steps: int) -> list[Pair]:
    """Ask until `due` questions were asked in all; the clips they speak of are on the disk before they are asked."""
    count = due - len(teaching.asked)
    if count <= 0:
        return []
    options, version = teaching.options, teaching.version

    def scores(chosen: Sequence[Segment]) -> NDArray[np.float64]:
        assert version is not None
        steps = np.concatenate([teaching.world.features(segment) for segment in chosen])
        ends = np.cumsum([len(segment) for segment in chosen])[:-1]
        return np.stack([x.sum(1, dtype=np.float64) for x in np.split(version.raw(steps), ends, axis=1)], 1)

    pairs = PairSampler(options.pairs, options.candidates)(
        teaching.recent,
        count,
        (teaching.seed, len(teaching.asked)),
        scores=None if version is None else scores,
        asked=set(teaching.asked),
        step=env_steps,
    )
    if len(pairs) < count:
        teaching.warn_once(
            "pairs", f"{len(teaching.recent)} clips give only {len(pairs)} new pairs of {count} wanted."
        )
    by_id = {segment.id: segment for segment in teaching.recent}
    teaching.segments.add(by_id[side] for pair in pairs for side in (pair.first, pair.second))
    teaching.writer.add(pairs)
    teaching.asked += [pair.id for pair in pairs]
    return pairs


def answer(teaching: Teaching) -> None:
    """Let the labeller answer what it has not answered yet; the page's answers are read instead."""
    teaching.answers.refresh()
    if teaching.labeller is None:
        return
    assert isinstance(teaching.answers, LabelStore)
    done = {label.pair for label in teaching.answers.labels if label.labeller == teaching.labeller.name}
    for name in teaching.asked:
        if name not in done:
            pair = teaching.answers.pairs[name]
            teaching.answers.add(teaching.labeller(pair, teaching.segments))


def labels_of(teaching: Teaching) -> list[Label]:
    """The answers to learn from: of a labeller that answers at once, those to what this run has asked so far."""
    if teaching.labeller is None:
        return teaching.answers.labels
    place = {name: i for i, name in enumerate(teaching.asked)}
    return sorted((x for x in teaching.answers.labels if x.pair in place), key=lambda x: place[x.pair])


def learn(teaching: Teaching) -> Metrics:
    """Fit the ensemble where answers have arrived, and let the policy's environment pay the new reward.

    Asynchronously: start a fit in the thread, and take over the one that has ended.
    """
    metrics = _take_over(teaching, wait=False)
    labels = labels_of(teaching)
    if teaching.pending is not None or len(labels) == teaching.used:
        return metrics
    pairs, members = teaching.answers.pairs, teaching.fitted.ensemble.members
    data = compare(labels, pairs, teaching.segments, teaching.world.features, members, teaching.seed)
    if data is None or not teaching.recent:
        return metrics
    teaching.used = len(labels)
    steps = np.concatenate([teaching.world.features(segment) for segment in teaching.recent])
    job = _job(teaching, data, torch.from_numpy(steps))
    if teaching.pool is None:
        return metrics | _install(teaching, *job())
    teaching.pending = teaching.pool.submit(job)
    return metrics


def settle(teaching: Teaching) -> Metrics:
    """Wait for a fit under way and take it over: before a checkpoint, and at the end."""
    return _take_over(teaching, wait=True)


def _take_over(teaching: Teaching, wait: bool) -> Metrics:
    if teaching.pending is None or not (wait or teaching.pending.done()):
        return {}
    job, teaching.pending = teaching.pending, None
    return _install(teaching, *job.result())


def _install(teaching: Teaching, version: Version, metrics: Metrics) -> Metrics:
    teaching.version = teaching.world.reward = version
    if metrics.pop("overfits"):
        teaching.warn_once(
            "overfits",
            "the reward model knows its labels by heart and is hardly better than chance on others: ask for more labels, "
            "or look whether they contradict each other.",
        )
    return metrics


def _job(teaching: Teaching, data: Comparisons, steps: Tensor) -> Callable[[], tuple[Version, Metrics]]:
    fitted, options, seed = teaching.fitted, fitting(teaching.options, teaching.world.pictures), teaching.seed
    count = len(data.preference_N)
    epochs = max(1, round(teaching.options.reward_updates / -(-count // options.batch)))

    def job() -> tuple[Version, Metrics]:
        ensemble = fitted.ensemble
        if fitted.epochs == 0:
            ensemble.standardise_on(steps)
        before = ensemble.reward(steps).numpy()
        judgement = fit(fitted, data, options, epochs, seed)
        ensemble.normalise_on(steps)
        after = ensemble.reward(steps).numpy()
        probability = held_out_probability(ensemble, data, options.error_rate).numpy()
        metrics = judgement.metrics() | {
            "reward_model/l2": float(fitted.l2_M.mean()),
            "reward_model/brier": brier(probability, data.preference_N.numpy()),
            "reward_model/calibration_error": calibration_error(probability, data.preference_N.numpy()),
            "reward_model/drift": drift(before, after),
            "overfits": float(overfits(judgement)),
        }
        return ensemble.fast(), metrics

    return job


def saved(teaching: Teaching) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint keeps: the ensemble, the recent clips, what was asked."""
    tensors, state = teaching.fitted.tensors()
    tensors = {f"reward/{name}": x for name, x in tensors.items()}
    recent = [segment.arrays() for segment in teaching.recent]
    # Clips of two kinds may be among them: pictures in one run of frames, or broken by an end.
    kinds = list(dict.fromkeys(tuple(arrays) for arrays in recent))
    for kind, names in enumerate(kinds):
        for name in names:
            stacked = np.stack([arrays[name] for arrays in recent if tuple(arrays) == names])
            tensors[f"recent/{kind}/{name}"] = torch.from_numpy(stacked)
    order = [kinds.index(tuple(arrays)) for arrays in recent]
    kept = {"fitted": state, "asked": teaching.asked, "used": teaching.used, "recent": order}
    return tensors, {"teaching": kept}


def restore(teaching: Teaching, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Go on from what `saved` gave."""
    saved_state = state["teaching"]
    parts = {name.removeprefix("reward/"): x for name, x in tensors.items() if name.startswith("reward/")}
    teaching.fitted.load(parts, saved_state["fitted"])
    teaching.recent = _recent(tensors, saved_state["recent"])
    # A person's answers came in an order of their own: whatever was asked stays asked.
    teaching.asked = (
        list(saved_state["asked"]) if teaching.labeller is not None else list(teaching.writer.pairs)
    )
    teaching.used = saved_state["used"]
    if teaching.fitted.epochs:
        teaching.version = teaching.world.reward = teaching.fitted.ensemble.fast()


def _recent(tensors: Mapping[str, Tensor], order: Sequence[int]) -> list[Segment]:
    """The newest segments, of whichever kind each is."""
    seen, found = dict.fromkeys(order, 0), []
    for kind in order:
        prefix = f"recent/{kind}/"
        arrays = {n.removeprefix(prefix): x.numpy() for n, x in tensors.items() if n.startswith(prefix)}
        found.append(Segment.from_arrays({name: x[seen[kind]] for name, x in arrays.items()}))
        seen[kind] += 1
    return found
