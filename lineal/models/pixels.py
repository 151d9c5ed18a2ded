"""A policy that reads pictures, with its critic: one convolutional network for both, or one each for a natural step."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.models.control import ControlConfig, ControlPolicy, FlatPolicy, Reading
from lineal.models.convolution import ConvolutionShape, Pieces
from lineal.ops.linear import Metric, Product, gauss_newton_product

AT_ONCE = 256
"""Pictures read at once where nothing is said."""


class PixelPolicy(FlatPolicy):
    """Actor and critic on pictures, uint8 [N, C, H, W], with gradients by autograd  (Mnih et al. 2015; 2016).

    `shared`: one network whose last layer gives the actor's outputs and then the value; the critic's loss then shapes the
    features too. Otherwise the critic is a network of its own in row 1 of `theta`, as a trust-region step needs it: fitting
    a shared one would move the policy after its KL was accepted. at_once: pictures per micro-batch; memory grows with it,
    numbers do not depend on it.
    """

    def __init__(
        self,
        config: ControlConfig,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        at_once: int = AT_ONCE,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        outputs, self.at_once = config.actions.outputs, at_once
        self.shape = config.convolution_shape
        gains = [(outputs, 0.01), (1, 1.0)] if config.shared else [(outputs, 0.01)]
        rows = [self.shape.start(gains, config.orthogonal, generator)]
        if config.critic and not config.shared:
            rows.append(self.shape.start([(1, 1.0)], config.orthogonal, generator))
        super().__init__(config, torch.stack(rows), dtype)

    def outputs(self, input_NF: Tensor, part: slice = slice(None)) -> Float[Tensor, "K N O"]:
        """Actor (row 0) and critic (row 1, first column) on pictures, without gradients, a micro-batch at a time."""
        with torch.no_grad():
            pieces = [self.shape.pieces(row) for row in self.theta.detach()[part]]
            parts = [self.forward_pieces(pieces, x) for x in input_NF.split(self.at_once)]
        return torch.cat(parts, 1)

    def forward_pieces(self, rows: list[Pieces], input_NF: Tensor) -> Float[Tensor, "K N O"]:
        """The same of given parameters, differentiable."""
        found = [self.shape(pieces, input_NF) for pieces in rows]
        if not self.config.shared:
            return torch.stack(found)
        actor_NO, value_N1 = found[0][:, :-1], found[0][:, -1:]
        return torch.stack([actor_NO, value_N1.expand(actor_NO.shape)])

    def read(self, input_NF: Tensor, part: slice = slice(None)) -> PixelReading:
        """Run the networks (or only those of `part`) on pictures: what scores and gradients are made from."""
        return PixelReading(self, input_NF, part)

    def leaves(self, part: slice = slice(None)) -> list[Pieces]:
        """Each network's weights and biases as leaves of autograd; they share theta's memory."""
        theta_KP = self.theta.detach()[part]
        return [[piece.detach().requires_grad_() for piece in self.shape.pieces(row)] for row in theta_KP]

    def fisher_product(self, inputs: list[Tensor], weights: list[Tensor]) -> Product:
        """v -> F v over the actor's moving numbers, J' M J by autograd, micro-batch by micro-batch.

        inputs: pictures of each micro-batch; weights: each step's share of the mean.
        """
        (actor,), kind = self.leaves(slice(0, 1)), self.actions
        spread_E = self.spread().clone().requires_grad_()
        moving = [*actor, spread_E] if self.config.learn_std and len(spread_E) else actor

        def linearised(input_NF: Tensor, weight_N: Tensor) -> tuple[list[Tensor], Metric]:
            output_NO = self.forward_pieces([actor], input_NF)[0]
            held_NO, held_E = output_NO.detach(), spread_E.detach()

            def metric(tangents: Any) -> list[Tensor]:
                pulled = [kind.fisher(held_NO, held_E, tangents[0]) * weight_N[:, None]]
                if len(tangents) == 2:
                    pulled.append(kind.spread_fisher(held_E) * weight_N.sum() @ tangents[1])  # type: ignore[union-attr]
                return pulled

            return [output_NO, spread_E] if len(moving) > len(actor) else [output_NO], metric

        parts = [lambda x=x, w=w: linearised(x, w) for x, w in zip(inputs, weights, strict=True)]
        return gauss_newton_product(parts, moving)

    def named_layers(self) -> list[tuple[str, Tensor, Tensor]]:
        """(name, weight, bias), views of theta, of each layer as files hold it."""
        found = []
        outputs = self.actions.outputs
        for who, row in zip(("actor", "critic"), self.theta.data):
            pieces = self.shape.pieces(row)
            used = outputs if who == "actor" else 1
            for index in range(0, len(pieces), 2):
                weight, bias = pieces[index : index + 2]
                last = index + 2 == len(pieces)
                end = used if last else len(weight)
                found.append((f"{who}.{index // 2}", weight[:end], bias[:end]))
                if last and self.config.shared:
                    found.append(("critic.head", weight[outputs:], bias[outputs:]))
        return found


class PixelReading(Reading):
    """The networks' outputs on some pictures with their graph, and the gradient of a loss made of them."""

    def __init__(self, policy: PixelPolicy, input_NF: Tensor, part: slice) -> None:
        self.policy = policy
        self.leaves = policy.leaves(part)
        self.output_KNO = policy.forward_pieces(self.leaves, input_NF)
        spread_E = policy.spread()
        learned = policy.config.learn_std and len(spread_E) > 0
        self.spread_E = spread_E.clone().requires_grad_(learned)

    def gradient(self, loss: Float[Tensor, ""], into_KP: Float[Tensor, "K P"]) -> None:
        """Write the gradient of a loss made of `scores` into a flat matrix."""
        assert isinstance(self.policy, PixelPolicy)
        shape: ConvolutionShape = self.policy.shape
        wanted = [piece for pieces in self.leaves for piece in pieces]
        if self.spread_E.requires_grad:
            wanted.append(self.spread_E)
        slopes = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        into_KP[:, shape.count - shape.extra :] = 0
        into = [piece for row in into_KP for piece in shape.pieces(row)]
        for to, slope in zip(into, slopes, strict=False):
            to.copy_(slope)
        if self.spread_E.requires_grad:
            into_KP[0, shape.count - shape.extra :] = slopes[-1]


def make_policy(
    config: ControlConfig, seed: int = 0, dtype: torch.dtype = torch.float32, at_once: int = AT_ONCE
) -> FlatPolicy:
    """The policy that a configuration describes: on pictures where it has an `image`, else on rows of numbers."""
    return PixelPolicy(config, seed, dtype, at_once) if config.image else ControlPolicy(config, seed, dtype)
