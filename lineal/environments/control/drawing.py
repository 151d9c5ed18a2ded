"""Line drawings of the classic tasks; needs Pillow, which the extra `gym` brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lineal.errors import UsageError

WIDTH, HEIGHT = 400, 300


class Canvas:
    """A white picture whose coordinates are the task's own: [left, right] x [bottom, top], one scale for both."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        try:
            from PIL import Image, ImageDraw
        except ModuleNotFoundError as error:
            raise UsageError("drawing needs Pillow: pip install 'lineal[gym]'.") from error
        self._image: Any = Image.new("RGB", (WIDTH, HEIGHT), "white")
        self._draw: Any = ImageDraw.Draw(self._image)
        self._scale = min(WIDTH / (right - left), HEIGHT / (top - bottom))
        self._middle = ((left + right) / 2, (bottom + top) / 2)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: int) -> None:
        """Straight pieces from point to point."""
        self._draw.line([self._place(x, y) for x, y in points], colour, width, joint="curve")

    def box(self, left: float, bottom: float, right: float, top: float, colour: str) -> None:
        """A filled rectangle."""
        (a, b), (c, d) = self._place(left, top), self._place(right, bottom)
        self._draw.rectangle([a, b, c, d], fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: str) -> None:
        """A filled circle."""
        (a, b), (c, d) = self._place(x - radius, y + radius), self._place(x + radius, y - radius)
        self._draw.ellipse([a, b, c, d], fill=colour)

    def pixels(self) -> np.ndarray:
        """uint8 [height, width, 3]."""
        return np.asarray(self._image, np.uint8)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return (
            WIDTH / 2 + (x - self._middle[0]) * self._scale,
            HEIGHT / 2 - (y - self._middle[1]) * self._scale,
        )
