"""Sums, means and whitening over the positions that count; what stands in the others is never read."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_sum(
    x: Float[Tensor, "*N"], mask: Bool[Tensor, "*N"], dim: int | None = None
) -> Float[Tensor, ...]:
    """Sum of x where mask is True: Σ mᵢ xᵢ, over everything or over `dim`.

    Selects instead of multiplying, so nan or inf in a padded place neither shows nor reaches a gradient.
    """
    kept = torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(
    x: Float[Tensor, "*N"], mask: Bool[Tensor, "*N"], dim: int | None = None
) -> Float[Tensor, ...]:
    """Mean of x where mask is True: Σ mᵢ xᵢ / Σ mᵢ; 0 where nothing counts."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_var(x: Float[Tensor, "*N"], mask: Bool[Tensor, "*N"], correction: int = 1) -> Float[Tensor, ""]:
    """Variance of x where mask is True: Σ mᵢ (xᵢ - mean)² / (Σ mᵢ - correction); 0 where not defined."""
    deviation = torch.where(mask, x - masked_mean(x, mask), torch.zeros((), dtype=x.dtype, device=x.device))
    return deviation.square().sum() / (mask.sum() - correction).clamp(min=1)


def whiten_rows(x_BN: Float[Tensor, "B N"], eps: float = 1e-8) -> Float[Tensor, "B N"]:
    """`whiten` of each row by itself, where every position counts."""
    centred_BN = x_BN - x_BN.mean(1, keepdim=True)
    variance_B1 = centred_BN.square().sum(1, keepdim=True) / max(1, x_BN.shape[1] - 1)
    return centred_BN / (variance_B1.sqrt() + eps)


def whiten(x: Float[Tensor, "*N"], mask: Bool[Tensor, "*N"], eps: float = 1e-8) -> Float[Tensor, "*N"]:
    """(x - mean) / (std + eps) over the counted positions, 0 elsewhere; std with n - 1, as PPO codes do."""
    scaled = (x - masked_mean(x, mask)) / (masked_var(x, mask).sqrt() + eps)
    return torch.where(mask, scaled, torch.zeros((), dtype=x.dtype, device=x.device))
