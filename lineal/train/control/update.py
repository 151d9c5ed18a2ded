"""One update of a control policy from one rollout: Adam's epochs of minibatches of steps, or a trust-region step.

The formulas are those of `objectives/`; here they meet perceptrons, whose gradients and Fisher products are written out
by hand. One step is one row, so a minibatch is any set of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lineal.models.actions import Gaussian
from lineal.models.control import ControlPolicy, Reading
from lineal.models.perceptron import cotangent, tangent
from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    AlgorithmState,
    Batch,
    TrustRegion,
    needs,
    objective,
    split,
    value_loss,
)
from lineal.objectives.penalty import Entropy, mean_kl
from lineal.objectives.prepare import step_minibatches, weigh
from lineal.objectives.ratio import NoRatio, TokenRatio
from lineal.ops.linear import Product
from lineal.optim.natural import StepReport, natural_gradient_step, trust_region_step
from lineal.train.control.collect import Experience
from lineal.train.update import Accept, Sums, add_sums
from lineal.types import Scores


@dataclass(frozen=True)
class StepProblem:
    """What one update works on: the policy, the algorithm with its state, the experience, and its whole batch."""

    policy: ControlPolicy
    algorithm: Algorithm
    state: AlgorithmState
    experience: Experience
    batch: Batch

    def rows(self, part: Batch) -> Tensor | slice:
        """Which of the flat steps a part holds; all of them in order where it was not split by steps."""
        return part.row_B if part.mask_BT.shape[1] == 1 else slice(None)


def adam_update(
    problem: StepProblem, optimiser: torch.optim.Optimizer, accept: Accept, seed: int = 0
) -> tuple[Sums, list[float]]:
    """Epochs of minibatches; returns the metric sums, of the last epoch only, and each step's gradient norm."""
    algorithm, policy = problem.algorithm, problem.policy
    step = algorithm.step
    assert isinstance(step, Adam)
    by_step = not algorithm.reduction.whole_rows
    gradient_KP = torch.zeros_like(policy.theta)
    policy.theta.grad = gradient_KP
    totals: Sums = {}
    norms: list[float] = []
    parts: list[Batch] = []
    quick = Quick(problem, gradient_KP) if Quick.fits(problem) else None
    for epoch in range(step.epochs):
        # In one piece every epoch's batch is the same.
        if step.minibatches > 1 or not parts:
            parts = split(algorithm, problem.batch, seed, epoch, by_step=by_step)
        last = epoch + 1 == step.epochs
        for part in parts:
            sums: Sums = {}
            if quick is None or last:
                sums = accumulate(problem, part, gradient_KP, measured=last)
            else:
                quick(part)
            norm = float(torch.linalg.vector_norm(gradient_KP))
            norms.append(norm)
            if not accept(norm, part):
                continue
            if 0 < step.max_grad_norm < norm:
                gradient_KP.mul_(step.max_grad_norm / (norm + 1e-6))
            optimiser.step()
            add_sums(totals, sums)
    if needs(algorithm).measured_kl:
        totals["measured_kl"] = _mean_kl(problem, weigh(algorithm, problem.batch))
    return totals, norms


class Quick:
    """The gradient of `accumulate` without autograd, for the plain case: a ratio per step, no penalty but entropy, no value clip.

    The chain is short: the surrogate's `slope`, the action's `logp_slope`, 2 (V - R). Autograd takes three times as
    long to find the same numbers for a minibatch of 64 steps; a test ties the two.
    """

    def __init__(self, problem: StepProblem, into_KP: Tensor) -> None:
        self.problem, self.into_KP = problem, into_KP
        policy = problem.policy
        self.layers = policy.shape.layers(policy.theta.detach())
        self.into = policy.shape.layers(into_KP)
        self.critic = needs(problem.algorithm).critic

    @staticmethod
    def fits(problem: StepProblem) -> bool:
        """Whether it is the plain case."""
        algorithm, critic = problem.algorithm, needs(problem.algorithm).critic
        plain = isinstance(algorithm.ratio, TokenRatio | NoRatio)
        plain = plain and all(isinstance(penalty, Entropy) for penalty in algorithm.penalty)
        return plain and (critic is None or not critic.clip)

    @torch.no_grad()
    def __call__(self, part: Batch) -> None:
        """Write the gradient over one optimiser batch."""
        problem, policy, kind = self.problem, self.problem.policy, self.problem.policy.actions
        rows, shape = problem.rows(part), part.mask_BT.shape
        everything = isinstance(rows, slice)
        action = problem.experience.action if everything else problem.experience.action[rows]
        input_NF = problem.experience.input_NF
        reading = policy.read(input_NF if everything else input_NF[rows], layers=self.layers)
        output_KNO = reading.inner[-1]
        logp_BT = kind.logp(output_KNO[0], reading.spread_E, action).view(shape)
        old_BT = logp_BT if part.old_logp_BT is None else part.old_logp_BT
        algorithm = problem.algorithm
        slope_BT = algorithm.surrogate.slope(
            algorithm.ratio(logp_BT, old_BT, part.mask_BT), part.advantage_BT
        )
        # Minus: the objective is maximised. Masked steps weigh nothing.
        along_N = (slope_BT * part.weight_BT).neg_().flatten()
        to_policy_NO, to_spread_E = kind.logp_slope(output_KNO[0], reading.spread_E, action, along_N)
        for penalty in algorithm.penalty:
            open_N = (part.step_weight_BT * -penalty.coefficient(problem.state)).flatten()
            more_NO, more_E = kind.entropy_slope(output_KNO[0], reading.spread_E, open_N)
            to_policy_NO, to_spread_E = to_policy_NO + more_NO, to_spread_E + more_E
        to_output_KNO = torch.zeros_like(output_KNO)
        to_output_KNO[0] = to_policy_NO
        if self.critic is not None:
            assert part.return_BT is not None
            gap_N = (output_KNO[1, :, 0].view(shape) - part.return_BT).mul_(part.step_weight_BT).flatten()
            to_output_KNO[1, :, 0] = gap_N.mul_(2 * self.critic.coefficient)
        reading.pull(to_output_KNO, to_spread_E, self.into, self.into_KP)


def accumulate(problem: StepProblem, part: Batch, into_KP: Tensor, *, measured: bool = True) -> Sums:
    """Write the gradient of minus the objective, plus the critic's loss, over one optimiser batch."""
    algorithm, wanted = problem.algorithm, needs(problem.algorithm)
    reading, scores = _scores(problem, part, entropy=wanted.entropy or measured, kl=wanted.kl)
    if wanted.mean_kl:
        part = replace(part, mean_kl=mean_kl(scores, part))
    value, sums = objective(algorithm, scores, part, problem.state, measured=measured)
    loss = -value
    if wanted.critic is not None:
        error, more = value_loss(wanted.critic, scores, part, measured=measured)
        loss, sums = loss + wanted.critic.coefficient * error, sums | more
    reading.gradient(loss, into_KP)
    return {name: x.detach() for name, x in sums.items()}


def _scores(
    problem: StepProblem, part: Batch, *, entropy: bool, kl: bool, only: slice = slice(None)
) -> tuple[Reading, Scores]:
    """The policy on the steps of a part, in the part's own shape."""
    experience, rows = problem.experience, problem.rows(part)
    everything = isinstance(rows, slice)
    reading = problem.policy.read(experience.input_NF if everything else experience.input_NF[rows], only)
    old = (experience.old if everything else experience.old.rows(rows)) if kl else None
    action = experience.action if everything else experience.action[rows]
    scores = reading.scores(action, entropy=entropy, old=old)
    shape = part.mask_BT.shape
    if shape[1] == 1:
        return reading, scores
    shaped = {name: x.view(shape) for name, x in vars(scores).items() if x is not None}
    return reading, replace(scores, **shaped)


@torch.no_grad()
def _mean_kl(problem: StepProblem, batch: Batch) -> Tensor:
    return mean_kl(_scores(problem, batch, entropy=False, kl=True)[1], batch)


ACTOR = slice(0, 1)
CRITIC = slice(1, 2)


def natural_update(problem: StepProblem) -> tuple[Sums, StepReport]:
    """TRPO's step (or the plain natural gradient) on the actor, over the whole rollout."""
    policy, step = problem.policy, problem.algorithm.step
    batch = split(problem.algorithm, problem.batch)[0]
    reading, scores = _scores(problem, batch, entropy=True, kl=True, only=ACTOR)
    value, sums = objective(problem.algorithm, scores, batch, problem.state)
    gradient_1P = torch.zeros_like(policy.theta[:1])
    reading.gradient(value, gradient_1P)
    moving_P = policy.theta.data[0, : policy.moving]
    weight_N = batch.step_weight_BT.flatten()
    product = fisher_product(policy, reading, weight_N)

    def evaluate() -> tuple[Tensor, Tensor]:
        _, now = _scores(problem, batch, entropy=needs(problem.algorithm).entropy, kl=True, only=ACTOR)
        surrogate, _ = objective(problem.algorithm, now, batch, problem.state, measured=False)
        return surrogate.detach(), mean_kl(now, batch)

    gradient_P = gradient_1P[0, : policy.moving]
    if isinstance(step, TrustRegion):
        return sums, trust_region_step([moving_P], gradient_P, product, evaluate, step)
    assert not isinstance(step, Adam)
    return sums, natural_gradient_step([moving_P], gradient_P, product, evaluate, step)


def fisher_product(policy: ControlPolicy, reading: Reading, weight_N: Tensor) -> Product:
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
