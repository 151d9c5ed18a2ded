"""What stands between logits and the distribution that is sampled: temperature, truncations and penalties.

Each takes logits_BV and returns new logits_BV; a token that must not be drawn gets -inf.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_SLACK = 1e-12


def temperature(logits_BV: Float[Tensor, "B V"], temperature: float) -> Float[Tensor, "B V"]:
    """softmax(logits / temperature): above 1 flattens, below 1 sharpens; 0 keeps only the most probable token."""
    if temperature == 0:
        kept_BV = torch.zeros_like(logits_BV, dtype=torch.bool).scatter_(
            1, logits_BV.argmax(-1, keepdim=True), True
        )
        return logits_BV.masked_fill(~kept_BV, -math.inf)
    return logits_BV / temperature


def top_k(logits_BV: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Keep the k largest logits of each row; logits equal to the k-th are kept with it, as in transformers."""
    if k <= 0 or k >= logits_BV.shape[-1]:
        return logits_BV
    least_B1 = logits_BV.topk(k, dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, -math.inf)


def top_p(logits_BV: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep the smallest set of most probable tokens whose probabilities sum to at least p (Holtzman et al. 2020).

    (.70, .20, .04, .01, ...) at p = .93 keeps 3. Sums are float64, with a slack of 1e-12 for their rounding; of
    equal probabilities the lower id comes first. At least one token is kept.
    """
    if p >= 1:
        return logits_BV
    ordered_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    probability_BV = torch.softmax(ordered_BV, -1, dtype=torch.float64)
    before_BV = probability_BV.cumsum(-1) - probability_BV
    cut_BV = before_BV >= p - _SLACK
    cut_BV[:, 0] = False
    return logits_BV.masked_fill(torch.zeros_like(cut_BV).scatter_(1, order_BV, cut_BV), -math.inf)


def min_p(logits_BV: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep tokens at least p times as probable as the most probable one (Nguyen et al. 2024)."""
    if p <= 0:
        return logits_BV
    return logits_BV.masked_fill(logits_BV < logits_BV.amax(-1, keepdim=True) + math.log(p), -math.inf)


def repetition(
    logits_BV: Float[Tensor, "B V"], count_BV: Int[Tensor, "B V"], penalty: float
) -> Float[Tensor, "B V"]:
    """logit / penalty^n for a token generated n times before.

    The formula as it stands: a *negative* logit divided by a penalty above 1 rises. `repetition_huggingface` is
    the form that lowers both signs.
    """
    return logits_BV / torch.as_tensor(penalty, dtype=logits_BV.dtype, device=logits_BV.device) ** count_BV


def repetition_huggingface(
    logits_BV: Float[Tensor, "B V"], seen_BV: Bool[Tensor, "B V"], penalty: float
) -> Float[Tensor, "B V"]:
    """logit / penalty where positive, logit * penalty where negative, once for every token seen (Keskar et al. 2019)."""
    lowered_BV = torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return torch.where(seen_BV, lowered_BV, logits_BV)


def frequency(
    logits_BV: Float[Tensor, "B V"], count_BV: Int[Tensor, "B V"], penalty: float
) -> Float[Tensor, "B V"]:
    """logit - penalty * n for a token generated n times before."""
    # A number times an integer tensor would be float32, whatever the logits are.
    return logits_BV - penalty * count_BV.to(logits_BV.dtype)


def presence(
    logits_BV: Float[Tensor, "B V"], count_BV: Int[Tensor, "B V"], penalty: float
) -> Float[Tensor, "B V"]:
    """logit - penalty for a token generated before, however often."""
    return logits_BV - penalty * (count_BV > 0).to(logits_BV.dtype)


def no_repeat_ngram(
    logits_BV: Float[Tensor, "B V"], history_BT: Int[Tensor, "B T"], length_B: Int[Tensor, " B"], n: int
) -> Float[Tensor, "B V"]:
    """Forbid every token that would complete a sequence of n tokens already in the row's history.

    history_BT: the tokens so far, prompt included, the first length_B of each row; what lies beyond is not read.
    A row in which every token would be forbidden is left as it was: some token has to come.
    """
    width = history_BT.shape[1]
    if width < n:
        return logits_BV
    window_BWn = history_BT.unfold(1, n, 1)
    # A row shorter than n - 1 has no tail to compare; its windows all end beyond its length, so none counts.
    tail_index_Bn = (length_B[:, None] - (n - 1) + torch.arange(n - 1, device=history_BT.device)).clamp(min=0)
    tail_Bn = history_BT.gather(1, tail_index_Bn)
    end_W = torch.arange(n, width + 1, device=history_BT.device)
    match_BW = (window_BWn[..., : n - 1] == tail_Bn[:, None]).all(-1) & (end_W <= length_B[:, None])
    hits_BV = torch.zeros_like(logits_BV, dtype=torch.int32)
    # Padding may hold any number; where nothing matches, point at token 0 and add nothing.
    hits_BV.scatter_add_(1, window_BWn[..., -1].masked_fill(~match_BW, 0), match_BW.int())
    banned_BV = hits_BV > 0
    banned_BV &= ~banned_BV.all(-1, keepdim=True)
    return logits_BV.masked_fill(banned_BV, -math.inf)
