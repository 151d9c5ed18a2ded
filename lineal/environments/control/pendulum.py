"""Pendulum: swing a pole up and hold it with too weak a motor, as Gymnasium's Pendulum-v1."""

from __future__ import annotations

import math

import numpy as np

from lineal.environments.control.drawing import Canvas
from lineal.environments.control.spaces import box

FASTEST, STRONGEST, SECONDS, GRAVITY = 8.0, 2.0, 0.05, 10.0


class Pendulum:
    """State θ (0 is upright), θ'; torque in ±2 N m; reward -(θ² + 0.1 θ'² + 0.001 torque²), θ taken in ±π.

    An episode never ends by itself. Observation cos θ, sin θ, θ'.
    """

    observation = box([-1.0, -1.0, -FASTEST], [1.0, 1.0, FASTEST], (3,), "float32")
    action = box(-STRONGEST, STRONGEST, (1,), "float32")

    def __init__(self, time_limit: int = 200) -> None:
        self.time_limit = time_limit

    def start(self, random: np.random.Generator) -> np.ndarray:
        """θ uniform in ±π, θ' in ±1."""
        high = np.array([math.pi, 1.0])
        return random.uniform(-high, high)

    def advance(self, state_BS: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step of semi-implicit Euler; the torque stays in the action's own precision, as in Gymnasium."""
        angle_B, turn_B = state_BS.T
        torque_B = np.clip(action[:, 0], -STRONGEST, STRONGEST)
        wrapped_B = ((angle_B + np.pi) % (2 * np.pi)) - np.pi
        # Gymnasium's squares are C's pow of single numbers, whose last bit x * x need not share.
        effort_B = np.array([torque**2 for torque in torque_B], torque_B.dtype)
        cost_B = np.float_power(wrapped_B, 2) + 0.1 * np.float_power(turn_B, 2) + 0.001 * effort_B
        new_SB = np.empty((2, len(state_BS)))
        faster_B = turn_B + (3 * GRAVITY / 2 * np.sin(angle_B) + 3.0 * torque_B) * SECONDS
        np.clip(faster_B, -FASTEST, FASTEST, out=new_SB[1])
        new_SB[0] = angle_B + new_SB[1] * SECONDS
        return new_SB.T, -cost_B, np.zeros(len(state_BS), bool)

    def observe(self, state_BS: np.ndarray, fresh: bool = False) -> np.ndarray:
        """cos θ, sin θ, θ' in float32."""
        seen_BF = np.empty((len(state_BS), 3), np.float32)
        seen_BF[:, 0] = np.cos(state_BS[:, 0])
        seen_BF[:, 1] = np.sin(state_BS[:, 0])
        seen_BF[:, 2] = state_BS[:, 1]
        return seen_BF

    def draw(self, state_S: np.ndarray) -> np.ndarray:
        """The pole and its axle."""
        canvas = Canvas(-1.3, 1.3, -1.3, 1.3)
        angle = float(state_S[0])
        canvas.line([(0, 0), (-math.sin(angle), math.cos(angle))], "indianred", 16)
        canvas.disc(0, 0, 0.06, "black")
        return canvas.pixels()
