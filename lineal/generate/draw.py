"""From logits to a token: the integer inverse of the cumulative distribution, and the greedy choice."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lineal.generate.random import BITS

BLOCK = 1024
"""Vocabularies above four of these are searched in two levels: which block, then which token in it."""

_ELEMENTS = 1 << 24


def draw(logp_BV: Float[Tensor, "B V"], uniform_B: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The token of each row at the point `uniform_B` of its cumulative distribution.

    weight_v = round(2^52 exp(logp_v)), an int64; token = the first v with weight_0 + ... + weight_v > uniform.
    logp_BV: normalised log-probabilities in float64 (-inf for tokens that must not be drawn).
    uniform_B: integers in [0, 2^52), from `uniform_int`.
    Integers make it exact: a float32 cumulative sum over 150,000 tokens gives many of them no width at all, and
    its rounding depends on the device; an integer sum has neither trouble. Tokens under 2^-53 are never drawn, and
    rounding moves each probability by at most 2^-53.
    """
    rows, vocabulary = logp_BV.shape
    if rows * vocabulary > _ELEMENTS and rows > 1:
        # float64 and int64 copies of [B, V] are large at V = 150,000: a few rows at a time.
        at_once = max(1, _ELEMENTS // vocabulary)
        parts = zip(logp_BV.split(at_once), uniform_B.split(at_once), strict=True)
        return torch.cat([draw(logp, uniform) for logp, uniform in parts])
    weight_BV = logp_BV.exp().mul_(1 << BITS).round_().long()
    if vocabulary <= 4 * BLOCK:
        return _search(weight_BV.cumsum(-1), uniform_B)
    return _two_levels(weight_BV, uniform_B)


def _search(edge_BN: Tensor, uniform_B: Tensor) -> Tensor:
    # The sum is 2^52 give or take N/2: a point beyond it belongs to the last token that has any weight.
    point_B1 = torch.minimum(uniform_B[:, None], edge_BN[:, -1:] - 1)
    return torch.searchsorted(edge_BN, point_B1, right=True).squeeze(-1).clamp_(max=edge_BN.shape[1] - 1)


def _two_levels(weight_BV: Tensor, uniform_B: Tensor) -> Tensor:
    rows, vocabulary = weight_BV.shape
    weight_BV = torch.nn.functional.pad(weight_BV, (0, -vocabulary % BLOCK))
    weight_BNK = weight_BV.view(rows, -1, BLOCK)
    edge_BN = weight_BNK.sum(-1).cumsum(-1)
    block_B = _search(edge_BN, uniform_B)
    row_B = torch.arange(rows, device=weight_BV.device)
    chosen_BK = weight_BNK[row_B, block_B]
    before_B = edge_BN[row_B, block_B] - chosen_BK.sum(-1)
    return block_B * BLOCK + _search(chosen_BK.cumsum(-1), uniform_B - before_B)


def greedy(logits_BV: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
    """The most probable token of each row; of equals, the one that `argmax` meets first."""
    return logits_BV.argmax(-1)


def temper(logits_BV: Float[Tensor, "B V"], temperature: float) -> Float[Tensor, "B V"]:
    """Log-probabilities softmax(logits / temperature) in float64; temperature 0 (greedy) is scored at 1."""
    if temperature not in (0.0, 1.0):
        logits_BV = logits_BV.double() / temperature
    return torch.log_softmax(logits_BV, -1, dtype=torch.float64)
