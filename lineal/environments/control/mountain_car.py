"""MountainCar: too weak a car gets out of a valley by swinging  (Moore 1990), as Gymnasium's MountainCar-v0."""

from __future__ import annotations

import math

import numpy as np

from lineal.environments.control.drawing import Canvas
from lineal.environments.control.spaces import Discrete, box

LEFT, RIGHT, GOAL, FASTEST, FORCE, GRAVITY = -1.2, 0.6, 0.5, 0.07, 0.001, 0.0025


class MountainCar:
    """State position, velocity; push left, none or right; reward -1 per step; over at position 0.5 or beyond."""

    observation = box([LEFT, -FASTEST], [RIGHT, FASTEST], (2,), "float32")
    action = Discrete(3)

    def __init__(self, time_limit: int = 200) -> None:
        self.time_limit = time_limit

    def start(self, random: np.random.Generator) -> np.ndarray:
        """Position uniform in [-0.6, -0.4), at rest."""
        return np.array([random.uniform(-0.6, -0.4), 0.0])

    def advance(self, state_BS: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step; the wall on the left stops the car."""
        place_B, speed_B = state_BS.T
        # Gymnasium takes this cosine from C's library, whose last bit numpy's need not share.
        slope_B = np.array([math.cos(3 * x) for x in place_B.tolist()])
        new_SB = np.empty((2, len(state_BS)))
        faster_B = speed_B + ((action - 1) * FORCE + slope_B * (-GRAVITY))
        np.clip(faster_B, -FASTEST, FASTEST, out=new_SB[1])
        np.clip(place_B + new_SB[1], LEFT, RIGHT, out=new_SB[0])
        new_SB[1][(new_SB[0] == LEFT) & (new_SB[1] < 0)] = 0.0
        over_B = (new_SB[0] >= GOAL) & (new_SB[1] >= 0)
        return new_SB.T, np.full(len(state_BS), -1.0), over_B

    def observe(self, state_BS: np.ndarray, fresh: bool = False) -> np.ndarray:
        """The state itself, in float32."""
        return state_BS.astype(np.float32, order="C")

    def draw(self, state_S: np.ndarray) -> np.ndarray:
        """The hills, the car and the flag."""
        canvas = Canvas(LEFT, RIGHT, 0.0, 1.3)
        canvas.line([(x, _height(x)) for x in np.linspace(LEFT, RIGHT, 100).tolist()], "black", 2)
        x = float(state_S[0])
        canvas.disc(x, _height(x) + 0.04, 0.04, "steelblue")
        canvas.line([(GOAL, _height(GOAL)), (GOAL, _height(GOAL) + 0.15)], "firebrick", 4)
        return canvas.pixels()


def _height(x: float) -> float:
    return math.sin(3 * x) * 0.45 + 0.55
