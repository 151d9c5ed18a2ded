"""Observations that are pictures: which axes are which, and what people are shown of them."""

from __future__ import annotations

import numpy as np
import pytest

from lineal.environments.control.images import channels_first, image_shape, picture
from lineal.environments.control.spaces import Box, Discrete, Space, box, space_from_json, space_to_json


def space(*shape: int, dtype: str = "uint8") -> Box:
    return box(0.0, 255.0, shape, dtype)


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((5, 7), (1, 5, 7)),
        ((3, 5, 7), (3, 5, 7)),
        ((5, 7, 3), (3, 5, 7)),
        ((4, 6, 5, 3), (12, 6, 5)),
        ((4, 1, 6, 5), (4, 6, 5)),
        ((128,), None),
        ((2, 2, 5, 7, 3), None),
    ],
)
def test_axes(shape: tuple[int, ...], image: tuple[int, int, int] | None) -> None:
    assert image_shape(space(*shape)) == image


def test_only_bytes_are_pictures() -> None:
    spaces: list[Space] = [space(3, 8, 8, dtype="float32"), Discrete(4)]
    assert [image_shape(one) for one in spaces] == [None, None]


def test_each_pixel_goes_to_its_place() -> None:
    first = np.arange(2 * 3 * 5 * 7, dtype=np.uint8).reshape(2, 3, 5, 7)
    assert (channels_first(first, space(3, 5, 7)) == first).all()
    assert (channels_first(first.transpose(0, 2, 3, 1), space(5, 7, 3)) == first).all()
    assert (channels_first(first[:, 0], space(5, 7)) == first[:, :1]).all()
    stacked = np.stack([first, first + 1], 1)
    wanted = np.concatenate([first, first + 1], 1)
    assert (channels_first(stacked, space(2, 3, 5, 7)) == wanted).all()
    assert (channels_first(stacked.transpose(0, 1, 3, 4, 2), space(2, 5, 7, 3)) == wanted).all()


def test_people_see_the_newest_enlarged() -> None:
    stack = np.stack([np.full((10, 10), 20 * i, np.uint8) for i in range(4)])
    shown = picture(stack, space(4, 10, 10))
    assert shown.shape == (320, 320, 3) and (shown == 60).all()
    coloured = np.zeros((10, 20, 3), np.uint8)
    coloured[..., 1] = 200
    shown = picture(coloured, space(10, 20, 3), side=40)
    assert shown.shape == (20, 40, 3) and shown[0, 0].tolist() == [0, 200, 0]


def test_equal_bounds_of_many_pixels_are_said_once() -> None:
    small = Box((0.0,), (255.0,), (4, 84, 84), "uint8")
    assert len(str(small)) < 80 and space_from_json(space_to_json(small)) == small
    low, high = small.bounds()
    assert low.shape == (4, 84, 84) and (low == 0).all() and (high == 255).all() and high.dtype == np.uint8
