"""Learning from preferences: the speed of fitting the reward beside `imitation`, and what labels teach an agent.

    python benchmarks/preferences.py [--quick] [--json] [--save]

`imitation` 1.0.1 needs old versions of Gymnasium and NumPy, so it runs in an environment of its own, whose Python
LINEAL_IMITATION names:

    python -m venv peer && peer/bin/pip install imitation==1.0.1 'numpy<2' 'setuptools<81'
    LINEAL_IMITATION=peer/bin/python python benchmarks/preferences.py

Without it the peer's column stays empty and that figure's bar is missed. --quick: Pendulum only, one seed, 700 labels. The
trainings are cells: finished ones are skipped, interrupted ones resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
import torch
from harness import Cell, Figure, median, run_cells

from lineal.environments.preferences.records import Pair, Segment
from lineal.environments.preferences.teachers import Teacher
from lineal.models.reward import RewardConfig, RewardEnsemble, step_features
from lineal.train.metrics import read_lines
from lineal.train.preferences.comparisons import Comparisons, compare
from lineal.train.preferences.fit import FitOptions, Fitted, fit

PAIRS, STEPS, SEEN, DONE, MEMBERS, ROUNDS, EPOCHS = 200, 50, 11, 3, 3, 7, 5


@dataclass(frozen=True)
class Task:
    """An environment, its budget, what random play returns there, how many labels, which shares of wrong ones, and which seeds.

    algorithm: of the policy, on the true reward and taught alike. barred: whether a bar is set here.
    """

    env: str
    steps: int
    random: float
    labels: tuple[int, ...]
    mistakes: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    algorithm: str = "trpo"
    barred: bool = True

    @property
    def name(self) -> str:
        """Of its cells: the paper's algorithm goes without saying."""
        return self.env if self.algorithm == "trpo" else f"{self.env}-{self.algorithm}"


FIVE = (0, 1, 2, 3, 4)
TASKS = (
    Task("Pendulum-v1", 100_000, -1200.0, (350, 700, 1400), (0.2,)),
    Task("HalfCheetah-v5", 300_000, -290.0, (700,), seeds=FIVE, algorithm="ppo"),
    # By the paper's algorithm two gaits are found by chance, with the true reward as well: printed beside it.
    Task("HalfCheetah-v5", 300_000, -290.0, (700,), seeds=FIVE, barred=False),
)
Plan = tuple[int, int, float]
"""Seed, labels (0: the true reward), share of wrong ones."""

PEER = """
import json, sys, time
import numpy as np, torch, gymnasium as gym
torch.set_num_threads(1)
from imitation.algorithms import preference_comparisons as pc
from imitation.data.types import TrajectoryWithRew
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util import logger
pairs, steps, seen, done, rounds = map(int, sys.argv[1:6])
epochs = int(sys.argv[7])
observation = gym.spaces.Box(-np.inf, np.inf, (seen,), np.float32)
action = gym.spaces.Box(-1, 1, (done,), np.float32)
random = np.random.default_rng(0)
weight = random.normal(size=seen + done)
def fragment():
    o = random.normal(size=(steps + 1, seen)).astype(np.float32)
    a = random.uniform(-1, 1, (steps, done)).astype(np.float32)
    r = (np.concatenate([o[:-1], a], 1) @ weight).astype(np.float32)
    return TrajectoryWithRew(obs=o, acts=a, infos=None, terminal=False, rews=r)
both = [(fragment(), fragment()) for _ in range(pairs)]
data = pc.PreferenceDataset()
data.push(both, np.array([float(a.rews.sum() > b.rews.sum()) for a, b in both], np.float32))
model = pc.PreferenceModel(BasicRewardNet(observation, action, hid_sizes=(64, 64)), noise_prob=0.1)
quiet = logger.configure(sys.argv[6], [])
trainer = pc.BasicRewardTrainer(model, pc.CrossEntropyRewardLoss(), rng=random, epochs=1, custom_logger=quiet)
trainer.train(data)
for line in sys.stdin:
    begin = time.perf_counter()
    trainer.train(data, epoch_multiplier=epochs)
    print(json.dumps(time.perf_counter() - begin), flush=True)
"""


def comparisons() -> Comparisons:
    """The same task as the peer's: random segments whose reward is linear."""
    random = np.random.default_rng(0)
    weight = random.normal(size=SEEN + DONE)
    segments = []
    for _ in range(2 * PAIRS):
        seen = random.normal(size=(STEPS, SEEN)).astype(np.float32)
        done = random.uniform(-1, 1, (STEPS, DONE)).astype(np.float32)
        segments.append(Segment(seen, done, np.concatenate([seen, done], 1) @ weight))
    by_id = {segment.id: segment for segment in segments}
    pairs = {p.id: p for p in (Pair(a.id, b.id) for a, b in zip(segments[::2], segments[1::2], strict=True))}
    labels = [Teacher()(pair, by_id) for pair in pairs.values()]
    found = compare(labels, pairs, by_id, lambda s: step_features(s.observation_TF, s.action_T, ()), MEMBERS)
    assert found is not None
    return found


def fitting() -> Figure:
    """Milliseconds of one epoch per network, in fits of 5 with batches of 32 pairs for both, the two taking turns."""
    torch.set_num_threads(1)
    data, options = comparisons(), FitOptions(batch=32)
    ensemble = RewardEnsemble(RewardConfig(SEEN + DONE, members=MEMBERS))
    fitted = Fitted.start(ensemble, options)
    ours: list[float] = []
    theirs: list[float] = []
    peer = _start_peer()

    def own() -> None:
        fit(fitted, data, options, EPOCHS)

    for _ in range(ROUNDS):
        ours += harness.interleaved({"ours": own}, 1)["ours"]
        if peer is not None:
            assert peer.stdin is not None and peer.stdout is not None
            peer.stdin.write("\n")
            peer.stdin.flush()
            theirs.append(json.loads(peer.stdout.readline()))
    if peer is not None:
        peer.communicate()
    mine = 1000 * median(ours) / MEMBERS / EPOCHS
    other = 1000 * median(theirs) / EPOCHS if theirs else None
    ratio = None if other is None else other / mine
    return Figure(
        f"an epoch of fitting {PAIRS} pairs of {STEPS} steps, per network",
        mine,
        other,
        "ms",
        "5 times faster than imitation 1.0.1",
        ratio is not None and ratio >= 5,
        ratio,
        details={"members": MEMBERS, "rounds": ROUNDS, "whole ensemble, ms": mine * MEMBERS},
    )


def _start_peer() -> subprocess.Popen[str] | None:
    python = os.environ.get("LINEAL_IMITATION")
    if not python:
        return None
    numbers = [str(n) for n in (PAIRS, STEPS, SEEN, DONE, ROUNDS)]
    words = [python, "-c", PEER, *numbers, tempfile.mkdtemp(), str(EPOCHS)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def learn(arguments: argparse.Namespace, task: Task, plans: Sequence[Plan]) -> dict[Plan, float]:
    """Final return on the true reward, 20 episodes by the most probable actions, of every plan; each is a cell."""
    cells = []
    for seed, labels, mistake in plans:
        options = {"--env": task.env, "--env-steps": str(task.steps), "--seed": str(seed)}
        if labels:
            options |= {"--labels": str(labels), "--mistake": str(mistake), "--algorithm": task.algorithm}
        folder = arguments.cells / f"{task.name}-{labels or 'rewarded'}-{mistake:g}-{seed}"
        cells.append(Cell(folder, "preferences" if labels else task.algorithm, options))
    folders = run_cells(cells, arguments.jobs)
    ends = [
        [x["eval/return"] for x in read_lines(f / "metrics.jsonl") if x.get("eval/final")][-1]
        for f in folders
    ]
    return dict(zip(plans, ends, strict=True))


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Every figure."""
    if arguments.only in "fitting":
        yield fitting()
    tasks = TASKS[:1] if arguments.quick else TASKS
    for task in tasks:
        if arguments.only in task.name:
            yield from taught(arguments, task)


def taught(arguments: argparse.Namespace, task: Task) -> Iterator[Figure]:
    """What labels teach on one environment, beside the same budget on the true reward; medians over the seeds."""
    seeds = (0,) if arguments.quick else task.seeds
    labels = (700,) if arguments.quick else task.labels
    settings = [(0, 0.0), *((count, 0.0) for count in labels), *((700, share) for share in task.mistakes)]
    ends = learn(arguments, task, [(seed, *setting) for setting in settings for seed in seeds])
    reached = {setting: [ends[seed, *setting] for seed in seeds] for setting in settings}
    rewarded = reached.pop((0, 0.0))
    truth = median(rewarded)
    bar = task.random + 0.9 * (truth - task.random)
    for (count, mistake), found in reached.items():
        said, ok = "printed", True
        if count >= 700 and not mistake and task.barred:
            said, ok = (
                f"at least {bar:.4g}: 90 % of the way from random play to the true reward's",
                median(found) >= bar,
            )
        share = (median(found) - task.random) / (truth - task.random)
        wrong = f", {mistake:.0%} of them wrong" if mistake else ""
        by = "" if task.algorithm == "trpo" else f" by {task.algorithm.upper()}"
        name = f"{task.env}{by}, {task.steps:,} steps, {count} synthetic labels{wrong}"
        details = {
            "returns": found,
            "on the true reward": rewarded,
            "labelled": f"{count / task.steps:.2%} of interactions",
        }
        yield Figure(name, median(found), truth, "return", said, ok, share, seeds, details)


def options(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--quick", action="store_true", help="Pendulum only, one seed, 700 labels")
    parser.add_argument("--only", default="", help="fitting, or an environment's name")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument(
        "--cells", type=Path, default=Path("benchmarks/cells/preferences"), help="where they go"
    )


if __name__ == "__main__":
    raise SystemExit(harness.main("preferences", measure, options))
