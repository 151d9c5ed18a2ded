"""CartPole: keep a pole upright on a cart  (Barto, Sutton and Anderson 1983), as Gymnasium's CartPole-v1."""

from __future__ import annotations

import math

import numpy as np

from lineal.environments.control.drawing import Canvas
from lineal.environments.control.spaces import Discrete, box

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL, POLE_LENGTH = POLE + CART, POLE * HALF_LENGTH
FARTHEST, STEEPEST = 2.4, 12 * 2 * math.pi / 360


class CartPole:
    """State x, x', θ, θ' in metres, radians and seconds; force ±10 N; Euler's method at 50 Hz; reward 1 per step.

    Over when |x| > 2.4 or |θ| > 12 degrees.
    """

    observation = box(
        [-2 * FARTHEST, -math.inf, -2 * STEEPEST, -math.inf],
        [2 * FARTHEST, math.inf, 2 * STEEPEST, math.inf],
        (4,),
        "float32",
    )
    action = Discrete(2)

    def __init__(self, time_limit: int = 500) -> None:
        self.time_limit = time_limit

    def start(self, random: np.random.Generator) -> np.ndarray:
        """Each number uniform in ±0.05."""
        return random.uniform(-0.05, 0.05, 4)

    def advance(self, state_BS: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One Euler step; the operations keep Gymnasium's order, for rounding depends on it."""
        x_B, speed_B, angle_B, turn_B = state_BS.T
        force_B = np.where(action == 1, FORCE, -FORCE)
        cos_B, sin_B = np.cos(angle_B), np.sin(angle_B)
        pull_B = (force_B + POLE_LENGTH * np.square(turn_B) * sin_B) / TOTAL
        turning_B = (GRAVITY * sin_B - cos_B * pull_B) / (
            HALF_LENGTH * (4.0 / 3.0 - POLE * np.square(cos_B) / TOTAL)
        )
        speeding_B = pull_B - POLE_LENGTH * turning_B * cos_B / TOTAL
        new_SB = np.empty((4, len(state_BS)))
        new_SB[0] = x_B + SECONDS * speed_B
        new_SB[1] = speed_B + SECONDS * speeding_B
        new_SB[2] = angle_B + SECONDS * turn_B
        new_SB[3] = turn_B + SECONDS * turning_B
        over_B = (np.abs(new_SB[0]) > FARTHEST) | (np.abs(new_SB[2]) > STEEPEST)
        return new_SB.T, np.ones(len(state_BS)), over_B

    def observe(self, state_BS: np.ndarray, fresh: bool = False) -> np.ndarray:
        """The state itself, in float32."""
        return state_BS.astype(np.float32, order="C")

    def draw(self, state_S: np.ndarray) -> np.ndarray:
        """The track, the cart and the pole."""
        canvas = Canvas(-FARTHEST, FARTHEST, -0.6, 1.4)
        x, angle = float(state_S[0]), float(state_S[2])
        canvas.line([(-FARTHEST, 0), (FARTHEST, 0)], "black", 1)
        canvas.box(x - 0.25, -0.12, x + 0.25, 0.12, "black")
        canvas.line([(x, 0.12), (x + math.sin(angle), 0.12 + math.cos(angle))], "peru", 8)
        return canvas.pixels()
