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
