"""Log-probabilities, entropies and Kullback-Leibler divergences of discrete (and Gaussian) policies."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lineal.errors import UsageError


def gather_logp(logits: Float[Tensor, "*N V"], action: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """log π(action) = logit - log Σ exp(logits), over the last axis, without the whole log-softmax."""
    return logits.gather(-1, action.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(logits, -1)


def entropy(logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """H = -Σ π log π over the last axis, in nats."""
    return _entropy(torch.log_softmax(logits, -1))


def logp_and_entropy(
    logits: Float[Tensor, "*N V"], action: Int[Tensor, "*N"]
) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
    """log π(action) and the entropy, from one log-softmax."""
    logp = torch.log_softmax(logits, -1)
    return logp.gather(-1, action.unsqueeze(-1)).squeeze(-1), _entropy(logp)


def exact_kl(old_logits: Float[Tensor, "*N V"], new_logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """KL(old || new) = Σ_v old_v (log old_v - log new_v) over the last axis; twice differentiable in both.

    A token that the old policy cannot take (logit -inf) adds 0.
    """
    old_logp = torch.log_softmax(old_logits, -1)
    new_logp = torch.log_softmax(new_logits, -1)
    probability = old_logp.exp()
    possible = probability > 0
    gap = torch.where(possible, old_logp, 0.0) - torch.where(possible, new_logp, 0.0)
    return (probability * gap).sum(-1)


def kl_estimate(kind: str, logp_p: Float[Tensor, "*N"], logp_q: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """A per-sample estimate of KL(p || q) from samples of p  (Schulman 2020, 'Approximating KL divergence').

    With d = log p - log q:

    ===== =================  =================  ==========================  ===========================
    kind  formula            mean over p        mean gradient in p          mean gradient in q
    ===== =================  =================  ==========================  ===========================
    k1    d                  KL(p || q)         0: no use as a loss         that of KL(p || q)
    k2    d² / 2             biased             that of KL(p || q)          biased, 0 where p = q
    k3    exp(-d) - 1 + d    KL(p || q)         that of KL(q || p)          that of KL(p || q)
    ===== =================  =================  ==========================  ===========================

    'Gradient' is that of the formula with the samples held fixed, which is what autograd sees.
    """
    difference = logp_p - logp_q
    if kind == "k1":
        return difference
    if kind == "k2":
        return difference.square() / 2
    if kind == "k3":
        return torch.expm1(-difference) + difference
    raise UsageError(f"kl_estimate got kind {kind!r}, which is none of its estimators. Use k1, k2 or k3.")


def _entropy(logp: Tensor) -> Tensor:
    # exp(-inf) · -inf is nan, where the limit is 0.
    return -(logp.exp() * torch.where(torch.isinf(logp), 0.0, logp)).sum(-1)


def gaussian_logp(
    action: Float[Tensor, "*N A"],
    mean: Float[Tensor, "*N A"],
    *,
    log_std: Float[Tensor, "*#N A"] | None = None,
    scale_tril: Float[Tensor, "*#N A A"] | None = None,
) -> Float[Tensor, "*N"]:
    """log N(action; mean, Σ) = -½ (a - μ)'Σ⁻¹(a - μ) - ½ log|Σ| - ½ A log 2π, with log|Σ| kept.

    Give either log_std (diagonal Σ) or scale_tril (lower Cholesky factor of Σ). log|Σ| is no constant once Σ is learned.
    """
    if (log_std is None) == (scale_tril is None):
        raise UsageError("gaussian_logp takes either log_std or scale_tril. Give exactly one of them.")
    deviation = action - mean
    constant = 0.5 * action.shape[-1] * math.log(2 * math.pi)
    if log_std is not None:
        return -0.5 * (deviation * torch.exp(-log_std)).square().sum(-1) - log_std.sum(-1) - constant
    assert scale_tril is not None
    whitened = torch.linalg.solve_triangular(scale_tril, deviation.unsqueeze(-1), upper=False).squeeze(-1)
    half_log_determinant = torch.diagonal(scale_tril, dim1=-2, dim2=-1).abs().log().sum(-1)
    return -0.5 * whitened.square().sum(-1) - half_log_determinant - constant


def linear_logp(
    hidden_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    action_N: Int[Tensor, " N"],
    temperature: float = 1.0,
    *,
    bias: Float[Tensor, " V"] | None = None,
    chunk: int | None = None,
) -> Float[Tensor, " N"]:
    """log softmax((hidden weight' + bias) / temperature)[action], in float32 or better, without [N, V] in memory.

    chunk: rows whose logits exist at once, forward and backward; None takes all rows where that is at most `LOGITS`
    numbers. In one piece it can be differentiated twice; in several pieces once, with gradients written out by hand: the
    softmax is computed again instead of being kept.
    """
    rows = max(1, LOGITS // weight_VD.shape[0]) if chunk is None else chunk
    if torch.is_autocast_enabled(hidden_ND.device.type):
        dtype = torch.get_autocast_dtype(hidden_ND.device.type)
        hidden_ND, weight_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
    if hidden_ND.shape[0] > rows:
        return _ChunkedLogp.apply(hidden_ND, weight_VD, bias, action_N, temperature, rows)
    return gather_logp(_logits(hidden_ND, weight_VD, bias, temperature), action_N)


LOGITS = 1 << 22
"""Most logits that `linear_logp` holds at once unless told: 16 MiB in float32, which stays in a CPU's cache."""


class _ChunkedLogp(torch.autograd.Function):
    """d logp[n] / d logits[n] = (onehot(action) - softmax) / temperature, a chunk of rows at a time."""

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, bias, action_N, temperature, rows):
        logp = []
        total_N = []
        for hidden, action in zip(hidden_ND.split(rows), action_N.split(rows), strict=True):
            logits = _logits(hidden, weight_VD, bias, temperature)
            total_N.append(torch.logsumexp(logits, -1))
            logp.append(logits.gather(1, action[:, None])[:, 0] - total_N[-1])
        ctx.save_for_backward(hidden_ND, weight_VD, bias, action_N, torch.cat(total_N))
        ctx.settings = temperature, rows
        return torch.cat(logp)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient_N):
        hidden_ND, weight_VD, bias, action_N, total_N = ctx.saved_tensors
        temperature, rows = ctx.settings
        grad_hidden_ND = torch.empty_like(hidden_ND)
        # Summed in float32 whatever the weight's dtype: there may be many chunks.
        wide = torch.promote_types(weight_VD.dtype, torch.float32)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if ctx.needs_input_grad[2] else None
        for start in range(0, hidden_ND.shape[0], rows):
            part = slice(start, start + rows)
            slope = _logits(hidden_ND[part], weight_VD, bias, temperature).sub_(total_N[part, None]).exp_()
            slope.mul_(gradient_N[part, None]).neg_()
            slope.scatter_add_(1, action_N[part, None], gradient_N[part, None].to(slope.dtype))
            slope.div_(temperature)
            if grad_bias is not None:
                grad_bias += slope.sum(0)
            slope = slope.to(weight_VD.dtype)
            grad_hidden_ND[part] = slope @ weight_VD
            if grad_weight_VD is not None:
                if grad_weight_VD.dtype == slope.dtype:
                    grad_weight_VD.addmm_(slope.T, hidden_ND[part])
                else:
                    grad_weight_VD += slope.T @ hidden_ND[part]
        as_weight = None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype)
        return (
            grad_hidden_ND,
            as_weight,
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _logits(hidden_ND: Tensor, weight_VD: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = hidden_ND @ weight_VD.T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if bias is not None:
        logits = logits + bias
    return logits if temperature == 1.0 else logits / temperature
