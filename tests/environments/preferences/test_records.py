from __future__ import annotations

import numpy as np
import pytest

from lineal.environments.preferences.records import TEXTS, Label, Pair, Segment
from lineal.errors import DataError


def segment(value: float = 0.0, steps: int = 4) -> Segment:
    return Segment(
        np.full((steps, 3), value, np.float32),
        np.zeros(steps, np.int64),
        np.zeros(steps),
        {"state": np.ones((steps, 2))},
    )


def test_equal_content_has_one_id_and_any_change_another():
    assert segment().id == segment().id
    assert len({segment().id, segment(1.0).id, segment(steps=5).id}) == 3
    moved = Segment(
        segment().observation_TF, segment().action_T, segment().reward_T, {"state": np.zeros((4, 2))}
    )
    assert moved.id != segment().id


def test_a_segment_comes_back_from_its_arrays():
    again = Segment.from_arrays(segment(2.0).arrays())
    assert again.id == segment(2.0).id and len(again) == 4


def test_parts_of_different_length_are_refused():
    with pytest.raises(DataError, match="same number of steps"):
        Segment(np.zeros((3, 2)), np.zeros(4), np.zeros(4))


def test_the_id_of_a_pair_is_its_question():
    assert Pair("a", "b", step=1).id == Pair("a", "b", step=2).id
    assert Pair("a", "b").id != Pair("b", "a").id
    assert Pair("a", "b", TEXTS).id != Pair("a", "b", TEXTS, "prompt").id
    assert Pair.from_json(Pair("a", "b", TEXTS, "p", 7).to_json()) == Pair("a", "b", TEXTS, "p", 7)


def test_nothing_is_compared_with_itself():
    with pytest.raises(DataError, match="two different things"):
        Pair("a", "a")


def test_an_altered_pair_is_noticed():
    with pytest.raises(DataError, match="altered"):
        Pair.from_json({**Pair("a", "b").to_json(), "first": "c"})


@pytest.mark.parametrize("preference", [-0.1, 1.1, float("nan")])
def test_a_preference_is_a_probability(preference):
    with pytest.raises(DataError, match="probability"):
        Label("p", preference)


@pytest.mark.parametrize(
    "record",
    [
        {"pair": "p"},
        {"pair": "p", "preference": "1"},
        {"pair": "p", "preference": True},
        {"pair": "p", "preference": 1, "x": 2},
    ],
)
def test_a_line_that_is_no_label_is_refused(record):
    with pytest.raises(DataError):
        Label.from_json(record)


def test_a_label_comes_back():
    label = Label("p", None, "anna", 1.5, 2.0, True, True)
    assert Label.from_json(label.to_json()) == label
    assert Label.from_json({"pair": "p", "preference": 1}) == Label("p", 1.0)
