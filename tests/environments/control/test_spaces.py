"""Spaces as values: their size, bounds and JSON; and how an environment is prepared."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lineal.environments.control.preparation import PLAIN, Preparation
from lineal.environments.control.spaces import (
    Box,
    Discrete,
    MultiDiscrete,
    Space,
    box,
    space_from_json,
    space_to_json,
)
from lineal.errors import UsageError

SPACES: tuple[Space, ...] = (
    Discrete(3),
    MultiDiscrete((2, 5)),
    box(-1.0, 2.0, (3,), "float32"),
    box([-math.inf, 0.0], [math.inf, 1.0], (2,), "float64"),
    Box((0.0,), (255.0,), (4, 84, 84), "uint8"),
)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_json_and_back(space: Space) -> None:
    written = json.dumps(space_to_json(space), allow_nan=False)
    assert space_from_json(json.loads(written)) == space


def test_infinite_bounds_are_text_in_json() -> None:
    record = space_to_json(box([-math.inf, 0.0], [math.inf, 1.0], (2,), "float64"))
    assert record == {
        "kind": "Box",
        "low": ["-inf", 0.0],
        "high": ["inf", 1.0],
        "shape": [2],
        "dtype": "float64",
    }


def test_one_bound_serves_all_numbers() -> None:
    space = box(-1, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3), "float32")
    low, high = space.bounds()
    assert space.size == 6 and low.dtype == high.dtype == np.float32
    assert low.tolist() == [[-1.0] * 3] * 2 and high.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_bounds_of_one_number_are_spread_when_they_are_asked_for() -> None:
    low, high = Box((0.0,), (255.0,), (2, 2), "uint8").bounds()
    assert low.tolist() == [[0, 0], [0, 0]] and high.tolist() == [[255, 255], [255, 255]]
    assert high.dtype == np.uint8


def test_a_large_box_is_said_on_one_short_line() -> None:
    assert str(Box((0.0,), (255.0,), (4, 84, 84), "uint8")) == "Box(0 to 255, shape=(4, 84, 84), dtype=uint8)"
    assert "low=(-1.0, -1.0)" in str(box(-1.0, 1.0, (2,), "float32"))


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"frame_stack": 0}, "--frame-stack 0: it must be at least 1"),
        ({"frame_skip": 0}, "--frame-skip 0: it must be at least 1"),
        ({"image_size": 7}, "--image-size 7: it must be at least 8"),
        ({"noops": -1}, "--noops -1: it must be at least 0"),
        ({"sticky": 1.0}, "--sticky 1: a probability from 0 to below 1"),
        ({"sticky": -0.1}, "--sticky -0.1: a probability"),
    ],
    ids=str,
)
def test_a_preparation_that_cannot_be(numbers: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Preparation(**numbers)  # type: ignore[arg-type]


def test_the_plain_preparation_is_the_usual_one_of_atari() -> None:
    assert (PLAIN.frame_skip, PLAIN.max_pool, PLAIN.grey, PLAIN.image_size) == (4, True, True, 84)
    assert (PLAIN.frame_stack, PLAIN.sticky, PLAIN.episodic_life) == (None, None, False)
