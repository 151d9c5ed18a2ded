from __future__ import annotations

import numpy as np
import pytest

from lineal.environments.preferences.records import Segment
from lineal.errors import DataError
from lineal.train.preferences.segments import SegmentStore


def made(value: float) -> Segment:
    shape = (4, 3)
    return Segment(
        np.full(shape, value, np.float32),
        np.arange(4),
        np.linspace(0, value, 4),
        {"qpos": np.full((4, 2), value), "qvel": np.zeros((4, 1))},
    )


def test_segments_come_back_exactly(tmp_path):
    SegmentStore(tmp_path).add([made(1.0), made(2.0)])
    store = SegmentStore(tmp_path)
    assert len(store) == 2 and set(store) == {made(1.0).id, made(2.0).id}
    found = store[made(2.0).id]
    assert found.id == made(2.0).id and (found.state["qpos"] == 2).all()
    assert found.action_T.dtype == np.int64


def test_adding_again_writes_nothing(tmp_path):
    store = SegmentStore(tmp_path)
    store.add([made(1.0)])
    (file,) = (tmp_path / "segments").iterdir()
    before = file.stat().st_mtime_ns
    store.add([made(1.0)])
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["0" * 20, "../labels", "", "a/b"])
def test_what_is_not_there_is_a_key_error(tmp_path, name):
    SegmentStore(tmp_path).add([made(1.0)])
    assert name not in SegmentStore(tmp_path)
    with pytest.raises(KeyError):
        SegmentStore(tmp_path)[name]


def test_an_altered_or_damaged_file_is_named(tmp_path):
    SegmentStore(tmp_path).add([made(1.0), made(2.0)])
    one, two = (tmp_path / "segments" / f"{made(v).id}.safetensors" for v in (1.0, 2.0))
    one.write_bytes(two.read_bytes())
    with pytest.raises(DataError, match="altered or renamed"):
        SegmentStore(tmp_path)[made(1.0).id]
    two.write_bytes(two.read_bytes()[:-3])
    with pytest.raises(DataError, match="no segment"):
        SegmentStore(tmp_path)[made(2.0).id]
