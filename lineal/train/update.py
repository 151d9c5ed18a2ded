"""One update of the policy from one rollout: Adam's epochs of minibatches, or a trust-region step.

The loop owns the models; the algorithm supplies the numbers. Weights belong to the whole optimiser batch, so every
micro-batch adds its plain sum and the gradient does not depend on how the rows were cut, padded or ordered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lineal.models.decoder import Decoder
from lineal.models.policy import ActorCritic
from lineal.objectives.algorithm import Adam, Algorithm, AlgorithmState, Batch, needs, objective, split
from lineal.objectives.value import value_loss
from lineal.optim.natural import StepReport, kl_fisher_product, trust_region_step
from lineal.train.guard import Guard
from lineal.train.score import MicroBatch, Sheet, score
from lineal.types import Scores

Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Scoring:
    """How a policy is scored: temperature, tokens at once, and the precision of the forward pass.

    autocast: a dtype for autocast, or None. detach_critic: see `score`.
    """

    temperature: float = 1.0
    token_budget: int = 16384
    autocast: torch.dtype | None = None
    detach_critic: bool = False

    def precision(self, device: torch.device) -> AbstractContextManager:
        """The autocast context that the forward pass runs under."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, self.autocast)


def add_sums(total: Sums, part: Sums) -> None:
    """Add one micro-batch's metric sums to the totals, in place."""
    for name, value in part.items():
        total[name] = total[name] + value if name in total else value


def frozen_copy(decoder: Decoder) -> Decoder:
    """A copy whose parameters take no gradient: the old policy, or the reference."""
    twin = copy.deepcopy(decoder).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


def accumulate(
    policy: ActorCritic,
    sheet: Sheet,
    algorithm: Algorithm,
    rows: Tensor,
    batch: Batch,
    state: AlgorithmState,
    scoring: Scoring,
    old: Decoder | None = None,
) -> Sums:
    """Add to `.grad` the gradient of minus the objective (plus the critic's loss) over one optimiser batch."""
    totals: Sums = {}
    want = "gradient" if needs(algorithm).entropy else "value"
    local_N = torch.full((sheet.token_BS.shape[0],), -1, dtype=torch.long, device=rows.device)
    local_N[rows] = torch.arange(len(rows), device=rows.device)
    for micro in sheet.micro_batches(rows, scoring.token_budget):
        with scoring.precision(rows.device):
            scores = score(
                policy, micro, scoring.temperature, entropy=want, old=old, detach_critic=scoring.detach_critic
            )
        part = fresh(batch.rows(local_N[micro.row_N], micro.width), scores)
        value, sums = objective(algorithm, scores, part, state)
        loss = -value
        if scores.value_BT is not None and needs(algorithm).critic:
            critic_loss, critic_sums = value_loss(algorithm, scores, part)
            loss = loss + critic_loss
            sums = sums | critic_sums
        loss.backward()
        add_sums(totals, {name: x.detach() for name, x in sums.items()})
    return totals


def fresh(batch: Batch, scores: Scores) -> Batch:
    """A batch used once takes its old log-probabilities from the very forward it is optimised by: the ratio is 1."""
    if batch.old_logp_BT is None:
        return replace(batch, old_logp_BT=scores.logp_BT.detach())
    return batch


def adam_update(
    policy: ActorCritic,
    optimiser: torch.optim.Optimizer,
    algorithm: Algorithm,
    sheet: Sheet,
    batch: Batch,
    state: AlgorithmState,
    scoring: Scoring,
    guard: Guard,
    seed: int,
) -> tuple[Sums, list[float]]:
    """Epochs of minibatches; returns the metric sums and each optimiser step's gradient norm."""
    step = algorithm.step
    assert isinstance(step, Adam)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    old = frozen_copy(policy.decoder) if needs(algorithm).old_policy else None
    totals, norms = {}, []
    for epoch in range(step.epochs):
        for rows, part in split(algorithm, batch, seed=seed * step.epochs + epoch):
            optimiser.zero_grad(set_to_none=True)
            sums = accumulate(policy, sheet, algorithm, rows, part, state, scoring, old)
            limit = step.max_grad_norm or float("inf")
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
            norms.append(norm)
            if guard.finite(norm):
                optimiser.step()
                add_sums(totals, sums)
    return totals, norms


def trust_region_update(
    policy: ActorCritic,
    algorithm: Algorithm,
    sheet: Sheet,
    batch: Batch,
    state: AlgorithmState,
    scoring: Scoring,
    chosen: list[torch.nn.Parameter],
) -> tuple[Sums, StepReport]:
    """TRPO's step on a transformer: gradient, Fisher-vector products through the exact KL, line search.

    The default attention kernels have no double backward, so the whole step runs on the mathematical one.
    """
    rows = torch.arange(sheet.token_BS.shape[0], device=sheet.token_BS.device)
    old = frozen_copy(policy.decoder)
    with sdpa_kernel(SDPBackend.MATH):
        for parameter in policy.parameters():
            parameter.grad = None
        sums = accumulate(policy, sheet, algorithm, rows, batch, state, scoring)
        gradient = [-p.grad if p.grad is not None else torch.zeros_like(p) for p in chosen]
        product = kl_fisher_product(_mean_kls(policy, sheet, batch, scoring, rows), chosen)

        def evaluate() -> tuple[Tensor, Tensor]:
            return _surrogate_and_kl(policy, sheet, algorithm, batch, state, scoring, old)

        report = trust_region_step(chosen, gradient, product, evaluate, algorithm.step)
    return sums, report


def _mean_kls(
    policy: ActorCritic, sheet: Sheet, batch: Batch, scoring: Scoring, rows: Tensor
) -> list[Callable[[], Tensor]]:
    def closure(micro: MicroBatch) -> Callable[[], Tensor]:
        def mean_kl() -> Tensor:
            scores = score(policy, micro, scoring.temperature, entropy="none", self_kl=True)
            assert scores.kl_BT is not None
            return (scores.kl_BT * batch.rows(micro.row_N, micro.width).step_weight_BT).sum()

        return mean_kl

    return [closure(micro) for micro in sheet.micro_batches(rows, scoring.token_budget)]


def _surrogate_and_kl(
    policy: ActorCritic,
    sheet: Sheet,
    algorithm: Algorithm,
    batch: Batch,
    state: AlgorithmState,
    scoring: Scoring,
    old: Decoder,
) -> tuple[Tensor, Tensor]:
    rows = torch.arange(sheet.token_BS.shape[0], device=sheet.token_BS.device)
    pairs = []
    with torch.no_grad():
        for micro in sheet.micro_batches(rows, scoring.token_budget):
            scores = score(policy, micro, scoring.temperature, entropy="none", old=old)
            part = batch.rows(micro.row_N, micro.width)
            assert scores.kl_BT is not None
            value, _ = objective(algorithm, scores, part, state)
            pairs.append(torch.stack([value, (scores.kl_BT * part.step_weight_BT).sum()]))
    total = torch.stack(pairs).sum(0)
    return total[0], total[1]


def critic_update(
    policy: ActorCritic,
    optimiser: torch.optim.Optimizer,
    algorithm: Algorithm,
    sheet: Sheet,
    batch: Batch,
    scoring: Scoring,
    epochs: int,
) -> Sums:
    """Fit the critic alone, after a trust-region step; the policy's parameters take no part."""
    totals: Sums = {}
    rows = torch.arange(sheet.token_BS.shape[0], device=sheet.token_BS.device)
    for _ in range(epochs):
        optimiser.zero_grad(set_to_none=True)
        totals = {}
        for micro in sheet.micro_batches(rows, scoring.token_budget):
            scores = score(policy, micro, scoring.temperature, entropy="none", detach_critic=True)
            loss, sums = value_loss(algorithm, scores, batch.rows(micro.row_N, micro.width))
            loss.backward()
            add_sums(totals, {name: x.detach() for name, x in sums.items()})
        optimiser.step()
    return totals


def parts_of(batch: Batch, algorithm: Algorithm, seed: int) -> Iterator[tuple[Tensor, Batch]]:
    """The optimiser batches of one epoch, as (rows, batch) pairs."""
    yield from split(algorithm, batch, seed=seed)
