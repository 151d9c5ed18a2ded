"""Learning from preferences: the speed of fitting the reward beside `imitation`, and what labels teach an agent.

    python benchmarks/preferences.py [--quick] [--json] [--save]

`imitation` 1.0.1 needs old versions of Gymnasium and NumPy, so it runs in an environment of its own, whose Python
LINEAL_IMITATION names:

    python -m venv peer && peer/bin/pip install imitation==1.0.1 'numpy<2' 'setuptools<81'
    LINEAL_IMITATION=peer/bin/python python benchmarks/preferences.py

Without it the peer's column stays empty and that figure's bar is missed. --quick: one seed, 700 labels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from harness import Figure, median

from lineal.environments.preferences.records import Pair, Segment
from lineal.environments.preferences.teachers import Teacher
from lineal.models.reward import RewardConfig, RewardEnsemble, step_features
from lineal.recipes import environment_loop, preferences_loop
from lineal.recipes.config import EnvironmentConfig, to_json, with_options
from lineal.recipes.preferences import default, tuned
from lineal.train.metrics import read_lines
from lineal.train.preferences.comparisons import Comparisons, compare
from lineal.train.preferences.fit import FitOptions, Fitted, fit
from lineal.train.run import Run

PAIRS, STEPS, SEEN, DONE, MEMBERS, ROUNDS, EPOCHS = 200, 50, 11, 3, 3, 7, 5
RANDOM = -1200.0
"""Mean return of random play on Pendulum."""

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


def taught(seed: int, **options: Any) -> float:
    """Final return on Pendulum after 100k steps, by the true reward, of an agent that learned from labels."""
    config = with_options(tuned(default()), env_steps=100_000, seed=seed, quiet=True, **options)
    return _run(config, preferences_loop)


def rewarded(seed: int) -> float:
    """The same budget and policy on the true reward."""
    config = tuned(default())
    plain = EnvironmentConfig(config.environment, config.policy, config.algorithm, config.run)
    return _run(with_options(plain, env_steps=100_000, seed=seed, quiet=True), environment_loop)


def _run(config: Any, loop: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        config = with_options(config, out=str(path))
        with Run.create(path, {"recipe": "preferences", "options": to_json(config)}) as run:
            loop.run(config, run)
        return [x["eval/return"] for x in read_lines(path / "metrics.jsonl") if x.get("eval/final")][-1]


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Every figure."""
    yield fitting()
    seeds = (0,) if arguments.quick else (0, 1, 2)
    truth = [rewarded(seed) for seed in seeds]
    peer = sum(truth) / len(truth)
    # Returns are negative, so shares are of the way from random play.
    bar = RANDOM + 0.9 * (peer - RANDOM)
    for labels in (700,) if arguments.quick else (350, 700, 1400):
        found = [taught(seed, labels=labels) for seed in seeds]
        yield _taught(
            f"Pendulum-v1, {labels} synthetic labels", found, peer, seeds, bar if labels >= 700 else None
        )
    found = [taught(seed, labels=700, mistake=0.2) for seed in seeds]
    yield _taught("Pendulum-v1, 700 synthetic labels, a fifth of them wrong", found, peer, seeds, None)


def _taught(
    figure: str, found: list[float], peer: float, seeds: tuple[int, ...], bar: float | None
) -> Figure:
    mean = sum(found) / len(found)
    said = (
        "printed"
        if bar is None
        else f"at least {bar:.4g}: 90 % of the way from random play to the true reward's"
    )
    share = (mean - RANDOM) / (peer - RANDOM)
    ok = bar is None or mean >= bar
    return Figure(figure, mean, peer, "return", said, ok, share, seeds, {"returns": found})


def options(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--quick", action="store_true", help="one seed, 700 labels")


if __name__ == "__main__":
    raise SystemExit(harness.main("preferences", measure, options))
