"""Running means and deviations as buffers, so that they are saved, loaded and frozen with the policy that needs them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

CLIP = 10.0
EPS = 1e-8


class Normaliser(nn.Module):
    """(x - mean) / sqrt(variance + 1e-8), cut at ±10, from every x that `update` saw; the identity before that.

    Mean and sum of squared deviations are merged batch by batch in float64  (Chan, Golub and LeVeque 1983). They move
    only in `update`, which training calls between iterations: within a rollout and its update the policy is one fixed
    function, so the ratio of the first step is exactly 1.
    """

    count: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("deviation", torch.zeros(size, dtype=torch.float64))

    def update(self, x_NF: np.ndarray) -> None:
        """Take in a batch of rows."""
        x_NF = np.asarray(x_NF, np.float64)
        mean, deviation, count = self.mean.numpy(), self.deviation.numpy(), float(self.count)
        fresh = x_NF.mean(0)
        gap, total = fresh - mean, count + len(x_NF)
        deviation += np.square(x_NF - fresh).sum(0) + np.square(gap) * (count * len(x_NF) / total)
        mean += gap * (len(x_NF) / total)
        self.count.fill_(total)

    def scale(self) -> np.ndarray:
        """1 / sqrt(variance + 1e-8) of each number; 1 before anything was seen."""
        count = float(self.count)
        if not count:
            return np.ones(self.mean.shape[0])
        return 1 / np.sqrt(self.deviation.numpy() / count + EPS)

    def apply_to(self, x_BF: np.ndarray) -> np.ndarray:
        """The rows, normalised, in float64."""
        return np.clip((x_BF - self.mean.numpy()) * self.scale(), -CLIP, CLIP)


def fill_returns(
    carried_B: np.ndarray, reward_BT: np.ndarray, ended_BT: np.ndarray, discount: float
) -> np.ndarray:
    """R_t = discount · R_{t-1} + r_t along each row, from `carried_B` on, 0 again after an end; [B, T].

    Its standard deviation is what rewards are divided by. `carried_B` is left at where the next rollout goes on.
    """
    running_TB = np.empty(reward_BT.T.shape)
    for t, (reward_B, ended_B) in enumerate(zip(reward_BT.T, ended_BT.T, strict=True)):
        carried_B *= discount
        carried_B += reward_B
        running_TB[t] = carried_B
        carried_B[ended_B] = 0.0
    return running_TB.T
