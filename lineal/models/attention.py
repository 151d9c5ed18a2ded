"""Causal self-attention with grouped key-value heads, with and without a cache of earlier tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lineal.models.cache import KeyValueCache, Rows, Step
from lineal.models.dropout import drop
from lineal.models.gating import Routes
from lineal.models.layers import RMSNorm, rotate
from lineal.models.ragged import Ragged, attend_ragged

if TYPE_CHECKING:
    from lineal.models.decoder import DecoderConfig

__all__ = ["Attention", "KeyValueCache", "Rows", "Step", "View"]


@dataclass(frozen=True)
class View:
    """What one forward pass tells every layer.

    rotation: cos and sin of the tokens' positions, None with learned positions.
    mask: which keys each query sees, as SDPA takes it; None means causal (without a cache).
    cache, step: the memory of earlier tokens and where this pass stands in it.
    ragged: the rows of a flat run of tokens, when it is one.
    routes: what mixtures of experts are told, and where they say which experts they took.
    """

    rotation: tuple[Tensor, Tensor] | None
    mask: Tensor | None = None
    cache: KeyValueCache | None = None
    step: Step | None = None
    ragged: Ragged | None = None
    routes: Routes | None = None


class Attention(nn.Module):
    """softmax(q k' / sqrt(Dh) + mask) v per head, H query heads sharing Hkv key-value heads (Ainslie et al. 2023).

    One matrix `qkv` makes queries, keys and values, in this order; the heads of one kind are contiguous.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.head_width
        self.inner = self.heads * self.head_width
        self.turned = self.heads + self.kv_heads
        self.grouped = self.heads != self.kv_heads
        self.dropout = config.dropout
        rows = (self.heads + 2 * self.kv_heads) * self.head_width
        self.qkv = nn.Linear(config.width, rows, config.qkv_bias)
        self.out = nn.Linear(self.inner, config.width, config.out_bias)
        self.query_norm = RMSNorm(self.head_width, config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(self.head_width, config.norm_eps) if config.qk_norm else None

    def forward(self, x_BTD: Float[Tensor, "B T D"], view: View, layer: int = 0) -> Float[Tensor, "B T D"]:
        """Mix each position with those it may see."""
        size = x_BTD.shape[:2]
        qkv_BTHD = self.qkv(x_BTD).view(*size, self.turned + self.kv_heads, self.head_width)
        if view.cache is not None and view.step is not None:
            return self.out(self._remember(qkv_BTHD, view, view.cache, view.step, layer))
        turned_BTHD, value_BTHD = qkv_BTHD.split((self.turned, self.kv_heads), 2)
        turned_BTHD = self._place(turned_BTHD, view)
        query_BTHD, key_BTHD = turned_BTHD.split((self.heads, self.kv_heads), 2)
        if view.ragged is not None:
            return self.out(attend_ragged(query_BTHD[0], key_BTHD[0], value_BTHD[0], view.ragged)[None])
        parts = query_BTHD.transpose(1, 2), key_BTHD.transpose(1, 2), value_BTHD.transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        if dropout and x_BTD.device.type == "cpu" and not self.grouped:
            mixed_BHTD = attend_plainly(
                *parts, view.mask, lambda weight_BHTS: drop(weight_BHTS, dropout), True
            )
        else:
            mixed_BHTD = F.scaled_dot_product_attention(
                *parts, view.mask, dropout, is_causal=view.mask is None, enable_gqa=self.grouped
            )
        return self.out(mixed_BHTD.transpose(1, 2).reshape(*size, self.inner))

    def _place(self, turned_BTHD: Tensor, view: View) -> Tensor:
        """Queries and keys, normalised per head where the model does so, at their positions."""
        if self.query_norm is not None and self.key_norm is not None:
            query_BTHD, key_BTHD = turned_BTHD.split((self.heads, self.kv_heads), 2)
            turned_BTHD = torch.cat((self.query_norm(query_BTHD), self.key_norm(key_BTHD)), 2)
        return turned_BTHD if view.rotation is None else rotate(turned_BTHD, *view.rotation)

    def _remember(self, qkv_BTHD: Tensor, view: View, cache: KeyValueCache, step: Step, layer: int) -> Tensor:
        """Attention through the cache: store the new keys and values, then look at all there is."""
        count, width = qkv_BTHD.shape[:2]
        turned_BTHD = qkv_BTHD[:, :, : self.turned]
        if self.query_norm is not None:
            turned_BTHD.copy_(self._place(turned_BTHD, view))
        elif view.rotation is not None:
            # In place, so that keys and values stay side by side and reach the cache in one copy.
            rotate(turned_BTHD, *view.rotation, out=turned_BTHD)
        kv_BTKHD = qkv_BTHD[:, :, self.heads :].unflatten(2, (2, self.kv_heads))
        cache.write(layer, step, kv_BTKHD)
        query_BTHD = qkv_BTHD[:, :, : self.heads]
        if step.fresh:
            key, value = kv_BTKHD.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            key, value = cache.read(layer, step)
        if width == 1:
            return attend_one(query_BTHD[:, 0], key, value, step.mask)[:, None]
        mixed_BHTD = F.scaled_dot_product_attention(
            query_BTHD.transpose(1, 2),
            key,
            value,
            attn_mask=step.mask,
            is_causal=step.fresh,
            enable_gqa=self.grouped,
        )
        return mixed_BHTD.transpose(1, 2).reshape(count, width, self.inner)


def attend_plainly(
    query_BHTD: Tensor,
    key_BHSD: Tensor,
    value_BHSD: Tensor,
    mask: Tensor | None,
    drop: Callable[[Tensor], Tensor],
    causal: bool = False,
) -> Tensor:
    """softmax(q k' / sqrt(Dh) + mask) v in two plain products; `drop` is shown the weights and may thin them out.

    mask: 0 or -inf, or as SDPA takes it, True where there is something to see; causal: none means the past only.
    """
    score_BHTS = (query_BHTD * query_BHTD.shape[-1] ** -0.5) @ key_BHSD.transpose(-1, -2)
    if mask is None and causal:
        mask = torch.ones(score_BHTS.shape[-2:], dtype=torch.bool, device=score_BHTS.device).tril()
    if mask is not None:
        hide = mask.dtype == torch.bool
        score_BHTS = score_BHTS.masked_fill(~mask, -math.inf) if hide else score_BHTS + mask
    return drop(score_BHTS.softmax(-1)) @ value_BHSD


def attend_one(query_BHD: Tensor, key_BKSD: Tensor, value_BKSD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of one query per row and head, [B, H * Dh]; `mask` [B, 1, 1, S] (or its `flat_mask`) joins the scores.

    The queries that share a key-value head stand in the place of time, so no head is repeated. On a CPU two
    batched products beat the fused kernel by 1.5 to 5 times for a single query.
    """
    rows, kv_heads, _, head_width = key_BKSD.shape
    query = query_BHD.reshape(rows, kv_heads, -1, head_width)
    if query_BHD.is_cuda:
        return F.scaled_dot_product_attention(query, key_BKSD, value_BKSD, attn_mask=mask).reshape(rows, -1)
    query, key, value = query.flatten(0, 1), key_BKSD.flatten(0, 1), value_BKSD.flatten(0, 1)
    if mask is None:
        score = torch.baddbmm(query.new_zeros(1), query, key.transpose(1, 2), beta=0, alpha=head_width**-0.5)
    else:
        mask = mask if mask.ndim == 3 else flat_mask(mask, kv_heads)
        score = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=head_width**-0.5)
    return torch.bmm(score.softmax(-1), value).view(rows, -1)


def flat_mask(mask_B11S: Tensor, kv_heads: int) -> Tensor:
    """A mask as `attend_one` uses it, [B * Hkv, 1, S]: worth making once where many layers share it."""
    rows, span = len(mask_B11S), mask_B11S.shape[-1]
    return mask_B11S.expand(rows, kv_heads, 1, span).reshape(-1, 1, span)
