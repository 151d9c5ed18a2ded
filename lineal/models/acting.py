"""Acting in numpy: for the few observations of one step torch's own overhead is most of the time.

The arrays are views of the policy's parameters, so an `Actor` always acts with the policy as it is now; a test ties
what it computes to what torch computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lineal.models.actions import Choices
from lineal.models.control import ControlPolicy, FlatPolicy
from lineal.models.normaliser import CLIP


class Actor:
    """How a policy's outputs become actions, in numpy; what the outputs are is the network's own.

    dtype: of outputs and real-valued actions. input_dtype: of what the network reads. Call `refresh` when the normaliser or
    the covariance may have moved: before each rollout.
    """

    def __init__(self, policy: FlatPolicy) -> None:
        self.policy = policy
        self.dtype: Any = np.float64 if policy.theta.dtype.itemsize == 8 else np.float32
        self.input_dtype: Any = self.dtype
        self._spread_E = policy.spread().numpy()
        self._kind = policy.actions
        self.refresh()

    def refresh(self) -> None:
        """Read the normaliser and the covariance anew."""
        normaliser = self.policy.observation
        self._mean_F = None if normaliser is None else normaliser.mean.numpy()
        self._scale_F = None if normaliser is None else normaliser.scale()
        self._factor_AA = np.zeros((0, 0)) if isinstance(self._kind, Choices) else self._factor()

    def _factor(self) -> np.ndarray:
        size = self._kind.outputs
        factor_AA = np.diag(np.exp(self._spread_E[:size]))
        factor_AA[np.tril_indices(size, -1)] = self._spread_E[size:] if len(self._spread_E) > size else 0.0
        return factor_AA

    def normalised(self, feature_BF: np.ndarray) -> np.ndarray:
        """What the policy reads of an observation: normalised where it has a normaliser, in its own precision."""
        if self._mean_F is None:
            return feature_BF.astype(self.dtype, copy=False)
        scaled_BF = np.subtract(feature_BF, self._mean_F)
        scaled_BF *= self._scale_F
        return np.clip(scaled_BF, -CLIP, CLIP, out=scaled_BF).astype(self.dtype)

    def outputs(self, input_BF: np.ndarray) -> np.ndarray:
        """The actor's outputs for normalised inputs."""
        raise NotImplementedError

    def noise(self, random: np.random.Generator, steps: int, count: int) -> np.ndarray:
        """The randomness of `steps` steps of `count` copies: uniforms for choices, normals for real numbers."""
        if isinstance(self._kind, Choices):
            return random.random((steps, count, len(self._kind.sizes)))
        return random.standard_normal((steps, count, self._kind.outputs))

    def draw(self, output_BO: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """An action for each row, from its outputs and its share of the noise."""
        if not isinstance(self._kind, Choices):
            return output_BO + (noise @ self._factor_AA.T).astype(self.dtype)
        if len(self._kind.sizes) == 1:
            return _choose(output_BO, noise[:, :1])
        parts = np.split(output_BO, np.cumsum(self._kind.sizes)[:-1], axis=1)
        return np.stack([_choose(part, noise[:, i : i + 1]) for i, part in enumerate(parts)], axis=1)

    def best(self, output_BO: np.ndarray) -> np.ndarray:
        """The most probable action of each row."""
        if not isinstance(self._kind, Choices):
            return output_BO
        if len(self._kind.sizes) == 1:
            return output_BO.argmax(1)
        parts = np.split(output_BO, np.cumsum(self._kind.sizes)[:-1], axis=1)
        return np.stack([part.argmax(1) for part in parts], axis=1)


class PerceptronActor(Actor):
    """A policy's first perceptron in numpy."""

    def __init__(self, policy: ControlPolicy) -> None:
        super().__init__(policy)
        layers = policy.shape.layers(policy.theta.detach())
        self._layers = [(weight_KIO[0].numpy(), bias_K1O[0, 0].numpy()) for weight_KIO, bias_K1O in layers]
        self._tanh = policy.shape.activation == "tanh"

    def outputs(self, input_BF: np.ndarray) -> np.ndarray:
        """The actor's outputs for normalised inputs."""
        x = input_BF
        last = len(self._layers) - 1
        for index, (weight_IO, bias_O) in enumerate(self._layers):
            x = x @ weight_IO
            x += bias_O
            if index < last:
                x = np.tanh(x, out=x) if self._tanh else np.maximum(x, 0, out=x)
        return x


class PixelActor(Actor):
    """A policy's convolutions in torch, on pictures as they are: uint8 [B, C, H, W]."""

    def __init__(self, policy: FlatPolicy) -> None:
        super().__init__(policy)
        self.input_dtype = np.uint8

    def normalised(self, feature_BF: np.ndarray) -> np.ndarray:
        """The pictures: the network itself divides them by 255."""
        return feature_BF

    def outputs(self, input_BF: np.ndarray) -> np.ndarray:
        """The actor's outputs for pictures."""
        return self.policy.outputs(torch.from_numpy(input_BF), slice(0, 1))[0].numpy()


def actor_of(policy: FlatPolicy) -> Actor:
    """The actor for this kind of policy."""
    return PerceptronActor(policy) if isinstance(policy, ControlPolicy) else PixelActor(policy)


def _choose(logits_BV: np.ndarray, uniform_B1: np.ndarray) -> np.ndarray:
    """The first choice whose cumulative probability exceeds the uniform."""
    weight_BV = np.exp(logits_BV - logits_BV.max(1, keepdims=True))
    total_BV = weight_BV.cumsum(1, dtype=np.float64)
    return (total_BV[:, :-1] <= uniform_B1 * total_BV[:, -1:]).sum(1)
