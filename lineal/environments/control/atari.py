"""Atari's games through the Arcade Learning Environment's own vectorised form; needs the extra `atari`, games included."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lineal.environments.control.gymnasium import VectorTask, load_gymnasium, made
from lineal.environments.control.preparation import PLAIN, Preparation
from lineal.environments.control.protocol import Step
from lineal.errors import UsageError

ENTRY = "ale_py.env:AtariEnv"
"""What Gymnasium's registry says of every Atari game."""


def register_games() -> None:
    """Make Gymnasium know Atari's names; UsageError that says how to get them."""
    gymnasium = load_gymnasium()
    try:
        import ale_py
    except ModuleNotFoundError as error:
        raise UsageError("Atari's games come with ale-py: pip install 'lineal[atari]'.") from error
    gymnasium.register_envs(ale_py)


class AtariTask(VectorTask):
    """Copies of a game, prepared in C++: frames skipped, pooled, made grey, shrunk and stacked  (Mnih et al. 2015).

    Observations are uint8 [stack, height, width], with a last axis of 3 in colour. Rewards are the game's own.
    With `episodic_life` a lost life is in `lost_B` and the game goes on, so that returns are still of whole games. With
    `fire` the step after a lost life presses it, whatever was asked, and is not counted: many games wait for that.
    """

    def __init__(
        self, name: str, count: int, seed: int = 0, draw: bool = False, preparation: Preparation = PLAIN
    ) -> None:
        gymnasium = load_gymnasium()
        from ale_py.vector_env import AtariVectorEnv

        known = gymnasium.spec(name).kwargs
        sticky = known["repeat_action_probability"] if preparation.sticky is None else preparation.sticky
        many = made(
            name,
            partial(
                AtariVectorEnv,
                known["game"],
                count,
                num_threads=1,
                autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
                repeat_action_probability=sticky,
                full_action_space=known["full_action_space"],
                max_num_frames_per_episode=known["max_num_frames_per_episode"],
                img_height=preparation.image_size,
                img_width=preparation.image_size,
                grayscale=preparation.grey,
                stack_num=preparation.frame_stack or 4,
                frameskip=preparation.frame_skip,
                maxpool=preparation.max_pool,
                noop_max=preparation.noops,
                use_fire_reset=preparation.fire,
                reward_clipping=False,
            ),
        )
        super().__init__(name, many, seed)
        self._episodic = preparation.episodic_life
        self._limit = known["max_num_frames_per_episode"] // preparation.frame_skip
        self._lives_B = np.zeros(count, np.int64)
        buttons = [button.name for button in many.ale.get_action_set()]
        self._fire = buttons.index("FIRE") if preparation.fire and "FIRE" in buttons else None
        self._fallen_B = np.zeros(count, bool)

    @property
    def time_limit(self) -> int:
        """Steps after which a game is cut off: half an hour of play."""
        return self._limit

    def step(self, action: np.ndarray) -> Step:
        """One step of every copy."""
        fallen_B = self._fallen_B
        if self._fire is None or not fallen_B.any():
            return super().step(action)
        return replace(super().step(np.where(fallen_B, self._fire, action)), counted_B=~fallen_B)

    def _began(self, info: dict[str, Any]) -> None:
        self._lives_B = np.array(info["lives"], np.int64)
        self._fallen_B = np.zeros(self.count, bool)

    def _lost(self, info: dict[str, Any], ended_B: np.ndarray) -> np.ndarray | None:
        before_B, self._lives_B = self._lives_B, np.array(info["lives"], np.int64)
        self._fallen_B = (self._lives_B < before_B) & ~ended_B
        return self._fallen_B if self._episodic else None
