"""Adam's update of a control policy from one rollout: epochs of minibatches of steps.

The formulas are those of `objectives/`; here they meet perceptrons, whose gradients are written out by hand, and
convolutions, which read a minibatch in pieces. One step is one row, so a minibatch is any set of steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lineal.models.control import ControlPolicy, FlatPolicy, Reading
from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    AlgorithmState,
    Batch,
    needs,
    objective,
    split,
    value_loss,
)
from lineal.objectives.penalty import Entropy, mean_kl
from lineal.objectives.prepare import flat_rows, weigh
from lineal.objectives.ratio import NoRatio, TokenRatio
from lineal.train.control.collect import Experience
from lineal.train.update import Accept, Sums, add_sums
from lineal.types import Scores


@dataclass(frozen=True)
class StepProblem:
    """What one update works on: the policy, the algorithm with its state, the experience, and its whole batch."""

    policy: FlatPolicy
    algorithm: Algorithm
    state: AlgorithmState
    experience: Experience
    batch: Batch

    def rows(self, part: Batch) -> Tensor | slice:
        """Which of the flat steps a part holds; all of them in order where it was not split by steps."""
        return part.row_B if part.mask_BT.shape[1] == 1 else slice(None)

    def pieces(self, part: Batch) -> list[Batch]:
        """An optimiser batch as micro-batches of counted steps, whose sums add up to its own; one piece where it is small."""
        size, most = part.mask_BT.numel(), self.policy.at_once
        if most is None or size <= most:
            return [part]
        tall = flat_rows(part, part.mask_BT.flatten().nonzero()[:, 0])
        return [tall.rows(slice(low, low + most)) for low in range(0, len(tall.row_B), most)]


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
        totals["measured_kl"] = total_kl(problem, problem.pieces(weigh(algorithm, problem.batch)))
    return totals, norms


class Quick:
    """The gradient of `accumulate` without autograd, for the plain case: a ratio per step, no penalty but entropy, no value clip.

    The chain is short: the surrogate's `slope`, the action's `logp_slope`, 2 (V - R). Autograd takes three times as
    long to find the same numbers for a minibatch of 64 steps; a test ties the two.
    """

    def __init__(self, problem: StepProblem, into_KP: Tensor) -> None:
        assert isinstance(problem.policy, ControlPolicy)
        self.problem, self.policy, self.into_KP = problem, problem.policy, into_KP
        policy = problem.policy
        self.layers = policy.shape.layers(policy.theta.detach())
        self.into = policy.shape.layers(into_KP)
        self.critic = needs(problem.algorithm).critic

    @staticmethod
    def fits(problem: StepProblem) -> bool:
        """Whether it is the plain case."""
        algorithm, critic = problem.algorithm, needs(problem.algorithm).critic
        plain = isinstance(problem.policy, ControlPolicy)
        plain = plain and isinstance(algorithm.ratio, TokenRatio | NoRatio)
        plain = plain and all(isinstance(penalty, Entropy) for penalty in algorithm.penalty)
        return plain and (critic is None or not critic.clip)

    @torch.no_grad()
    def __call__(self, part: Batch) -> None:
        """Write the gradient over one optimiser batch."""
        problem, policy, kind = self.problem, self.policy, self.policy.actions
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


def accumulate(
    problem: StepProblem,
    part: Batch,
    into_KP: Tensor,
    *,
    measured: bool = True,
    only: slice = slice(None),
) -> Sums:
    """Write the gradient of minus the objective, plus the critic's loss, over one optimiser batch.

    only: the networks that are read; without the critic's there is no loss of it. The gradient is the sum over the
    batch's pieces, whatever their size.
    """
    algorithm, wanted = problem.algorithm, needs(problem.algorithm)
    critic = wanted.critic if only == slice(None) else None
    pieces, totals = problem.pieces(part), Sums()
    scratch_KP = into_KP if len(pieces) == 1 else torch.empty_like(into_KP)
    known_kl = total_kl(problem, pieces) if wanted.mean_kl and len(pieces) > 1 else None
    for index, piece in enumerate(pieces):
        reading, scores = read_scores(
            problem, piece, entropy=wanted.entropy or measured, kl=wanted.kl or only != slice(None), only=only
        )
        if wanted.mean_kl:
            piece = replace(piece, mean_kl=mean_kl(scores, piece) if known_kl is None else known_kl)
        value, sums = objective(algorithm, scores, piece, problem.state, measured=measured)
        loss = -value
        if critic is not None:
            error, more = value_loss(critic, scores, piece, measured=measured)
            loss, sums = loss + critic.coefficient * error, sums | more
        reading.gradient(loss, scratch_KP if index else into_KP)
        if index:
            into_KP += scratch_KP
        add_sums(totals, sums)
    return totals


def read_scores(
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
def total_kl(problem: StepProblem, pieces: list[Batch]) -> Tensor:
    """Mean KL(old || new) of an optimiser batch, as the sum over its pieces."""
    shares = [mean_kl(read_scores(problem, piece, entropy=False, kl=True)[1], piece) for piece in pieces]
    return torch.stack(shares).sum()
