"""Acrobot: swing a two-link arm above a line by its elbow alone  (Sutton 1996), as Gymnasium's Acrobot-v1."""

from __future__ import annotations

import math

import numpy as np

from lineal.environments.control.drawing import Canvas
from lineal.environments.control.spaces import Discrete, box

FASTEST = (4 * math.pi, 9 * math.pi)
SECONDS = 0.2
CENTRE, GRAVITY, INERTIA = 0.5, 9.8, 1.0


class Acrobot:
    """State θ1 (0 hangs down), θ2 (relative), θ1', θ2'; torque -1, 0 or 1 on the elbow; Runge-Kutta at 5 Hz.

    Links of length 1, mass 1, centre of mass at 0.5, inertia 1; the equations of the book (Sutton and Barto 2018).
    Reward -1 per step, 0 in the step that lifts the tip above 1.
    """

    observation = box([-1.0] * 4 + [-FASTEST[0], -FASTEST[1]], [1.0] * 4 + list(FASTEST), (6,), "float32")
    action = Discrete(3)

    def __init__(self, time_limit: int = 500) -> None:
        self.time_limit = time_limit

    def start(self, random: np.random.Generator) -> np.ndarray:
        """Each number uniform in ±0.1, rounded to float32 as Gymnasium does."""
        return random.uniform(-0.1, 0.1, 4).astype(np.float32).astype(np.float64)

    def advance(self, state_BS: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step of the classical fourth-order Runge-Kutta method."""
        torque_B = action - 1.0
        state_SB = state_BS.T
        half = SECONDS / 2.0
        first = _slope(state_SB, torque_B)
        second = _slope(state_SB + half * first, torque_B)
        third = _slope(state_SB + half * second, torque_B)
        fourth = _slope(state_SB + SECONDS * third, torque_B)
        new_SB = state_SB + SECONDS / 6.0 * (first + 2 * second + 2 * third + fourth)
        new_SB[:2] = _wrapped(new_SB[:2])
        for row, fastest in zip((2, 3), FASTEST):
            np.clip(new_SB[row], -fastest, fastest, out=new_SB[row])
        over_B = -np.cos(new_SB[0]) - np.cos(new_SB[1] + new_SB[0]) > 1.0
        return new_SB.T, np.where(over_B, 0.0, -1.0), over_B

    def observe(self, state_BS: np.ndarray, fresh: bool = False) -> np.ndarray:
        """cos and sin of both angles, and the speeds; the first of an episode from float32, as in Gymnasium."""
        state_BS = state_BS.astype(np.float32) if fresh else state_BS
        seen_BF = np.empty((len(state_BS), 6), np.float32)
        seen_BF[:, 0:4:2] = np.cos(state_BS[:, :2])
        seen_BF[:, 1:4:2] = np.sin(state_BS[:, :2])
        seen_BF[:, 4:] = state_BS[:, 2:]
        return seen_BF

    def draw(self, state_S: np.ndarray) -> np.ndarray:
        """Both links and the line to reach."""
        canvas = Canvas(-2.2, 2.2, -2.2, 2.2)
        inner, outer = float(state_S[0]), float(state_S[0] + state_S[1])
        elbow = (math.sin(inner), -math.cos(inner))
        tip = (elbow[0] + math.sin(outer), elbow[1] - math.cos(outer))
        canvas.line([(-2.2, 1), (2.2, 1)], "black", 1)
        canvas.line([(0, 0), elbow, tip], "steelblue", 12)
        canvas.disc(0, 0, 0.09, "olive")
        canvas.disc(*elbow, 0.09, "olive")
        return canvas.pixels()


def _slope(state_SB: np.ndarray, torque_B: np.ndarray) -> np.ndarray:
    """d state / d t; operations and their order are Gymnasium's, squares by C's pow, for rounding depends on it."""
    inner_B, outer_B, inner_turn_B, outer_turn_B = state_SB
    cos_B, sin_B = np.cos(outer_B), np.sin(outer_B)
    d1_B = CENTRE**2 + (1.0 + CENTRE**2 + 2 * CENTRE * cos_B) + INERTIA + INERTIA
    d2_B = (CENTRE**2 + CENTRE * cos_B) + INERTIA
    phi2_B = CENTRE * GRAVITY * np.cos(inner_B + outer_B - math.pi / 2.0)
    phi1_B = (
        -CENTRE * np.float_power(outer_turn_B, 2) * sin_B
        - 2 * CENTRE * outer_turn_B * inner_turn_B * sin_B
        + (CENTRE + 1.0) * GRAVITY * np.cos(inner_B - math.pi / 2)
        + phi2_B
    )
    outer_B = (
        torque_B + d2_B / d1_B * phi1_B - CENTRE * np.float_power(inner_turn_B, 2) * sin_B - phi2_B
    ) / (CENTRE**2 + INERTIA - np.float_power(d2_B, 2) / d1_B)
    return np.stack([inner_turn_B, outer_turn_B, -(d2_B * outer_B + phi1_B) / d1_B, outer_B])


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """In ±π, by whole turns taken off one at a time: the remainder would round otherwise."""
    while (over := angle > math.pi).any():
        angle = np.where(over, angle - 2 * math.pi, angle)
    while (under := angle < -math.pi).any():
        angle = np.where(under, angle + 2 * math.pi, angle)
    return angle
