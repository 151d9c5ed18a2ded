"""Observations that are pictures: which they are, in what order their axes stand, and all of them as [channels, height, width]."""

from __future__ import annotations

import numpy as np

from lineal.environments.control.spaces import Box, Space


def image_shape(space: Space) -> tuple[int, int, int] | None:
    """(channels, height, width) of an observation that is a picture, and None for one that is not.

    Pictures are boxes of uint8: [H, W]; [C, H, W] or [H, W, C], where the channels are the shorter of the outer axes (the
    first if they are equal); or a stack [K, ...] of those with three axes, whose channels are then K · C.
    """
    if not isinstance(space, Box) or space.dtype != "uint8" or not 2 <= len(space.shape) <= 4:
        return None
    stack, *picture = (1, *space.shape) if len(space.shape) < 4 else space.shape
    if len(picture) == 2:
        return (stack, picture[0], picture[1])
    if picture[0] <= picture[2]:
        return (stack * picture[0], picture[1], picture[2])
    return (stack * picture[2], picture[0], picture[1])


def channels_first(observation_BF: np.ndarray, space: Space) -> np.ndarray:
    """Pictures of that space as uint8 [B, C, H, W]; oldest of a stack first."""
    shape = image_shape(space)
    assert shape is not None and isinstance(space, Box)
    *_, first, _, last = (0, *space.shape)
    if len(space.shape) > 2 and first > last:
        observation_BF = np.moveaxis(observation_BF, -1, -3)
    return np.ascontiguousarray(observation_BF).reshape(len(observation_BF), *shape)


def picture(observation_F: np.ndarray, space: Space, side: int = 320) -> np.ndarray:
    """The newest picture of an observation for people: uint8 [height, width, 3], enlarged by a whole number to about `side`."""
    image_CHW = channels_first(observation_F[None], space)[0]
    colours = image_CHW[-3:] if _coloured(space) else image_CHW[-1:].repeat(3, 0)
    factor = max(1, round(side / max(colours.shape[1:])))
    return np.ascontiguousarray(colours.transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1))


def _coloured(space: Space) -> bool:
    """Whether the last channels are red, green and blue rather than three moments."""
    shape = getattr(space, "shape", ())
    return (len(shape) == 4 and 3 in (shape[1], shape[3])) or (len(shape) == 3 and shape[2] == 3)
