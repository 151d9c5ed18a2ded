"""From a rollout to optimiser batches: rewards, advantages and weights, all computed before anything is cut.

In several processes every rank prepares and splits the same gathered rollout (small next to the logits) and
takes its own rows of each batch, so that group statistics, whitening and weights are global without further
care.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.batch import Batch
from lineal.objectives.definition import Algorithm
from lineal.objectives.group import renumber
from lineal.objectives.penalty import ReferenceKL
from lineal.objectives.reduction import PerBudget, PerToken, Reduction
from lineal.objectives.state import AlgorithmState
from lineal.ops.logprob import kl_estimate
from lineal.ops.masked import whiten, whiten_rows
from lineal.ops.returns import discounted
from lineal.types import Rollout


def complete(algorithm: Algorithm, max_new_tokens: int) -> Algorithm:
    """The algorithm with its open number filled in: Dr. GRPO's constant is max_new_tokens unless given."""
    if isinstance(algorithm.reduction, PerBudget) and algorithm.reduction.tokens is None:
        return replace(algorithm, reduction=PerBudget(max_new_tokens))
    return algorithm


def prepare(algorithm: Algorithm, rollout: Rollout, state: AlgorithmState) -> Batch:
    """The whole rollout as one batch: KL in rewards, reward scaling, advantages, returns for the critic,
    weights.

    Raises UsageError when the rollout lacks what `needs(algorithm)` lists, or holds several episodes in a row
    where the algorithm compares completions. Pass the result through `split` to get optimiser batches.
    """
    if algorithm.grouped and bool((rollout.segment_BT[rollout.mask_BT] != 0).any()):
        raise UsageError(
            f"{algorithm.name} compares whole completions and this rollout has several episodes in a row. "
            "Use parts that work step by step: GAE or RewardToGo, TokenRatio, PerToken."
        )
    reward_BT = penalised_reward(algorithm, rollout, state)
    if algorithm.advantage.scale_reward:
        reward_BT = reward_BT / _return_std(algorithm, replace(rollout, reward_BT=reward_BT), state)
    raw_BT = algorithm.advantage.raw(replace(rollout, reward_BT=reward_BT), state)
    batch = Batch(
        mask_BT=rollout.mask_BT,
        advantage_BT=whiten(raw_BT, rollout.mask_BT) if algorithm.advantage.whiten == "rollout" else raw_BT,
        weight_BT=raw_BT,
        step_weight_BT=raw_BT,
        group_B=rollout.group_B,
        row_B=torch.arange(rollout.mask_BT.shape[0], device=rollout.mask_BT.device),
        old_logp_BT=rollout.old_logp_BT,
        reference_logp_BT=rollout.reference_logp_BT,
    )
    if algorithm.advantage.critic_part is not None and rollout.value_BT is not None:
        value_BT = torch.where(rollout.mask_BT, rollout.value_BT, torch.zeros_like(raw_BT))
        batch = replace(batch, return_BT=raw_BT + value_BT, value_BT=value_BT)
    return weigh(algorithm, batch)


def weigh(algorithm: Algorithm, batch: Batch) -> Batch:
    """The batch as one whole optimiser batch: its weights, from its own mask and groups only."""
    dtype = batch.advantage_BT.dtype
    step_weight_BT = PerToken()(batch.mask_BT, batch.group_B, dtype)
    if isinstance(algorithm.reduction, PerToken):
        return replace(batch, weight_BT=step_weight_BT, step_weight_BT=step_weight_BT)
    weight_BT = algorithm.reduction(batch.mask_BT, batch.group_B, dtype)
    return replace(batch, weight_BT=weight_BT, step_weight_BT=step_weight_BT)


def correct(batch: Batch, behaviour_logp_BT: Float[Tensor, "B T"], cap: float = 2.0) -> Batch:
    """The batch with each advantage times min(π_old / μ, cap), for samples of another policy μ than the trainer's.

    Truncated importance sampling (Yao et al. 2025), for outside samplers whose probabilities differ from ours. Raises
    UsageError where the batch has no old_logp_BT, or cap is not above 0.
    """
    if batch.old_logp_BT is None:
        raise UsageError(
            "correcting for the sampler needs old_logp_BT. Score the rollout with the policy first."
        )
    if not cap > 0:
        raise UsageError(f"cap is {cap}: it bounds the weight of a token. Use a number above 0, such as 2.")
    gap_BT = torch.where(
        batch.mask_BT, batch.old_logp_BT - behaviour_logp_BT, torch.zeros_like(behaviour_logp_BT)
    )
    return replace(batch, advantage_BT=batch.advantage_BT * gap_BT.exp().clamp(max=cap))


def split(
    algorithm: Algorithm, batch: Batch, seed: int = 0, epoch: int = 0, *, by_step: bool = False
) -> list[Batch]:
    """The optimiser batches of one epoch, in order, each with its own weights.

    Text: whole groups, in a random order fixed by (seed, epoch), in at most `minibatches` nearly equal parts;
    one part keeps the order as it is. Environments (`by_step=True`): single counted steps as rows of width 1.
    `row_B` says which rows, or flat indices b · T + t, they are. Whitening per minibatch happens here.
    """
    minibatches = algorithm.step.minibatches
    order = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    if minibatches == 1:
        parts = [batch]
    elif by_step:
        if algorithm.grouped or algorithm.reduction.whole_rows:
            raise UsageError(
                f"{algorithm.name} weighs or compares whole completions, and minibatches of steps have none. "
                "Use PerToken, TokenRatio and an advantage per step, or minibatches=1."
            )
        whole = _shuffled_steps(batch, order)
        return _cut_steps(whole, minibatches, algorithm.reduction, algorithm.advantage.whiten == "minibatch")
    else:
        parts = [batch.rows(index_N) for index_N in _whole_groups(batch.group_B, minibatches, order)]
    if algorithm.advantage.whiten == "minibatch":
        parts = [replace(part, advantage_BT=whiten(part.advantage_BT, part.mask_BT)) for part in parts]
    return [weigh(algorithm, part) for part in parts]


def step_minibatches(batch: Batch, minibatches: int, seed: int) -> list[Batch]:
    """The counted steps of a batch as rows of width 1, shuffled and cut, each part weighed as a mean over its steps.

    For what is fitted beside the objective, such as the critic after a trust-region step.
    """
    order = torch.Generator().manual_seed(seed % 2**63)
    return _cut_steps(_shuffled_steps(batch, order), minibatches, PerToken(), whitened=False)


def penalised_reward(algorithm: Algorithm, rollout: Rollout, state: AlgorithmState) -> Float[Tensor, "B T"]:
    """The rewards, minus KL to the reference where the algorithm takes it off them."""
    reward_BT = rollout.reward_BT
    for penalty in algorithm.penalty:
        if isinstance(penalty, ReferenceKL) and penalty.in_reward:
            if rollout.old_logp_BT is None or rollout.reference_logp_BT is None:
                raise UsageError(
                    f"{algorithm.name} takes KL to the reference off the reward, and the rollout lacks "
                    "old_logp_BT or reference_logp_BT. Score it with the policy and with the reference first."
                )
            kl_BT = kl_estimate(penalty.estimator, rollout.old_logp_BT, rollout.reference_logp_BT)
            reward_BT = torch.where(
                rollout.mask_BT, reward_BT - penalty.coefficient(state) * kl_BT, reward_BT
            )
    return reward_BT


def return_sums(algorithm: Algorithm, rollout: Rollout) -> tuple[float, float, float]:
    """Σ G, Σ G² and the number of the counted steps' discounted returns G, for reward scaling."""
    return_BT = discounted(
        rollout.reward_BT, rollout.mask_BT, algorithm.advantage.discount, rollout.segment_BT
    ).double()
    return float(return_BT.sum()), float(return_BT.square().sum()), float(rollout.mask_BT.sum())


def _return_std(algorithm: Algorithm, rollout: Rollout, state: AlgorithmState) -> float:
    """Standard deviation of every return seen so far, this rollout's included; 1 while they are all equal."""
    total, square, count = return_sums(algorithm, rollout)
    total, square, count = total + state.return_sum, square + state.return_square, count + state.return_count
    variance = square / count - (total / count) ** 2 if count else 0.0
    return variance**0.5 if variance > 1e-12 else 1.0


def _whole_groups(group_B: Tensor, minibatches: int, order: torch.Generator) -> list[Tensor]:
    index_B, groups = renumber(group_B)
    rank_P = torch.empty(groups, dtype=torch.int64)
    rank_P[torch.randperm(groups, generator=order)] = torch.arange(groups)
    rank_B = rank_P.to(group_B.device)[index_B]
    order_B = rank_B.argsort(stable=True)
    cuts = [groups * part // minibatches for part in range(minibatches + 1)]
    bounds = torch.searchsorted(rank_B[order_B], torch.tensor(cuts, device=group_B.device)).tolist()
    return [order_B[low:high] for low, high in pairwise(bounds) if high > low]


def _shuffled_steps(batch: Batch, order: torch.Generator) -> Batch:
    """The counted steps in a random order as rows of width 1."""
    place_N = batch.mask_BT.flatten().nonzero()[:, 0]
    return flat_rows(batch, place_N[torch.randperm(place_N.shape[0], generator=order).to(place_N.device)])


def _cut_steps(whole: Batch, minibatches: int, reduction: Reduction, whitened: bool) -> list[Batch]:
    """Nearly equal runs of rows, each with its weights; what can be done for all at once is: every operation counts."""
    count, dtype = whole.mask_BT.shape[0], whole.advantage_BT.dtype
    cuts = [count * part // minibatches for part in range(minibatches + 1)]
    if whitened and count % minibatches == 0:
        rows_BN = whiten_rows(whole.advantage_BT.view(minibatches, -1))
        whole, whitened = replace(whole, advantage_BT=rows_BN.view(count, 1)), False
    # Every step counts here, so weights depend on a part's size alone.
    weights: dict[int, tuple[Tensor, Tensor]] = {}
    parts = []
    for low, high in pairwise(cuts):
        if high > low:
            part = whole.rows(slice(low, high))
            if high - low not in weights:
                mean_N1 = PerToken()(part.mask_BT, part.group_B, dtype)
                weights[high - low] = reduction(part.mask_BT, part.group_B, dtype), mean_N1
            weight_N1, mean_N1 = weights[high - low]
            advantage_N1 = whiten(part.advantage_BT, part.mask_BT) if whitened else part.advantage_BT
            parts.append(
                replace(part, advantage_BT=advantage_N1, weight_BT=weight_N1, step_weight_BT=mean_N1)
            )
    return parts


def flat_rows(batch: Batch, index_N: Int[Tensor, " N"]) -> Batch:
    """The steps at these flat indices b · T + t as rows of width 1, each with the weights it has."""
    width = batch.mask_BT.shape[1]
    columns = {
        name: None if value is None else value.flatten()[index_N][:, None]
        for name, value in vars(batch).items()
        if name.endswith("_BT")
    }
    row_B = batch.row_B[index_N // width] * width + index_N % width
    return replace(batch, **columns, group_B=batch.group_B[index_N // width], row_B=row_B)
