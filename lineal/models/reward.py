"""A reward learned from preferences: a small ensemble of networks on (observation, action)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lineal.errors import ModelError
from lineal.models.convolution import as_tuple

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class RewardConfig:
    """The shape of a reward ensemble.

    inputs: features of a step, the observation and then the action (a discrete one as one-hot). hidden: widths.
    members: networks. dropout: on hidden layers while fitting. slope: of the leaky ReLU below 0.
    """

    inputs: int
    hidden: tuple[int, ...] = (64, 64)
    members: int = 3
    dropout: float = 0.0
    slope: float = 0.01


E = TypeVar("E", bound="Ensemble")
AT_ONCE = 4096


class Ensemble(nn.Module):
    """What every ensemble of reward networks has: M of them, normalised one by one, and files.

    weights: ParameterList whose entries begin with the axis of members; what L2 shrinks.
    """

    config: Any
    weights: nn.ParameterList
    mean_M: Tensor
    std_M: Tensor
    at_once = AT_ONCE

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members
        self.register_buffer("mean_M", torch.zeros(members))
        self.register_buffer("std_M", torch.ones(members))
        # Whoever fits says so; everyone else asks what it has learned.
        self.training = False

    def reseed(self, seed: int) -> None:
        """Fix what is random while fitting, if anything is."""

    @torch.no_grad()
    def raw(self, feature_NF: Tensor) -> Float[Tensor, "M N"]:
        """The raw reward of each member, a part of the steps at a time."""
        return torch.cat([self(part) for part in feature_NF.split(self.at_once)], 1)

    @torch.no_grad()
    def reward(self, feature_NF: Tensor) -> Float[Tensor, " N"]:
        """The mean of the members, each normalised to mean 0 and standard deviation 1 on recent experience."""
        return ((self.raw(feature_NF) - self.mean_M[:, None]) / self.std_M[:, None]).mean(0)

    @torch.no_grad()
    def normalise_on(self, feature_NF: Tensor) -> None:
        """Set each member's mean and standard deviation from its rewards on these steps."""
        reward_MN = self.raw(feature_NF).double()
        std_M = reward_MN.std(1, correction=0)
        self.mean_M.copy_(reward_MN.mean(1))
        self.std_M.copy_(torch.where(std_M > 1e-8, std_M, torch.ones_like(std_M)))

    def standardise_on(self, feature_NF: Tensor) -> None:
        """Learn the inputs' scale from these steps."""
        raise NotImplementedError

    def fast(self) -> Any:
        """The same reward for numpy, with the weights of the moment: callable, and with `raw`."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")
        save_file({name: x.contiguous() for name, x in self.state_dict().items()}, folder / WEIGHTS)


def load_parts(folder: Path, make: Callable[[dict[str, Any]], E]) -> E:
    """The ensemble of a folder that `save` wrote, made from its configuration; ModelError where it holds none."""
    try:
        record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        ensemble = make({name: as_tuple(x) for name, x in record.items()})
        ensemble.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} holds no reward ensemble ({type(error).__name__}: {error}): it takes the {CONFIG} and {WEIGHTS} "
            "that `lineal run preferences` writes."
        ) from error
    return ensemble


class RewardEnsemble(Ensemble):
    """M networks r_m(observation, action), whose mean after normalisation is the reward  (Christiano et al. 2017, 2.2).

    r(o, a) = mean_m (r_m(o, a) - mean_m) / std_m, where mean_m and std_m are over recent experience (`normalise_on`),
    because preferences leave each member's offset and scale open. Inputs are standardised with `input_mean_F` and
    `input_std_F`. Both normalisers are buffers: saved with the weights and frozen with them.
    Departs from the paper in standardising the inputs; its networks otherwise: two layers of 64, leaky ReLU.
    """

    input_mean_F: Tensor
    input_std_F: Tensor

    def __init__(self, config: RewardConfig, seed: int = 0) -> None:
        super().__init__(config.members)
        self.config = config
        order = torch.Generator().manual_seed(seed)
        widths = (config.inputs, *config.hidden, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for low, high in pairwise(widths):
            bound = 1 / math.sqrt(low)
            for owner, shape in ((self.weights, (low, high)), (self.biases, (1, high))):
                draw = torch.rand(config.members, *shape, generator=order) * 2 - 1
                owner.append(nn.Parameter(draw * bound))
        self.register_buffer("input_mean_F", torch.zeros(config.inputs))
        self.register_buffer("input_std_F", torch.ones(config.inputs))

    def forward(
        self, feature_NF: Float[Tensor, "N F"], weight_MN: Float[Tensor, "M N"] | None = None
    ) -> Float[Tensor, "M N"]:
        """The raw reward of each member for each step, whatever else is in the batch or how often it was drawn."""
        x_NF = (feature_NF - self.input_mean_F) / self.input_std_F
        # Plain products member by member: on a CPU their backward is twice as fast as that of batched ones.
        layers = [
            list(zip(weight.unbind(0), bias.unbind(0), strict=True))
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]
        return torch.stack(
            [self._member([layer[m] for layer in layers], x_NF) for m in range(self.config.members)]
        )

    def _member(self, layers: list[tuple[Tensor, Tensor]], x_NH: Tensor) -> Tensor:
        for weight, bias in layers[:-1]:
            x_NH = F.leaky_relu(torch.addmm(bias, x_NH, weight), self.config.slope, inplace=True)
            if self.config.dropout and self.training:
                x_NH = F.dropout(x_NH, self.config.dropout)
        weight, bias = layers[-1]
        return torch.addmm(bias, x_NH, weight)[:, 0]

    @torch.no_grad()
    def standardise_on(self, feature_NF: Float[Tensor, "N F"]) -> None:
        """Set the inputs' mean and standard deviation from these steps; constant inputs keep scale 1."""
        self.input_mean_F.copy_(feature_NF.double().mean(0))
        std_F = feature_NF.double().std(0, correction=0)
        self.input_std_F.copy_(torch.where(std_F > 1e-6, std_F, torch.ones_like(std_F)))

    def fast(self) -> FastReward:
        """The same reward for numpy, for the few steps at a time that an environment asks about."""
        return FastReward(self)

    @classmethod
    def load(cls, folder: Path) -> RewardEnsemble:
        """The ensemble that `save` wrote; ModelError where the folder holds none."""
        return load_parts(folder, lambda record: cls(RewardConfig(**record)))


class FastReward:
    """`RewardEnsemble.reward` in numpy, with the weights of the moment: no graph, no dispatch per operation."""

    def __init__(self, ensemble: RewardEnsemble) -> None:
        self.slope = np.float32(ensemble.config.slope)
        weights = [x.detach().numpy().copy() for x in ensemble.weights]
        biases = [x.detach().numpy().copy() for x in ensemble.biases]
        # The first layer sees the same input for every member, so it is one plain product.
        scale_F = 1 / ensemble.input_std_F.numpy()
        first_FK = np.concatenate(list(weights[0] * scale_F[:, None]), 1)
        shift_K = np.concatenate(list(biases[0]), 1)[0] - ensemble.input_mean_F.numpy() @ first_FK
        self.first_FK, self.shift_K = first_FK, shift_K
        self.weights, self.biases = weights[1:], biases[1:]
        self.members = ensemble.config.members
        self.mean_M, self.std_M = ensemble.mean_M.numpy().copy(), ensemble.std_M.numpy().copy()

    def __call__(self, feature_NF: NDArray[np.float32]) -> NDArray[np.float64]:
        """The normalised reward of each step, [N]."""
        reward_MN = (self.raw(feature_NF) - self.mean_M[:, None]) / self.std_M[:, None]
        return reward_MN.mean(0, dtype=np.float64)

    def raw(self, feature_NF: NDArray[np.float32]) -> NDArray[np.float32]:
        """The reward of each step by each member, before normalisation, [M, N]."""
        x_NK = feature_NF @ self.first_FK + self.shift_K
        x_MNH = x_NK.reshape(len(x_NK), self.members, -1).swapaxes(0, 1)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x_MNH = np.matmul(np.maximum(x_MNH, self.slope * x_MNH), weight) + bias
        return x_MNH[..., 0]


def step_features(
    observation_NF: NDArray[Any], action_N: NDArray[Any], choices: Sequence[int]
) -> NDArray[np.float32]:
    """What the networks see of each step: the flat observation beside the action.

    choices: how many there are of each discrete part of the action, which becomes one-hot; () for a continuous action.
    """
    count = len(observation_NF)
    parts = [np.asarray(observation_NF, np.float32).reshape(count, -1)]
    action_NA = np.asarray(action_N).reshape(count, -1)
    if choices:
        parts += [
            np.eye(n, dtype=np.float32)[action_NA[:, i].astype(np.int64)] for i, n in enumerate(choices)
        ]
    else:
        parts.append(action_NA.astype(np.float32))
    return np.concatenate(parts, 1)
