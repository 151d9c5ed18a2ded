"""What a control policy reaches: whole episodes with its normalisers frozen, and a film of some."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lineal.environments.control.protocol import VectorEnvironment
from lineal.models.acting import actor_of
from lineal.models.control import FlatPolicy
from lineal.train.control.seen import Features, action_bounds

SEED = 10_000_019
"""Added to a run's seed, so that evaluation meets other beginnings than training."""


@dataclass(frozen=True)
class Episodes:
    """Returns (undiscounted, as the environment pays them) and lengths of whole episodes, in a fixed order."""

    returns: list[float]
    lengths: list[int]

    @property
    def mean(self) -> float:
        """Mean return."""
        return math.fsum(self.returns) / len(self.returns)

    @property
    def deviation(self) -> float:
        """Standard deviation over episodes."""
        return float(np.std(self.returns))

    def metrics(self) -> dict[str, float]:
        """Under the names of metrics.jsonl."""
        length = math.fsum(self.lengths) / len(self.lengths)
        return {"eval/return": self.mean, "eval/return_std": self.deviation, "eval/episode_length": length}

    def line(self) -> str:
        """One line for people."""
        return f"return {self.mean:.4g} ± {self.deviation:.3g} over {len(self.returns)} episodes"


def run_episodes(
    policy: FlatPolicy,
    environment: VectorEnvironment,
    episodes: int,
    seed: int = 0,
    *,
    sample: bool = False,
    watch: Callable[[VectorEnvironment], None] | None = None,
) -> Episodes:
    """Whole episodes, by the most probable actions or, `sample`, by drawn ones.

    Every copy plays the same number of episodes (rounded up), so that short ones are not preferred; the first
    `episodes` count. watch: called before the first step and after each.
    """
    actor, features = actor_of(policy), Features(environment, policy)
    random = np.random.Generator(np.random.Philox(key=[seed % 2**63, SEED]))
    bounds = action_bounds(environment)
    each = -(-episodes // environment.count)
    returns: list[list[float]] = [[] for _ in range(environment.count)]
    lengths: list[list[int]] = [[] for _ in range(environment.count)]
    return_B, length_B = np.zeros(environment.count), np.zeros(environment.count, np.int64)
    feature_BF = features(environment.reset((seed + SEED) % 2**31))
    if watch is not None:
        watch(environment)
    while any(len(found) < each for found in returns):
        output_BO = actor.outputs(actor.normalised(feature_BF))
        noise = actor.noise(random, 1, environment.count)[0]
        action = actor.draw(output_BO, noise) if sample else actor.best(output_BO)
        got = environment.step(action if bounds is None else action.clip(*bounds))
        if watch is not None:
            watch(environment)
        feature_BF = features(got.observation_BF)
        return_B += got.reward_B
        length_B += 1 if got.counted_B is None else got.counted_B
        for b in (got.terminated_B | got.truncated_B).nonzero()[0].tolist():
            returns[b].append(float(return_B[b]))
            lengths[b].append(int(length_B[b]))
            return_B[b], length_B[b] = 0.0, 0
    order = [(b, i) for i in range(each) for b in range(environment.count)][:episodes]
    return Episodes([returns[b][i] for b, i in order], [lengths[b][i] for b, i in order])
