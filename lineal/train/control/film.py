"""A policy's episodes as an animated picture: GIF, PNG (APNG) or WebP by Pillow, or MP4 by imageio where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lineal.errors import RunError, UsageError

PICTURES = {".gif": "GIF", ".png": "PNG", ".webp": "WEBP"}
SUFFIXES = (*PICTURES, ".mp4")


def check_film(path: Path) -> None:
    """Raise UsageError for a file that cannot become a film, before anything is played."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a film ends in {', '.join(SUFFIXES)}.")
    try:
        if path.suffix.lower() == ".mp4":
            import imageio.v3  # noqa: F401
        else:
            import PIL  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"{path} needs {error.name}: pip install {_package(path)}.") from error


def _package(path: Path) -> str:
    return "'imageio[ffmpeg]'" if path.suffix.lower() == ".mp4" else "'lineal[gym]'"


def save_film(frames: list[np.ndarray], path: Path, rate: float) -> None:
    """Write uint8 [height, width, 3] frames, `rate` to the second, looping for ever."""
    try:
        if path.suffix.lower() == ".mp4":
            import imageio.v3 as imageio

            imageio.imwrite(path, np.stack(frames), fps=rate)
            return
        from PIL import Image

        pictures: list[Any] = [Image.fromarray(frame) for frame in frames]
        kind = PICTURES[path.suffix.lower()]
        # A GIF counts in hundredths of a second, and browsers slow down those shorter than two.
        spacing = max(20, round(1000 / rate))
        pictures[0].save(
            path, format=kind, save_all=True, append_images=pictures[1:], duration=spacing, loop=0
        )
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error}). Choose another --out.") from error
