"""Clips as film strips: all frames of a segment in one picture, so that a page can show two of them in step."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineal.environments.preferences.records import Segment
from lineal.errors import UsageError

Frame = NDArray[np.uint8]
Draw = Callable[[Segment], Sequence[Frame]]
"""The frames of a segment, each [height, width, 3]."""
MOST_FRAMES, MOST_PIXELS = 120, 480
"""Frames of a clip, and pixels of a frame's longer side; more are thinned out and shrunk."""


@dataclass(frozen=True)
class Strip:
    """A picture of `count` frames of width x height, in rows of `columns`; stride: steps from one frame to the next."""

    picture: bytes
    kind: str
    count: int
    columns: int
    width: int
    height: int
    stride: int

    def layout(self) -> dict[str, Any]:
        """What a page needs to cut it into frames."""
        return {name: value for name, value in asdict(self).items() if name not in ("picture", "kind")}


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise UsageError("clips are pictures: pip install 'lineal[web]' brings Pillow.") from error
    return Image


def strip(frames: Sequence[Frame], columns: int = 8) -> Strip:
    """Put frames side by side in one lossless WebP (PNG where Pillow has no WebP)."""
    image = _pillow()
    if not frames:
        raise UsageError("a clip needs at least one frame.")
    stride = math.ceil(len(frames) / MOST_FRAMES)
    kept = [np.ascontiguousarray(frame) for frame in frames[::stride]]
    shrink = math.ceil(max(kept[0].shape[:2]) / MOST_PIXELS)
    if shrink > 1:
        small = [image.fromarray(frame).reduce(shrink) for frame in kept]
        kept = [np.asarray(frame, np.uint8) for frame in small]
    height, width = kept[0].shape[:2]
    columns = min(columns, len(kept))
    sheet = np.full((height * math.ceil(len(kept) / columns), width * columns, 3), 255, np.uint8)
    for i, frame in enumerate(kept):
        row, column = divmod(i, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = frame
    kind, options = _format()
    out = io.BytesIO()
    image.fromarray(sheet).save(out, kind, **options)
    return Strip(out.getvalue(), f"image/{kind.lower()}", len(kept), columns, width, height, stride)


def _format() -> tuple[str, dict[str, Any]]:
    from PIL import features

    if features.check("webp"):
        return "WEBP", {"lossless": True, "quality": 20, "method": 1}
    return "PNG", {"compress_level": 3}


class Clips:
    """The strips of segments, drawn when first asked for and kept; drawing happens in one thread at a time."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._made: dict[str, Strip] = {}
        self._busy = threading.Lock()

    def get(self, segment: Segment) -> Strip:
        """The strip of a segment; whatever the drawing raises goes through."""
        found = self._made.get(segment.id)
        if found is not None:
            return found
        with self._busy:
            if segment.id not in self._made:
                self._made[segment.id] = strip(self._draw(segment))
                while len(self._made) > 200:
                    del self._made[next(iter(self._made))]
            return self._made[segment.id]
