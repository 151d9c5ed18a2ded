"""Attention against its formula, head by head."""

from __future__ import annotations

import pytest
import torch

from lineal.models.attention import Attention, View, attend_one
from lineal.models.decoder import DecoderConfig, gpt2_config, qwen3_config


def by_hand(attention: Attention, x_TD: torch.Tensor, config: DecoderConfig) -> torch.Tensor:
    """softmax(q k' / sqrt(Dh)) v of one row without positions, one head and one query at a time."""
    width, group = config.head_width, config.heads // config.kv_heads
    qkv_TR = attention.qkv(x_TD)
    query, key, value = qkv_TR.split([config.heads * width, *[config.kv_heads * width] * 2], -1)
    query_norm, key_norm = attention.query_norm, attention.key_norm
    out = []
    for t in range(len(x_TD)):
        heads = []
        for h in range(config.heads):
            own = slice(h * width, (h + 1) * width)
            shared = slice(h // group * width, (h // group + 1) * width)
            q, k, v = query[t, own], key[: t + 1, shared], value[: t + 1, shared]
            if query_norm is not None and key_norm is not None:
                q, k = query_norm(q), key_norm(k)
            heads.append((k @ q / width**0.5).softmax(0) @ v)
        out.append(torch.cat(heads))
    return attention.out(torch.stack(out))


@pytest.mark.parametrize(
    "config",
    [gpt2_config(5, 16, 1, 4, 32, 8), qwen3_config(5, 16, 1, 4, 32, 8, kv_heads=2, head_width=6)],
)
def test_it_is_the_formula(config):
    torch.manual_seed(0)
    attention = Attention(config).double().eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x_TD = torch.randn(6, 16, dtype=torch.float64)
    mixed = attention(x_TD[None], View(None))[0]
    torch.testing.assert_close(mixed, by_hand(attention, x_TD, config))


def test_with_identity_projections_it_is_softmax_of_xx():
    config = gpt2_config(5, 8, 1, 1, 32, 8)
    attention = Attention(config).double().eval()
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(8).repeat(3, 1))
        attention.qkv.bias.zero_()
        attention.out.weight.copy_(torch.eye(8))
        attention.out.bias.zero_()
    x_TD = torch.randn(5, 8, dtype=torch.float64)
    score = (x_TD @ x_TD.T / 8**0.5).masked_fill(~torch.ones(5, 5).tril().bool(), float("-inf"))
    torch.testing.assert_close(attention(x_TD[None], View(None))[0], score.softmax(-1) @ x_TD)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_one_query_equals_the_fused_kernel(kv_heads, masked):
    torch.manual_seed(0)
    query = torch.randn(3, 4, 8, dtype=torch.float64)
    store = torch.randn(2, 5, kv_heads, 12, 8, dtype=torch.float64)
    key, value = store[:, :3, :, :7].unbind(0)
    mask = None
    if masked:
        mask = torch.zeros(3, 1, 1, 7, dtype=torch.float64)
        mask[1, ..., 4:] = float("-inf")
    repeated = [x.repeat_interleave(4 // kv_heads, 1) for x in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query[:, :, None], *repeated, attn_mask=mask)
    torch.testing.assert_close(attend_one(query, key, value, mask), expected.reshape(3, 32))
