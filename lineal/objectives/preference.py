"""Preferences between two answers or segments: the Bradley-Terry model, as a probability and as a loss."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from lineal.ops.masked import masked_sum


def bradley_terry(
    score_chosen: Float[Tensor, "*N"], score_rejected: Float[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """P(chosen > rejected) = exp(s_c) / (exp(s_c) + exp(s_r)) = σ(s_c - s_r)  (Bradley and Terry 1952)."""
    return torch.sigmoid(score_chosen - score_rejected)


def segment_score(
    reward_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"], discount: float = 1.0
) -> Float[Tensor, " B"]:
    """Σ_t discount^t r_t over the counted steps of a segment  (Christiano et al. 2017, section 2.2.3)."""
    if discount == 1.0:
        return masked_sum(reward_BT, mask_BT, dim=1)
    place_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    return masked_sum(reward_BT * discount ** place_BT.to(reward_BT.dtype), mask_BT, dim=1)


def preference_loss(
    score_chosen: Float[Tensor, " B"],
    score_rejected: Float[Tensor, " B"],
    preference: Float[Tensor, " B"] | None = None,
    *,
    margin: Float[Tensor, " B"] | float = 0.0,
    error_rate: float = 0.0,
    weight: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """-mean[μ log P(1 > 2) + (1 - μ) log P(2 > 1)]  (Christiano et al. 2017, eq. 1), P(1 > 2) = σ(s_1 - s_2 - margin).

    preference: μ, the probability that the first was preferred: 1 by default, .5 for "equally good". error_rate: share of
    labels given at random, P' = (1 - e) P + e/2 (their 10 % is 0.1). weight: of each pair (bootstrap), normalised here.
    With scores that are sums of rewards this is logistic regression on the difference of the summed features.
    """
    loss_B = preference_losses(score_chosen - margin, score_rejected, preference, error_rate=error_rate)
    return loss_B.mean() if weight is None else (weight * loss_B).sum() / weight.sum()


def preference_losses(
    score_chosen: Float[Tensor, "*N"],
    score_rejected: Float[Tensor, "*N"],
    preference: Float[Tensor, "*N"] | None = None,
    *,
    error_rate: float = 0.0,
) -> Float[Tensor, "*N"]:
    """-[μ log P(1 > 2) + (1 - μ) log P(2 > 1)] of each pair, for as many members of an ensemble as there are rows.

    P(1 > 2) = (1 - e) σ(s_1 - s_2) + e/2: a person who answers at random with probability e (Christiano et al. 2017,
    section 2.2.3, with e = 10 %). So no answer costs more than -log(e/2), however sure the scores are.
    """
    difference = score_chosen - score_rejected
    first = _log_probability(difference, error_rate)
    if preference is None:
        return -first
    return -(preference * first + (1 - preference) * _log_probability(-difference, error_rate))


def _log_probability(difference: Tensor, error_rate: float) -> Tensor:
    if not error_rate:
        return F.logsigmoid(difference)
    return torch.log((1 - error_rate) * torch.sigmoid(difference) + error_rate / 2)
