"""The labels as tensors, ready to fit: every segment once, every label with its weight for every member."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from lineal.environments.preferences.records import Label, Pair, Segment
from lineal.environments.preferences.teachers import uniform

Features = Callable[[Segment], NDArray[Any]]
"""A segment's steps as the networks see them, [T, F]: float, or uint8 where they are pictures."""


class Pictures:
    """The features of segments that show pictures, made when they are asked for: as one tensor they would fill the memory.

    Indexing with places gives uint8 [P, T, F], padded with 0.
    """

    dtype = torch.uint8

    def __init__(self, segments: Sequence[Segment], features: Features) -> None:
        self._segments, self._features = segments, features

    def __len__(self) -> int:
        return len(self._segments)

    def __getitem__(self, place_P: Tensor) -> Tensor:
        found = [torch.from_numpy(self._features(self._segments[i])) for i in place_P.tolist()]
        longest = max(map(len, self._segments))
        padded = found[0].new_zeros(len(found), longest, found[0].shape[1])
        for row, part in zip(padded, found, strict=True):
            row[: len(part)] = part
        return padded


@dataclass(frozen=True)
class Comparisons:
    """N labels about S segments of at most T steps, for M members.

    feature_STF, mask_ST: the segments, padded (pictures are made when indexed). first_N, second_N: places in 0..S-1. preference_N: μ. weight_MN: how
    often member m drew label n: 0 means that the member holds it out, to be validated on.
    """

    feature_STF: Float[Tensor, "S T F"] | Pictures
    mask_ST: Bool[Tensor, "S T"]
    first_N: Int[Tensor, " N"]
    second_N: Int[Tensor, " N"]
    preference_N: Float[Tensor, " N"]
    weight_MN: Float[Tensor, "M N"]

    @property
    def steps(self) -> Float[Tensor, "X F"]:
        """Every counted step of every segment."""
        everything_S = torch.arange(len(self.feature_STF))
        return self.feature_STF[everything_S][self.mask_ST]


def bootstrap(label: Label, members: int, seed: int = 0) -> list[int]:
    """How often each member draws a label: Poisson(1), so that each holds out a share of exactly 1/e of them.

    Drawing N of N with replacement leaves each label out with probability (1 - 1/N)^N → 1/e, the share that Christiano
    et al. (2017) hold out per member; the Poisson form (Oza and Russell 2001) is its limit and needs no redraw when
    labels arrive. A function of (seed, member, label): a label that is held out stays held out.
    """
    return [_poisson(uniform("bootstrap", seed, m, label.pair, label.labeller)) for m in range(members)]


def _poisson(u: float) -> int:
    """The count whose cumulative probability under Poisson(1) first exceeds u."""
    count, term = 0, math.exp(-1)
    total = term
    while u >= total and count < 20:
        count += 1
        term /= count
        total += term
    return count


def compare(
    labels: Sequence[Label],
    pairs: Mapping[str, Pair],
    segments: Mapping[str, Segment],
    features: Features,
    members: int,
    seed: int = 0,
) -> Comparisons | None:
    """The labels as tensors; "can't tell" and control answers are left out, None where nothing remains."""
    used = [label for label in labels if label.preference is not None and not label.control]
    if not used:
        return None
    sides = [(pairs[label.pair].first, pairs[label.pair].second) for label in used]
    place = {name: i for i, name in enumerate(dict.fromkeys(side for both in sides for side in both))}
    shown = [segments[name] for name in place]
    first = features(shown[0])
    if first.dtype == np.uint8:
        feature_STF, dtype = Pictures(shown, features), torch.float32
    else:
        parts = [torch.from_numpy(features(segment)) for segment in shown]
        feature_STF, dtype = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), parts[0].dtype
    length_S = torch.tensor([len(segment) for segment in shown])
    draws = [bootstrap(label, members, seed) for label in used]
    return Comparisons(
        feature_STF,
        torch.arange(int(length_S.max())) < length_S[:, None],
        torch.tensor([place[first] for first, _ in sides]),
        torch.tensor([place[second] for _, second in sides]),
        torch.tensor([label.preference for label in used], dtype=dtype),
        torch.tensor(draws, dtype=dtype).T.contiguous(),
    )
