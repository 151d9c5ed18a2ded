"""A policy for control, and its critic: networks in one flat matrix, with the normalisers they were trained with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models.actions import ActionKind, Choices, Gaussian
from lineal.models.convolution import ConvolutionShape, Filters, as_tuple
from lineal.models.normaliser import Normaliser
from lineal.models.perceptron import Layers, Shape, cotangent, entered, start
from lineal.types import Scores


@dataclass(frozen=True)
class ControlConfig:
    """What a control policy is made of.

    features: numbers in an observation. choices: sizes of its discrete actions; () for real ones, of which there are
    `reals`. critic: it has one. The last weights start at 0.01 (policy) and 1 (critic), hidden ones at sqrt 2, all
    orthogonal, or as torch's Linear where `orthogonal` is false. image: (channels, height, width) of observations that are
    pictures, which `convolutions` then read before the hidden layers; () for rows of numbers. shared: the critic is one
    more output of the policy's network.
    """

    features: int
    choices: tuple[int, ...] = ()
    reals: int = 0
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    covariance: str = "diagonal"
    learn_std: bool = True
    log_std: float = 0.0
    orthogonal: bool = True
    critic: bool = True
    normalise_observations: bool = False
    normalise_rewards: bool = False
    image: tuple[int, ...] = ()
    convolutions: Filters = ()
    shared: bool = False

    def __post_init__(self) -> None:
        if bool(self.choices) == bool(self.reals):
            raise UsageError(
                f"a policy with choices {self.choices} and {self.reals} real numbers: its actions are either. Give one."
            )
        if self.image and self.normalise_observations:
            raise UsageError(
                "--normalise-observations: pictures are divided by 255 inside the policy. Drop it, or use --network perceptron."
            )

    @property
    def actions(self) -> ActionKind:
        """The kind of its actions."""
        return Choices(self.choices) if self.choices else Gaussian(self.reals, self.covariance)

    @property
    def shape(self) -> Shape:
        """The shape of its perceptrons; the critic uses the first of the outputs."""
        kind = self.actions
        return Shape((self.features, *self.hidden, kind.outputs), self.activation, kind.spread)

    @property
    def convolution_shape(self) -> ConvolutionShape:
        """The shape of its convolutional networks."""
        kind = self.actions
        channels, height, width = self.image
        outputs = kind.outputs + self.shared
        picture = (channels, height, width)
        return ConvolutionShape(
            picture, self.convolutions, self.hidden, outputs, self.activation, kind.spread
        )

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ControlConfig:
        """The configuration that `config_to_json` and JSON made a record of."""
        return cls(**{name: as_tuple(x) for name, x in record.items()})


class FlatPolicy(nn.Module):
    """A policy for control and its critic over the same observations; everything learned is `theta`, [K, P].

    The last `actions.spread` numbers of row 0 are the covariance's. Inputs are already normalised (`Actor` does that as it
    acts); float32 unless `dtype` says float64. at_once: most steps of a micro-batch; None reads all at once.
    """

    at_once: int | None = None

    def __init__(self, config: ControlConfig, theta_KP: Float[Tensor, "K P"], dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.actions = config, config.actions
        theta_KP[0, theta_KP.shape[1] - self.actions.spread :][: config.reals] = config.log_std
        self.theta = nn.Parameter(theta_KP.to(dtype))
        self.observation = Normaliser(config.features) if config.normalise_observations else None
        self.reward = Normaliser(1) if config.normalise_rewards else None

    @property
    def moving(self) -> int:
        """How many of the actor's numbers, from the first, are learned: all but a fixed covariance's."""
        return self.theta.shape[1] - (0 if self.config.learn_std else self.actions.spread)

    @property
    def spread_tail(self) -> Float[Tensor, " E"]:
        """The covariance's parameters, a view."""
        return self.theta.data[0, self.theta.shape[1] - self.actions.spread :]

    def spread(self) -> Float[Tensor, " E"]:
        """The covariance's parameters."""
        return self.spread_tail.detach()

    def outputs(self, input_NF: Tensor, part: slice = slice(None)) -> Float[Tensor, "K N O"]:
        """What the networks (or only those of `part`) say of inputs, without gradients."""
        raise NotImplementedError

    def read(self, input_NF: Tensor, part: slice = slice(None)) -> Reading:
        """The same as a `Reading`: what scores and gradients are made from."""
        raise NotImplementedError

    def named_layers(self) -> list[tuple[str, Tensor, Tensor]]:
        """(name, weight [out, in, ...], bias) of each layer: views of theta, as files hold them."""
        raise NotImplementedError


class ControlPolicy(FlatPolicy):
    """Actor (row 0) and critic (row 1), two perceptrons alike on rows of numbers."""

    def __init__(self, config: ControlConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        self.shape = config.shape
        generator = torch.Generator().manual_seed(seed)
        used = (config.actions.outputs, 1)[: 1 + config.critic]
        super().__init__(config, start(self.shape, used, (0.01, 1.0), config.orthogonal, generator), dtype)

    def outputs(self, input_NF: Tensor, part: slice = slice(None)) -> Float[Tensor, "K N O"]:
        """What the perceptrons say of inputs."""
        return self.read(input_NF, part).output_KNO.detach()

    def read(
        self, input_NF: Float[Tensor, "N F"], part: slice = slice(None), layers: Layers | None = None
    ) -> PerceptronReading:
        """Run the perceptrons (or only those of `part`) on inputs: what scores and gradients are made from.

        layers: those of `part`, for whoever reads often and keeps them.
        """
        if layers is None:
            layers = self.shape.layers(self.theta.detach()[part])
        inner = entered(layers, input_NF, self.shape)
        return PerceptronReading(self, layers, inner, self.spread())

    def named_layers(self) -> list[tuple[str, Tensor, Tensor]]:
        """(name, weight, bias), views of theta, of each layer as files hold it."""
        layers, found = self.shape.layers(self.theta.data), []
        for k, who in enumerate(("actor", "critic")[: self.theta.shape[0]]):
            for index, (weight_KIO, bias_K1O) in enumerate(layers):
                used = 1 if who == "critic" and index + 1 == len(layers) else weight_KIO.shape[2]
                found.append((f"{who}.{index}", weight_KIO[k, :, :used].T, bias_K1O[k, 0, :used]))
        return found


class Reading:
    """Networks' outputs on some inputs (actor in row 0, value in the first column of the last row), and gradients."""

    policy: FlatPolicy
    output_KNO: Tensor
    spread_E: Tensor

    def scores(self, action: Tensor, *, entropy: bool = False, old: Old | None = None) -> Scores:
        """logp, value, and on request entropy and exact KL from the old policy, each [N, 1]: a step is a row."""
        kind, output_NO = self.policy.actions, self.output_KNO[0]
        logp_N1 = kind.logp(output_NO, self.spread_E, action)[:, None]
        value_N1 = self.output_KNO[1, :, :1] if self.output_KNO.shape[0] > 1 else None
        entropy_N1 = kind.entropy(output_NO, self.spread_E)[:, None] if entropy else None
        kl_N1 = None
        if old is not None:
            kl_N1 = kind.kl(old.output_NO, old.spread_E, output_NO, self.spread_E)[:, None]
        return Scores(logp_N1, entropy_N1, kl_N1, value_N1)

    def old(self) -> Old:
        """What was said, held: the policy that later ones are measured from."""
        return Old(self.output_KNO.detach()[0], self.spread_E.detach())

    def gradient(self, loss: Float[Tensor, ""], into_KP: Float[Tensor, "K P"]) -> None:
        """Write the gradient of a loss made of `scores` into a flat matrix."""
        raise NotImplementedError


class PerceptronReading(Reading):
    """The perceptrons' outputs as leaves of autograd, and the way back from them to theta.

    Autograd sees only what is made of the outputs, that is, the objective; through the perceptrons the gradient is
    written out by hand, which takes half the time.
    """

    def __init__(self, policy: ControlPolicy, layers: Layers, inner: list[Tensor], spread_E: Tensor) -> None:
        self.policy, self.shape, self.layers, self.inner = policy, policy.shape, layers, inner
        self.output_KNO = inner[-1].requires_grad_()
        self.spread_E = (
            spread_E.clone().requires_grad_(policy.config.learn_std) if len(spread_E) else spread_E
        )

    def gradient(self, loss: Float[Tensor, ""], into_KP: Float[Tensor, "K P"]) -> None:
        """Write the gradient of a loss made of `scores` into a flat matrix."""
        shape = self.shape
        leaves = [self.output_KNO, self.spread_E] if self.spread_E.requires_grad else [self.output_KNO]
        slopes = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        self.pull(slopes[0], slopes[1] if len(slopes) > 1 else None, shape.layers(into_KP), into_KP)

    def pull(
        self, to_output_KNO: Tensor, to_spread_E: Tensor | None, into: Layers, into_KP: Float[Tensor, "K P"]
    ) -> None:
        """Write the gradient in theta, given that in the outputs and in the spread; `into`: layers of `into_KP`."""
        shape = self.shape
        cotangent(self.layers, to_output_KNO, self.inner, into, shape)
        if shape.extra:
            tail_KE = shape.tail(into_KP).zero_()
            if to_spread_E is not None and self.spread_E.requires_grad:
                tail_KE[0] = to_spread_E


@dataclass(frozen=True)
class Old:
    """What the policy said before an update, of which exact KL is measured: outputs of each step, and covariance."""

    output_NO: Tensor
    spread_E: Tensor

    def rows(self, index_N: Tensor | slice) -> Old:
        """The outputs of some steps."""
        return Old(self.output_NO[index_N], self.spread_E)


def named_tensors(policy: FlatPolicy) -> dict[str, Tensor]:
    """The policy as files hold it: a weight [out, in, ...] and a bias per layer, log-std, and the normalisers' buffers."""
    found: dict[str, Tensor] = {}
    for name, weight, bias in policy.named_layers():
        found |= {f"{name}.weight": weight.contiguous().clone(), f"{name}.bias": bias.clone()}
    if policy.actions.spread:
        found["actor.spread"] = policy.spread().clone()
    return found | {name: x.clone() for name, x in policy.named_buffers()}


@torch.no_grad()
def load_tensors(policy: FlatPolicy, tensors: dict[str, Tensor]) -> None:
    """Put back what `named_tensors` gave; raises UsageError where the tensors are those of another policy."""
    present = named_tensors(policy)
    odd = sorted(n for n in {*present, *tensors} if _shape(present, n) != _shape(tensors, n))
    if odd:
        raise UsageError(
            f"the policy's file does not fit its configuration: {odd[0]} is {_shape(tensors, odd[0])} and should be "
            f"{_shape(present, odd[0])}. Use the two files of one run together."
        )
    for name, weight, bias in policy.named_layers():
        weight.copy_(tensors[f"{name}.weight"])
        bias.copy_(tensors[f"{name}.bias"])
    if policy.actions.spread:
        policy.spread_tail.copy_(tensors["actor.spread"])
    for name, buffer in policy.named_buffers():
        buffer.copy_(tensors[name])


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "absent"


def config_to_json(config: ControlConfig) -> dict[str, Any]:
    """The configuration as JSON values."""
    return dataclasses.asdict(config)
