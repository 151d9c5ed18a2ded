"""Multi-head attention as the encoder-decoder needs it: bidirectional, causal, and from one sequence to another."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lineal.models.attention import attend_one, attend_plainly
from lineal.models.cache import KeyValueCache, Step
from lineal.models.dropout import Masks


@dataclass
class Pass:
    """What one forward pass tells every layer.

    masks: where dropout comes from; None for none. maps: when it is a list, each attention appends its weights
    [B, H, T, S] to it, in the order of computation.
    """

    masks: Masks | None = None
    maps: list[Tensor] | None = field(default=None)

    def drop(self, x: Tensor, p: float) -> Tensor:
        """Dropout, where there is any."""
        return x if self.masks is None else self.masks(x, p)


def attend(
    query_BHTD: Float[Tensor, "B H T Dh"],
    key_BHSD: Float[Tensor, "B H S Dh"],
    value_BHSD: Float[Tensor, "B H S Dh"],
    mask: Tensor | None,
    going: Pass,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T Dh"]:
    """softmax(q k' / sqrt(Dh) + mask) v (Vaswani et al. 2017, eq. 1); mask [B or 1, 1, T or 1, S] is 0 or -inf.

    dropout: of the weights. On a CPU two plain products beat the fused kernel for bfloat16 (8 times, forward and
    backward, on sentences of 14 tokens); in float32 the fused kernel is the faster one.
    """
    mask = None if mask is None else mask.to(query_BHTD.dtype)
    plain = going.maps is not None or (going.masks is not None and dropout > 0)
    if not plain and not (query_BHTD.dtype == torch.bfloat16 and query_BHTD.device.type == "cpu"):
        return F.scaled_dot_product_attention(query_BHTD, key_BHSD, value_BHSD, attn_mask=mask)

    def drop(weight_BHTS: Tensor) -> Tensor:
        if going.maps is not None:
            going.maps.append(weight_BHTS.detach().float())
        return going.drop(weight_BHTS, dropout)

    return attend_plainly(query_BHTD, key_BHSD, value_BHSD, mask, drop)


class SelfAttention(nn.Module):
    """concat(head_1 ... head_H) W_O, head_i = attention(x W_Qi, x W_Ki, x W_Vi); one matrix holds all of Q, K and V."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.out = nn.Linear(width, width, bias)

    def forward(
        self, x_BTD: Float[Tensor, "B T D"], mask: Tensor | None, going: Pass
    ) -> Float[Tensor, "B T D"]:
        """Mix each position with those that the mask leaves it."""
        size, width = x_BTD.shape[:2], x_BTD.shape[2]
        qkv = self.qkv(x_BTD).view(*size, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed_BHTD = attend(query, key, value, mask, going, self.dropout)
        return self.out(mixed_BHTD.transpose(1, 2).reshape(*size, width))

    def step(
        self, x_ND: Float[Tensor, "N D"], cache: KeyValueCache, step: Step, layer: int
    ) -> Float[Tensor, "N D"]:
        """One more token of each row: store its key and value, look at all there are."""
        count, width = x_ND.shape
        qkv_N3HD = self.qkv(x_ND).view(count, 3, self.heads, width // self.heads)
        cache.write(layer, step, qkv_N3HD[:, None, 1:])
        key, value = cache.read(layer, step)
        return self.out(attend_one(qkv_N3HD[:, 0], key, value, step.mask))


class CrossAttention(nn.Module):
    """The same with queries from the decoder, and keys and values from the encoder's output."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias)
        self.kv = nn.Linear(width, 2 * width, bias)
        self.out = nn.Linear(width, width, bias)

    def remember(self, memory_BSD: Float[Tensor, "B S D"]) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, S, Dh] of a source, which every decoding step looks at."""
        size, width = memory_BSD.shape[:2], memory_BSD.shape[2]
        key, value = (
            self.kv(memory_BSD)
            .view(*size, 2, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        return key, value

    def forward(
        self,
        x_BTD: Float[Tensor, "B T D"],
        memory_BSD: Float[Tensor, "B S D"],
        mask: Tensor | None,
        going: Pass,
    ) -> Float[Tensor, "B T D"]:
        """Mix what the source holds, for each target position."""
        key, value = self.remember(memory_BSD)
        return self.look(x_BTD, key, value, mask, going)

    def look(
        self, x_BTD: Float[Tensor, "B T D"], key: Tensor, value: Tensor, mask: Tensor | None, going: Pass
    ) -> Float[Tensor, "B T D"]:
        """The same with keys and values that are there already."""
        size, width = x_BTD.shape[:2], x_BTD.shape[2]
        query_BHTD = self.query(x_BTD).view(*size, self.heads, width // self.heads).transpose(1, 2)
        mixed_BHTD = attend(query_BHTD, key, value, mask, going, self.dropout)
        return self.out(mixed_BHTD.transpose(1, 2).reshape(*size, width))
