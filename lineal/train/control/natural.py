"""A trust-region or natural-gradient step of a control policy from one rollout, and the fit of its critic afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lineal.models.actions import Gaussian
from lineal.models.control import ControlPolicy, PerceptronReading
from lineal.models.perceptron import cotangent, tangent
from lineal.models.pixels import PixelPolicy
from lineal.objectives.algorithm import Adam, Batch, TrustRegion, needs, objective, split, value_loss
from lineal.objectives.penalty import mean_kl
from lineal.objectives.prepare import step_minibatches
from lineal.ops.linear import Product
from lineal.optim.natural import StepReport, natural_gradient_step, trust_region_step
from lineal.train.control.update import StepProblem, accumulate, read_scores
from lineal.train.update import Sums, add_sums
from lineal.types import Scores

ACTOR = slice(0, 1)
CRITIC = slice(1, 2)


def natural_update(problem: StepProblem) -> tuple[Sums, StepReport]:
    """TRPO's step (or the plain natural gradient) on the actor, over the whole rollout."""
    policy, step = problem.policy, problem.algorithm.step
    batch = split(problem.algorithm, problem.batch)[0]
    descent_1P = torch.zeros_like(policy.theta[:1])
    sums = accumulate(problem, batch, descent_1P, only=ACTOR)
    moving_P = policy.theta.data[0, : policy.moving]
    gradient_P = -descent_1P[0, : policy.moving]
    product, evaluate = _product(problem, batch), _evaluation(problem, batch)
    if isinstance(step, TrustRegion):
        return sums, trust_region_step([moving_P], gradient_P, product, evaluate, step)
    assert not isinstance(step, Adam)
    return sums, natural_gradient_step([moving_P], gradient_P, product, evaluate, step)


def _evaluation(problem: StepProblem, batch: Batch) -> Callable[[], tuple[Tensor, Tensor]]:
    """The surrogate and the mean KL(old || new) at the parameters as they stand."""
    algorithm = problem.algorithm

    def evaluate() -> tuple[Tensor, Tensor]:
        found = []
        for piece in problem.pieces(batch):
            _, now = read_scores(problem, piece, entropy=needs(algorithm).entropy, kl=True, only=ACTOR)
            surrogate, _ = objective(algorithm, now, piece, problem.state, measured=False)
            found.append(torch.stack([surrogate.detach(), mean_kl(now, piece)]))
        surrogate, kl = torch.stack(found).sum(0)
        return surrogate, kl

    return evaluate


def _product(problem: StepProblem, batch: Batch) -> Product:
    """v -> F v for this kind of policy."""
    policy, input_NF = problem.policy, problem.experience.input_NF
    if isinstance(policy, PixelPolicy):
        pieces = problem.pieces(batch)
        inputs = [input_NF[problem.rows(piece)] for piece in pieces]
        return policy.fisher_product(inputs, [piece.step_weight_BT.flatten() for piece in pieces])
    assert isinstance(policy, ControlPolicy)
    return fisher_product(policy, policy.read(input_NF, ACTOR), batch.step_weight_BT.flatten())


def fisher_product(policy: ControlPolicy, reading: PerceptronReading, weight_N: Tensor) -> Product:
    """v -> F v = J' M J v over the actor's moving numbers: Gauss-Newton, exact for these policies.

    J v by one pass forward, J' u by one pass backward, M the Fisher matrix of the outputs, weighted by each step's
    share. A Gaussian's covariance has a block of its own, for neither the mean nor the weights move with it.
    reading: of the actor alone. Equals double backward through the mean KL, and is about three times faster.
    """
    shape, kind = policy.shape, policy.actions
    output_NO, spread_E = reading.output_KNO.detach()[0], reading.spread_E.detach()
    along_1P, back_1P = (torch.zeros(1, shape.count, dtype=policy.theta.dtype) for _ in range(2))
    along, back = shape.layers(along_1P), shape.layers(back_1P)
    inner = [x.detach() for x in reading.inner]
    block_EE = None
    if policy.config.learn_std and isinstance(kind, Gaussian):
        block_EE = kind.spread_fisher(spread_E) * weight_N.sum()

    def product(vector: Tensor) -> Tensor:
        along_1P[0, : policy.moving] = vector
        moved_NO = tangent(reading.layers, along, inner, shape)[0]
        pulled_NO = kind.fisher(output_NO, spread_E, moved_NO) * weight_N[:, None]
        cotangent(reading.layers, pulled_NO[None], inner, back, shape)
        if block_EE is not None:
            shape.tail(back_1P)[0] = block_EE @ shape.tail(along_1P)[0]
        return back_1P[0, : policy.moving].clone()

    return product


def critic_update(
    problem: StepProblem, optimiser: torch.optim.Optimizer, minibatches: int, seed: int = 0
) -> Sums:
    """Fit the critic alone, after a natural step: `critic.epochs` passes of `minibatches`; sums of the last pass."""
    critic, policy = needs(problem.algorithm).critic, problem.policy
    assert critic is not None
    leaf = optimiser.param_groups[0]["params"][0]
    leaf.grad = torch.zeros_like(leaf)
    totals: Sums = {}
    for epoch in range(critic.epochs):
        last = epoch + 1 == critic.epochs
        for part in step_minibatches(problem.batch, minibatches, seed * 1_000_003 + epoch):
            rows = part.row_B
            reading = policy.read(problem.experience.input_NF[rows], CRITIC)
            value_N1 = reading.output_KNO[0, :, :1]
            loss, sums = value_loss(critic, Scores(value_N1, value_BT=value_N1), part, measured=last)
            reading.gradient(loss, leaf.grad)
            if math.isfinite(float(loss.detach())):
                optimiser.step()
            add_sums(totals, sums)
    return totals
