"""A reward learned from preferences about pictures: an ensemble of small convolutional networks."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lineal.models.convolution import SMALL, ConvolutionShape, Filters
from lineal.models.reward import Ensemble, load_parts

ATARI: Filters = ((16, 7, 3), (16, 5, 2), (16, 3, 1), (16, 3, 1))
"""Christiano et al. 2017, appendix A.2."""
MOMENTUM, EPS = 0.1, 1e-5


@dataclass(frozen=True)
class PixelRewardConfig:
    """The shape of an ensemble that looks at pictures.

    image: channels, height, width. hidden: width after the convolutions. members: networks. dropout: after each convolution
    while fitting. noise: standard deviation of what is then added to the pictures, whose pixels lie between 0 and 1.
    slope: of the leaky ReLU below 0.
    """

    image: tuple[int, int, int]
    filters: Filters = ()
    hidden: int = 64
    members: int = 3
    dropout: float = 0.5
    noise: float = 0.1
    slope: float = 0.01

    @property
    def shape(self) -> ConvolutionShape:
        """Where the layers' sizes come from; UsageError where the convolutions do not fit."""
        usual = ATARI if min(self.image[1:]) >= 43 else SMALL
        return ConvolutionShape(self.image, self.filters or usual, (self.hidden,), 1)


class PixelReward(Ensemble):
    """M networks r_m(picture): convolutions with batch normalisation and dropout, a hidden layer, a number.

    As Christiano et al. 2017 have it for Atari (appendix A.2), where the action is not shown to the reward. While a member is
    fitted its batch statistics are of the steps it drew in its bootstrap, as often as it drew them: what it holds out has no
    part in them, and is judged by them. Afterwards each member has running ones of its own. Dropout and noise are functions
    of what `reseed` was given.
    """

    at_once = 512

    def __init__(self, config: PixelRewardConfig, seed: int = 0) -> None:
        super().__init__(config.members)
        self.config, self.shape = config, config.shape
        order = torch.Generator().manual_seed(seed)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for size in self.shape.weights:
            bound = 1 / math.sqrt(math.prod(size[1:]))
            for owner, shape in ((self.weights, size), (self.biases, size[:1])):
                draw = torch.rand(config.members, *shape, generator=order) * 2 - 1
                owner.append(nn.Parameter(draw * bound))
        for index, (filters, _, _) in enumerate(self.shape.filters):
            self.register_buffer(f"batch_mean_{index}", torch.zeros(config.members, filters))
            self.register_buffer(f"batch_variance_{index}", torch.ones(config.members, filters))
        self._random = torch.Generator().manual_seed(seed)

    def reseed(self, seed: int) -> None:
        """Fix the dropout and the noise that follow."""
        self._random.manual_seed(seed % 2**63)

    def forward(
        self, feature_NF: Tensor, weight_MN: Float[Tensor, "M N"] | None = None
    ) -> Float[Tensor, "M N"]:
        """The raw reward of each member for pictures, uint8 [N, C·H·W].

        weight_MN: while fitting, how often each member drew the step; without it all count alike.
        """
        image = feature_NF.view(len(feature_NF), *self.config.image).float() / 255
        if self.training and self.config.noise:
            image = image + self.config.noise * torch.randn(image.shape, generator=self._random)
        weights = [None] * self.members if weight_MN is None else list(weight_MN)
        return torch.stack([self._member(m, image, weights[m]) for m in range(self.members)])

    def _member(self, m: int, x: Tensor, weight_N: Tensor | None) -> Tensor:
        slope = self.config.slope
        for index, (_, _, stride) in enumerate(self.shape.filters):
            x = F.conv2d(x, self.weights[index][m], self.biases[index][m], stride)
            x = F.leaky_relu(self._normalised(x, m, index, weight_N), slope)
            x = self._dropped(x)
        dense = range(len(self.shape.filters), len(self.weights))
        x_NH = F.leaky_relu(
            F.linear(x.flatten(1), self.weights[dense[0]][m], self.biases[dense[0]][m]), slope
        )
        return F.linear(x_NH, self.weights[dense[1]][m], self.biases[dense[1]][m])[:, 0]

    def _dropped(self, x: Tensor) -> Tensor:
        p = self.config.dropout
        if not (self.training and p):
            return x
        return x * (torch.rand(x.shape, generator=self._random) >= p) / (1 - p)

    def _normalised(self, x: Tensor, m: int, index: int, weight_N: Tensor | None) -> Tensor:
        """(x - mean) / sqrt(variance + 1e-5) per filter, of the batch while fitting, else of what was seen then."""
        kept_mean, kept_variance = (
            getattr(self, f"batch_{name}_{index}")[m] for name in ("mean", "variance")
        )
        mean_C, variance_C = kept_mean, kept_variance
        if self.training:
            share_N = torch.ones(len(x)) if weight_N is None else weight_N
            share_N111 = (share_N / share_N.sum().clamp(min=1e-12) / math.prod(x.shape[2:])).view(-1, 1, 1, 1)
            mean_C = (x * share_N111).sum((0, 2, 3))
            variance_C = ((x - mean_C[:, None, None]).square() * share_N111).sum((0, 2, 3))
            if bool(share_N.sum() > 0):
                with torch.no_grad():
                    kept_mean.lerp_(mean_C, MOMENTUM)
                    kept_variance.lerp_(variance_C, MOMENTUM)
            else:
                mean_C, variance_C = kept_mean, kept_variance
        return (x - mean_C[:, None, None]) * torch.rsqrt(variance_C + EPS)[:, None, None]

    @torch.no_grad()
    def standardise_on(self, feature_NF: Tensor) -> None:
        """Nothing: pixels are scaled by a constant."""

    def fast(self) -> FastPixelReward:
        """The same reward, with the weights of the moment, for those who ask while a fit goes on."""
        return FastPixelReward(self)

    @classmethod
    def load(cls, folder: Path) -> PixelReward:
        """The ensemble that `save` wrote; ModelError where the folder holds none."""
        return load_parts(folder, lambda record: cls(PixelRewardConfig(**record)))


class FastPixelReward:
    """`PixelReward.reward` of pictures as numpy has them, with weights that no longer move."""

    def __init__(self, ensemble: PixelReward) -> None:
        self._ensemble = copy.deepcopy(ensemble).eval()

    def __call__(self, feature_NF: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The normalised reward of each step, [N]."""
        held = self._ensemble
        reward_MN = (torch.from_numpy(self.raw(feature_NF)) - held.mean_M[:, None]) / held.std_M[:, None]
        return reward_MN.double().mean(0).numpy()

    def raw(self, feature_NF: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The reward of each step by each member, before normalisation, [M, N]."""
        return self._ensemble.raw(torch.from_numpy(feature_NF)).numpy()
