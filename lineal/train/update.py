"""One update of the policy from one rollout: Adam's epochs of minibatches, or a trust-region step.

The loop owns the models; the algorithm supplies the numbers. Weights belong to the whole optimiser batch, so every
micro-batch adds its plain sum and the gradient does not depend on how the rows were cut, padded or ordered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lineal.models.decoder import Decoder
from lineal.models.policy import ActorCritic
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
from lineal.objectives.prepare import weigh
from lineal.ops.linear import Metric, head_metric
from lineal.optim.natural import (
    StepReport,
    gauss_newton_product,
    natural_gradient_step,
    trust_region_step,
)
from lineal.train.distributed import sum_gradients
from lineal.train.score import MicroBatch, Scoring, Sheet, Want, score, shared_micro_batches
from lineal.train.sharding import whole

Sums = dict[str, Tensor]
Accept = Callable[[float, Batch], bool]
"""(gradient norm, batch) -> whether the optimiser may step; a `Guard` behind it saves what it refuses."""


@dataclass(frozen=True)
class Problem:
    """What one update works on: the policy, the algorithm with its state, the rollout laid out, its whole batch."""

    policy: ActorCritic
    algorithm: Algorithm
    state: AlgorithmState
    sheet: Sheet
    batch: Batch
    scoring: Scoring


def add_sums(total: Sums, part: Sums) -> None:
    """Add one micro-batch's metric sums to the totals, in place."""
    for name, value in part.items():
        value = value.detach()
        total[name] = total[name] + value if name in total else value


def frozen_copy(decoder: Decoder) -> Decoder:
    """A copy whose parameters take no gradient: the old policy, or the reference."""
    twin = copy.deepcopy(decoder).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


def old_decoder(problem: Problem) -> Decoder:
    """The policy as it is before the update: a copy, or the whole copy that a sharded one has anyway."""
    twin = problem.scoring.twin
    return frozen_copy(problem.policy.decoder) if twin is None else twin.decoder


def micro_batches(
    sheet: Sheet, batch: Batch, scoring: Scoring, row_B: Tensor | None = None
) -> Iterator[tuple[MicroBatch, Batch]]:
    """This process's rows of an optimiser batch as micro-batches, each beside its part of the batch."""
    chosen_B = batch.row_B if row_B is None else row_B
    local_B = torch.full((len(sheet),), -1, dtype=torch.long, device=batch.row_B.device)
    local_B[batch.row_B] = torch.arange(len(batch.row_B), device=batch.row_B.device)
    for micro, counts in shared_micro_batches(sheet, chosen_B, scoring):
        part = batch.rows(local_B[micro.row_N], micro.width)
        yield micro, part if counts else _weightless(part)


def _weightless(part: Batch) -> Batch:
    """The part as if all of it were padding."""
    zero_BT = torch.zeros_like(part.weight_BT)
    padded = replace(part, mask_BT=torch.zeros_like(part.mask_BT), weight_BT=zero_BT, step_weight_BT=zero_BT)
    return padded if part.return_BT is None else replace(padded, return_BT=zero_BT)


def silent(algorithm: Algorithm) -> bool:
    """Whether a row whose advantages are all 0 adds exactly nothing to the gradient, so that it need not be scored."""
    return not algorithm.penalty and needs(algorithm).critic is None


def accumulate(problem: Problem, batch: Batch, old: Decoder | None = None) -> Sums:
    """Add to `.grad` the gradient of minus the objective (and of the critic's loss) over one optimiser batch.

    Rows without any advantage (a group whose rewards are all equal) are left out where they add nothing; the metrics
    are then of the other rows. old: the policy before the update, where the objective holds a KL to it.
    """
    algorithm, scoring, totals = problem.algorithm, problem.scoring, Sums()
    wanted, critic = needs(algorithm), needs(algorithm).critic
    joined = critic is not None and isinstance(algorithm.step, Adam)
    want = Want(
        entropy="gradient" if wanted.entropy else "value",
        old=old if joined_kl(algorithm) else None,
        reference=scoring.reference if wanted.reference_kl else None,
        detach_critic=not joined,
    )
    heard_B = batch.row_B[(batch.advantage_BT != 0).any(1)] if silent(algorithm) else None
    for micro, part in micro_batches(problem.sheet, batch, scoring, heard_B):
        with scoring.precision(batch.row_B.device):
            scores = score(problem.policy, micro, scoring.temperature, want)
        value, sums = objective(algorithm, scores, part, problem.state)
        loss = -value
        if critic is not None and joined:
            critic_loss, critic_sums = value_loss(critic, scores, part)
            loss, sums = loss + critic.coefficient * critic_loss, sums | critic_sums
        loss.backward()
        sums |= mismatch(problem.sheet, micro, scores.logp_BT, part)
        if scores.changed_BT is not None:
            sums["changed"] = (scores.changed_BT * part.mask_BT).sum()
        add_sums(totals, sums)
    return totals


def joined_kl(algorithm: Algorithm) -> bool:
    """Whether a KL to the old policy stands in the objective itself, and not only in the step's constraint."""
    return any(penalty.kl for penalty in algorithm.penalty)


@torch.no_grad()
def mismatch(sheet: Sheet, micro: MicroBatch, logp_BT: Tensor, part: Batch) -> Sums:
    """Distance of the sampler's log-probabilities from the trainer's own, while both are of the same weights."""
    old_BT = logp_BT if part.old_logp_BT is None else part.old_logp_BT
    behaviour_BT = sheet.rollout.behaviour_logp_BT[micro.row_N, : micro.width]
    gap_BT = torch.where(part.mask_BT, (behaviour_BT - old_BT).abs(), 0.0)
    return {"mismatch": gap_BT.sum(), "mismatch_max": gap_BT.amax(1).sum()}


def adam_update(
    problem: Problem, optimiser: torch.optim.Optimizer, accept: Accept, seed: int = 0
) -> tuple[Sums, list[float]]:
    """Epochs of minibatches; returns the metric sums and each optimiser step's gradient norm."""
    algorithm, ranks = problem.algorithm, problem.scoring.ranks
    step, wanted = algorithm.step, needs(algorithm)
    assert isinstance(step, Adam)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    old = old_decoder(problem) if wanted.kl else None
    totals: Sums = {}
    norms: list[float] = []
    for epoch in range(step.epochs):
        for part in split(algorithm, problem.batch, seed, epoch):
            if wanted.mean_kl:
                part = replace(part, mean_kl=mean_kl(problem, part, old))
            optimiser.zero_grad(set_to_none=True)
            sums = accumulate(problem, part, old)
            sum_gradients(parameters, ranks)
            norm = torch.nn.utils.clip_grad_norm_(parameters, step.max_grad_norm or float("inf"))
            norms.append(float(whole(norm)))
            if accept(norms[-1], part):
                optimiser.step()
                add_sums(totals, sums)
    totals = ranks.add_up(totals)
    if wanted.measured_kl:
        totals["measured_kl"] = mean_kl(problem, weigh(algorithm, problem.batch), old)
    return totals, norms


@torch.no_grad()
def mean_kl(problem: Problem, batch: Batch, old: Decoder | None) -> Tensor:
    """Mean over an optimiser batch's counted steps of the exact KL(old || new)."""
    scoring, parts = problem.scoring, []
    for micro, part in micro_batches(problem.sheet, batch, scoring):
        with scoring.precision(batch.row_B.device):
            scores = score(problem.policy, micro, scoring.temperature, Want(entropy="none", old=old))
        assert scores.kl_BT is not None
        parts.append((scores.kl_BT * part.step_weight_BT).sum())
    return scoring.ranks.sum(torch.stack(parts).sum())


def natural_update(problem: Problem, chosen: list[torch.nn.Parameter]) -> tuple[Sums, StepReport]:
    """TRPO's step (or the plain natural gradient) on a transformer: gradient, Fisher products, line search.

    The fused attention kernels have no double backward, so the whole step runs on the mathematical one. Several
    processes hold the same parameters, add up gradient, products and values, and so take the same step.
    """
    policy, scoring, step = problem.policy, problem.scoring, problem.algorithm.step
    batch = split(problem.algorithm, problem.batch)[0]
    pairs = list(micro_batches(problem.sheet, batch, scoring))
    old = frozen_copy(policy.decoder)
    with sdpa_kernel(SDPBackend.MATH):
        for parameter in policy.parameters():
            parameter.grad = None
        sums = scoring.ranks.add_up(accumulate(problem, batch))
        sum_gradients(chosen, scoring.ranks)
        gradient = [torch.zeros_like(p) if p.grad is None else -p.grad for p in chosen]
        product = gauss_newton_product([_outputs(policy, m, p, scoring) for m, p in pairs], chosen)

        def evaluate() -> tuple[Tensor, Tensor]:
            return _surrogate_and_kl(problem, pairs, old)

        if isinstance(step, TrustRegion):
            take = trust_region_step
            return sums, take(chosen, gradient, product, evaluate, step, reduce=scoring.ranks.sum)
        assert not isinstance(step, Adam)
        return sums, natural_gradient_step(
            chosen, gradient, product, evaluate, step, reduce=scoring.ranks.sum
        )


def _outputs(
    policy: ActorCritic, micro: MicroBatch, part: Batch, scoring: Scoring
) -> Callable[[], tuple[list[Tensor], Metric]]:
    """What the Fisher product linearises: hidden states and output layer, with the metric of the mean KL on them.

    For a softmax policy J'MJ is the Hessian of the mean KL(old || new) at old, exactly.
    """

    def linearised() -> tuple[list[Tensor], Metric]:
        hidden_ND, weight_VD = micro.hidden(policy.decoder, micro.routes()), policy.decoder.head_weight
        share_N = part.step_weight_BT.flatten()[micro.slot_N]
        outputs = [hidden_ND, weight_VD] if weight_VD.requires_grad else [hidden_ND]
        return outputs, head_metric(hidden_ND, weight_VD, share_N, scoring.temperature)

    return linearised


def _surrogate_and_kl(
    problem: Problem, pairs: list[tuple[MicroBatch, Batch]], old: Decoder
) -> tuple[Tensor, Tensor]:
    found = []
    want = Want(entropy="value" if needs(problem.algorithm).entropy else "none", old=old)
    with torch.no_grad():
        for micro, part in pairs:
            scores = score(problem.policy, micro, problem.scoring.temperature, want)
            assert scores.kl_BT is not None
            value, _ = objective(problem.algorithm, scores, part, problem.state)
            found.append(torch.stack([value, (scores.kl_BT * part.step_weight_BT).sum()]))
    total = torch.stack(found).sum(0)
    return total[0], total[1]


def critic_update(problem: Problem, optimiser: torch.optim.Optimizer) -> Sums:
    """Fit the critic alone, after a natural step: the policy's own parameters take no part."""
    policy, scoring = problem.policy, problem.scoring
    critic = needs(problem.algorithm).critic
    assert critic is not None
    totals: Sums = {}
    batch = split(problem.algorithm, problem.batch)[0]
    for _ in range(critic.epochs):
        optimiser.zero_grad(set_to_none=True)
        totals = {}
        for micro, part in micro_batches(problem.sheet, batch, scoring):
            scores = score(policy, micro, scoring.temperature, Want(entropy="none", detach_critic=True))
            loss, sums = value_loss(critic, scores, part)
            loss.backward()
            add_sums(totals, sums)
        sum_gradients(policy.critic_parameters().values(), scoring.ranks)
        optimiser.step()
    return scoring.ranks.add_up(totals)
