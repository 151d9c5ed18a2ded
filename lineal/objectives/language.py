"""Next-token prediction: the cross-entropy of each token given those before it."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from lineal.ops.logprob import linear_logp


def next_token_loss(
    hidden_BTD: Float[Tensor, "B T D"],
    weight_VD: Float[Tensor, "V D"],
    target_BT: Int[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"] | None = None,
    *,
    count: Float[Tensor, ""] | Int[Tensor, ""] | float | None = None,
    chunk: int | None = None,
) -> Float[Tensor, ""]:
    """-1/N Σ log p(target_t | tokens before t), in nats: the language-modelling loss  (Bengio et al. 2003, eq. 2).

    target_BT[b, t] is the token after the one that hidden_BTD[b, t] ends with. mask_BT: True where a target counts
    (completions only, for fine-tuning); masked positions never reach the output layer. count: N, where the rows are only
    part of an optimiser batch, so that micro-batches add up; by default the counted positions given. `chunk` as for
    `linear_logp`, which keeps [B, T, V] out of memory.
    """
    if mask_BT is None:
        hidden_ND, target_N = hidden_BTD.flatten(0, 1), target_BT.flatten()
    else:
        hidden_ND, target_N = hidden_BTD[mask_BT], target_BT[mask_BT]
    total = linear_logp(hidden_ND, weight_VD, target_N, chunk=chunk).sum()
    return -total / (max(target_N.shape[0], 1) if count is None else count)
