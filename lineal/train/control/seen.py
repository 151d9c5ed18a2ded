"""What the steps of a rollout leave behind before anything is made of it, and observations as networks read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lineal.environments.control.images import channels_first, image_shape
from lineal.environments.control.protocol import Step, VectorEnvironment
from lineal.environments.control.spaces import Box, Discrete
from lineal.models.acting import Actor
from lineal.models.control import FlatPolicy


@dataclass
class Seen:
    """What the steps of one rollout left behind, [B, T] in numpy; `ends`: (copy, step, last observation) of cuts.

    feature_BTF: observations before they were normalised; no steps of them where nothing normalises. counted_BT: False where
    a copy only began its next episode. lost_BT: where a life was lost.
    """

    input_BTF: np.ndarray
    feature_BTF: np.ndarray
    action: np.ndarray
    output_BTO: np.ndarray
    reward_BT: np.ndarray
    terminated_BT: np.ndarray
    truncated_BT: np.ndarray
    lost_BT: np.ndarray
    counted_BT: np.ndarray
    ends: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    length: int = 0

    @staticmethod
    def room(count: int, steps: int, actor: Actor, features: tuple[int, ...]) -> Seen:
        """Arrays for that many steps."""
        kind, dtype, config = actor.policy.actions, actor.dtype, actor.policy.config
        real = config.reals > 0
        wide = () if config.choices[1:] == () and not real else (config.reals or len(config.choices),)
        kept = steps if actor.policy.observation is not None else 0
        return Seen(
            np.empty((count, steps, *features), actor.input_dtype),
            np.empty((count, kept, *features)),
            np.empty((count, steps, *wide), dtype if real else np.int64),
            np.empty((count, steps, kind.outputs), dtype),
            np.empty((count, steps)),
            np.empty((count, steps), bool),
            np.empty((count, steps), bool),
            np.zeros((count, steps), bool),
            np.ones((count, steps), bool),
        )

    def note(self, got: Step) -> None:
        """Keep what one step gave."""
        t = self.length
        self.reward_BT[:, t] = got.reward_B
        self.terminated_BT[:, t], self.truncated_BT[:, t] = got.terminated_B, got.truncated_B
        if got.counted_B is not None:
            self.counted_BT[:, t] = got.counted_B
        if got.lost_B is not None:
            self.lost_BT[:, t] = got.lost_B

    @property
    def over_BT(self) -> np.ndarray:
        """Where the environment's own episodes ended."""
        return self.terminated_BT | self.truncated_BT

    @property
    def ended_BT(self) -> np.ndarray:
        """Where an episode ended for the learner, to whom a lost life is an end."""
        return self.over_BT | self.lost_BT

    def cut(self) -> Seen:
        """Only the steps that were taken."""
        arrays = {name: x[:, : self.length] for name, x in vars(self).items() if isinstance(x, np.ndarray)}
        return Seen(**arrays, ends=self.ends, length=self.length)

    def doubled(self) -> Seen:
        """Room for twice as many steps."""
        arrays = {name: x for name, x in vars(self).items() if isinstance(x, np.ndarray)}
        fresh: dict[str, Any] = {name: np.empty_like(x) for name, x in arrays.items()}
        more = Seen(**fresh)
        more.lost_BT[:], more.counted_BT[:] = False, True
        grown = {name: np.concatenate([x, getattr(more, name)], axis=1) for name, x in arrays.items()}
        return Seen(**grown, ends=self.ends, length=self.length)


class Features:
    """Observations as a network reads them: rows of numbers (boxes flattened, a choice as one-hot), or pictures.

    policy: who reads them; without one, or with one that has no `image`, they are rows.
    """

    def __init__(self, environment: VectorEnvironment, policy: FlatPolicy | None = None) -> None:
        self.space = environment.observation
        self._picture = policy is not None and bool(policy.config.image)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation: (features,), or (channels, height, width)."""
        image = image_shape(self.space) if self._picture else None
        return image or (self.count,)

    @property
    def count(self) -> int:
        """How many numbers an observation has."""
        return self.space.n if isinstance(self.space, Discrete) else getattr(self.space, "size", 0)

    def __call__(self, observation_BF: np.ndarray) -> np.ndarray:
        """[B, features], or uint8 [B, channels, height, width]."""
        if isinstance(self.space, Discrete):
            return np.eye(self.space.n, dtype=np.float32)[observation_BF]
        if self._picture:
            return channels_first(observation_BF, self.space)
        return observation_BF.reshape(len(observation_BF), -1)


def action_bounds(environment: VectorEnvironment) -> tuple[np.ndarray, np.ndarray] | None:
    """low and high of real-valued actions; None for choices."""
    return environment.action.bounds() if isinstance(environment.action, Box) else None
