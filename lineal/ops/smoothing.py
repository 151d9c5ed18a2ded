"""Label-smoothed cross-entropy of an output layer, a few hundred rows at a time.

A vocabulary of 10,000 makes the logits the widest thing in a small model: computed whole, kept for the backward pass and
read several times there, they are half of a training step. Here each chunk of them is made, used for the loss *and* for
the gradient while it is in the cache, and overwritten by the next.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 512
"""Rows of logits that exist at once on a CPU; measured, and flat from 128 to 512. Eight times as many elsewhere."""


def smoothed_loss(
    hidden_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    target_N: Int[Tensor, " N"],
    smoothing: float = 0.0,
    bias_V: Float[Tensor, " V"] | None = None,
    half: bool = False,
    share_N: Float[Tensor, " N"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Int[Tensor, ""]]:
    """Σ_n s_n [lse(z_n) - (1 - ε) z_n[y_n] - ε mean_v z_n[v]], z = h W' + b, in nats (Szegedy et al. 2016, eq. 4).

    That is the cross-entropy to (1 - ε) onehot(y) + ε/V, the target itself having a share of ε too, as in
    `torch.nn.functional.cross_entropy`. Beside it, without gradient: Σ -log p(y), and how many y were the most probable.
    half: multiply in bfloat16 and keep the logits in it; sums are float32. share_N: s, each row's share in the loss, without
    which all are 1; the other two sums have none. There is no second derivative.
    """
    return _SmoothedLoss.apply(hidden_ND, weight_VD, bias_V, target_N, smoothing, half, share_N)


class _SmoothedLoss(torch.autograd.Function):
    """The gradient is known as soon as the loss is, so it is computed with it: p - target, times W and h."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        smoothing: float,
        half: bool,
        share_N: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kind = torch.bfloat16 if half else weight_VD.dtype
        with torch.autocast(hidden_ND.device.type, enabled=False):
            sums = _Sums(hidden_ND.detach().to(kind), weight_VD.detach().to(kind), bias_V, smoothing, share_N)
            # Inside `forward` grad mode is off; what counts is whether anyone will ask.
            sums.run(target_N, gradient=any(ctx.needs_input_grad[:3]))
        ctx.sums = sums
        ctx.dtypes = hidden_ND.dtype, weight_VD.dtype
        ctx.mark_non_differentiable(sums.plain, sums.hits)
        return sums.loss, sums.plain, sums.hits

    @staticmethod
    def backward(ctx: Any, scale: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        sums, (hidden, weight) = ctx.sums, ctx.dtypes
        to_bias = None if sums.to_bias_V is None else sums.to_bias_V * scale
        return (
            (sums.to_hidden_ND * scale).to(hidden),
            (sums.to_weight_VD * scale).to(weight),
            to_bias,
            None,
            None,
            None,
            None,
        )


class _Sums:
    """The loss and its gradient in progress."""

    def __init__(
        self,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        smoothing: float,
        share_N: Tensor | None,
    ) -> None:
        self.hidden_ND, self.weight_VD, self.smoothing = hidden_ND, weight_VD, smoothing
        self.bias_V = None if bias_V is None else bias_V.detach().to(weight_VD.dtype)
        self.wide = torch.float64 if weight_VD.dtype == torch.float64 else torch.float32
        self.share_N1 = None if share_N is None else share_N.detach().to(self.wide)[:, None]
        nought = weight_VD.new_zeros((), dtype=self.wide)
        self.loss, self.plain, self.hits = nought, nought.clone(), nought.new_zeros((), dtype=torch.int64)
        self.to_hidden_ND = self.to_weight_VD = nought
        self.to_bias_V: Tensor | None = None

    def run(self, target_N: Tensor, gradient: bool) -> None:
        """All chunks, one after the other."""
        count, vocabulary = len(target_N), len(self.weight_VD)
        chunk = CHUNK if self.weight_VD.device.type == "cpu" else 8 * CHUNK
        logits_CV = self.weight_VD.new_empty(min(chunk, max(1, count)), vocabulary)
        if gradient:
            self.to_hidden_ND = torch.empty_like(self.hidden_ND)
            self.to_weight_VD = torch.zeros_like(self.weight_VD, dtype=self.wide)
            self.to_bias_V = None if self.bias_V is None else torch.zeros_like(self.bias_V, dtype=self.wide)
        for start in range(0, count, chunk):
            rows = slice(start, min(start + chunk, count))
            self._chunk(rows, logits_CV[: rows.stop - start], target_N[rows, None], gradient)
        if self.smoothing:
            self._uniform(gradient)

    def _chunk(self, rows: slice, z_CV: Tensor, target_C1: Tensor, gradient: bool) -> None:
        torch.mm(self.hidden_ND[rows], self.weight_VD.t(), out=z_CV)
        if self.bias_V is not None:
            z_CV += self.bias_V
        taken_C1, most_C1 = z_CV.gather(1, target_C1).to(self.wide), z_CV.amax(1, keepdim=True)
        if gradient:
            # log Σ exp(z) = max z - log max p: the softmax is needed anyway, and the largest p is never near 0.
            torch.softmax(z_CV, 1, out=z_CV)
            lse_C1 = most_C1.to(self.wide) - z_CV.amax(1, keepdim=True).to(self.wide).log()
            self._gradient(rows, z_CV, target_C1)
        else:
            lse_C1 = torch.logsumexp(z_CV.to(self.wide), 1, keepdim=True)
        self.loss = self.loss + self._shared(lse_C1 - (1 - self.smoothing) * taken_C1, rows).sum()
        self.plain += (lse_C1 - taken_C1).sum()
        self.hits += (taken_C1 >= most_C1.to(self.wide)).sum()

    def _shared(self, x_CD: Tensor, rows: slice = slice(None)) -> Tensor:
        return x_CD if self.share_N1 is None else x_CD * self.share_N1[rows].to(x_CD.dtype)

    def _gradient(self, rows: slice, p_CV: Tensor, target_C1: Tensor) -> None:
        share_C = p_CV.new_full((len(p_CV),), -(1 - self.smoothing))
        # scatter_add_ would copy a bfloat16 matrix to float32 and back.
        rows_C = torch.arange(len(p_CV), device=p_CV.device)
        slope_CV = p_CV.index_put_((rows_C, target_C1[:, 0]), share_C, accumulate=True)
        if self.share_N1 is not None:
            slope_CV *= self.share_N1[rows].to(slope_CV.dtype)
        torch.mm(slope_CV, self.weight_VD, out=self.to_hidden_ND[rows])
        self.to_weight_VD += slope_CV.t() @ self.hidden_ND[rows]
        if self.to_bias_V is not None:
            self.to_bias_V += slope_CV.sum(0, dtype=self.wide)

    def _uniform(self, gradient: bool) -> None:
        """The share ε/V of every word, whose sum over v needs no logits: Σ_v z_n[v] = h_n · Σ_v W_v + Σ_v b_v."""
        share = self.smoothing / len(self.weight_VD)
        count = len(self.hidden_ND) if self.share_N1 is None else self.share_N1.sum()
        total_D = self._shared(self.hidden_ND.to(self.wide)).sum(0)
        sum_D = self.weight_VD.sum(0, dtype=self.wide)
        spread = total_D @ sum_D
        if self.bias_V is not None:
            spread = spread + count * self.bias_V.sum(dtype=self.wide)
        self.loss = self.loss - share * spread
        if gradient:
            spread_ND = sum_D if self.share_N1 is None else self.share_N1 * sum_D
            self.to_hidden_ND = self.to_hidden_ND.to(self.wide) - share * spread_ND
            self.to_weight_VD -= share * total_D
            if self.to_bias_V is not None:
                self.to_bias_V -= share * count
