from __future__ import annotations

import io

import numpy as np
import pytest

from lineal.environments.preferences.records import Segment
from lineal.errors import UsageError
from lineal.web.clips import MOST_FRAMES, Clips, strip

Image = pytest.importorskip("PIL.Image")


def frames(count: int, size: int = 6) -> list[np.ndarray]:
    return [np.full((size, size + 2, 3), 10 * i % 250, np.uint8) for i in range(count)]


def test_every_frame_is_where_the_layout_says():
    made = strip(frames(11), columns=4)
    sheet = np.asarray(Image.open(io.BytesIO(made.picture)).convert("RGB"))
    assert made.layout() == {"count": 11, "columns": 4, "width": 8, "height": 6, "stride": 1}
    for i, frame in enumerate(frames(11)):
        row, column = divmod(i, 4)
        assert (sheet[row * 6 : row * 6 + 6, column * 8 : column * 8 + 8] == frame).all()


def test_long_and_large_clips_are_thinned_and_shrunk():
    made = strip(frames(2 * MOST_FRAMES + 1))
    assert made.stride == 3 and made.count == 81
    wide = strip([np.zeros((700, 1000, 3), np.uint8)] * 2)
    assert max(wide.width, wide.height) <= 480


def test_a_clip_without_frames_is_refused():
    with pytest.raises(UsageError, match="at least one frame"):
        strip([])


def test_a_clip_is_drawn_once():
    drawn = []

    def draw(segment: Segment) -> list[np.ndarray]:
        drawn.append(segment.id)
        return frames(2)

    clips = Clips(draw)
    segment = Segment(np.zeros((2, 1), np.float32), np.zeros(2), np.zeros(2))
    assert clips.get(segment) is clips.get(segment) and drawn == [segment.id]
