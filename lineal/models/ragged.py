"""Prompts with several completions each, as one flat run of tokens: no padding, and each prompt read once.

Everything that works token by token (norms, projections, feed-forward layers) sees the flat tokens. Only attention
looks at rows: prompts at themselves, completions at their prompt and at themselves. A group of G completions of
length T behind a prompt of length S costs S + G T tokens instead of G (S + T).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SMALLEST = 8
"""Completions of one bucket at least, unless fewer are left."""


@dataclass(frozen=True)
class Bucket:
    """Some completions of similar length as a rectangle.

    token_BT: where their tokens stand in the flat run (0 where padded). prompt_B: which prompt each follows.
    mask_B1TK: which keys, the prompt's and then its own, each token sees.
    """

    token_BT: Int[Tensor, "B T"]
    prompt_B: Int[Tensor, " B"]
    mask_B1TK: Tensor


@dataclass(frozen=True)
class Ragged:
    """How a flat run of tokens [1, N] is made of prompts and completions.

    position_1N: each token's position in its sequence. prompt_PT: where the prompts' tokens stand (0 where padded).
    buckets: the completions. back_N: where each token's result stands behind one another: prompts, then buckets.
    """

    position_1N: Int[Tensor, "1 N"]
    prompt_PT: Int[Tensor, "P T"]
    buckets: tuple[Bucket, ...]
    back_N: Int[Tensor, " N"]


def lay_out(
    prompt_P: list[int],
    length_B: list[int],
    group_B: list[int],
    device: torch.device | str = "cpu",
    multiple: int = 1,
) -> Ragged:
    """The layout of P prompts of these lengths followed, in the flat run, by B completions in the given order.

    group_B: the prompt (0..P-1) of each completion. A completion may have length 0. multiple: the run is filled up to
    a multiple of this with tokens that nothing looks at.
    """
    prompt = torch.tensor(prompt_P, device=device)
    length, group = (torch.tensor(x, device=device, dtype=torch.long) for x in (length_B, group_B))
    first = prompt.cumsum(0) - prompt
    start = int(prompt.sum()) + length.cumsum(0) - length
    across = torch.arange(max(prompt_P), device=device)
    there_PT = across < prompt[:, None]
    prompt_PT = torch.where(there_PT, first[:, None] + across, 0)
    back, positions, offset = (
        [there_PT.flatten().nonzero()[:, 0]],
        [across.expand_as(there_PT)[there_PT]],
        there_PT.numel(),
    )
    buckets = []
    place_B = torch.empty(len(length_B), dtype=torch.long, device=device)
    for rows in _similar(length_B):
        row = torch.tensor(rows, device=device)
        width = max(length_B[r] for r in rows)
        step = torch.arange(width, device=device)
        own_BT = step < length[row][:, None]
        token_BT = torch.where(own_BT, start[row][:, None] + step, 0)
        buckets.append(Bucket(token_BT, group[row], _sees(prompt[group[row]], max(prompt_P), width)))
        place_B[row] = offset + torch.arange(len(rows), device=device) * width
        offset += len(rows) * width
    owner = torch.repeat_interleave(torch.arange(len(length_B), device=device), length)
    within = torch.arange(len(owner), device=device) - (length.cumsum(0) - length)[owner]
    back.append(place_B[owner] + within)
    positions.append(prompt[group][owner] + within)
    spare = torch.zeros(-(len(owner) + int(prompt.sum())) % multiple, dtype=torch.long, device=device)
    return Ragged(torch.cat((*positions, spare))[None], prompt_PT, tuple(buckets), torch.cat((*back, spare)))


def _similar(length_B: list[int]) -> list[list[int]]:
    """Rows by falling length, cut where a row is shorter than half of its bucket's longest; empty rows left out."""
    rows = sorted((r for r, size in enumerate(length_B) if size), key=lambda r: -length_B[r])
    buckets: list[list[int]] = []
    for left, row in zip(range(len(rows), 0, -1), rows, strict=True):
        current = buckets[-1] if buckets else []
        short = bool(current) and 2 * length_B[row] <= length_B[current[0]]
        if not current or (short and len(current) >= SMALLEST and left >= SMALLEST):
            buckets.append([row])
        else:
            current.append(row)
    return buckets


def _sees(prompt_B: Tensor, widest: int, width: int) -> Tensor:
    """[B, 1, T, widest + T]: the prompt's own tokens, and the completion's up to each one."""
    before_BK = torch.arange(widest, device=prompt_B.device) < prompt_B[:, None]
    causal_TT = torch.ones(width, width, dtype=torch.bool, device=prompt_B.device).tril()
    count = len(prompt_B)
    parts = (before_BK[:, None, :].expand(count, width, widest), causal_TT.expand(count, width, width))
    return torch.cat(parts, 2)[:, None]


def attend_ragged(
    query_NHD: Float[Tensor, "N H Dh"],
    key_NKD: Float[Tensor, "N Hkv Dh"],
    value_NKD: Float[Tensor, "N Hkv Dh"],
    ragged: Ragged,
) -> Float[Tensor, "N inner"]:
    """softmax(q k' / sqrt(Dh)) v with each token seeing its prompt and its own completion up to itself."""
    if query_NHD.device.type == "cpu" and query_NHD.dtype == torch.bfloat16:
        # The fused kernel's backward pass takes more than twice as long in bfloat16 as in float32 here.
        with torch.autocast("cpu", enabled=False):
            wide = attend_ragged(query_NHD.float(), key_NKD.float(), value_NKD.float(), ragged)
        return wide.bfloat16()

    def rows(x: Tensor, index: Tensor) -> Tensor:
        return x.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)

    grouped = query_NHD.shape[1] != key_NKD.shape[1]
    key_PKTD, value_PKTD = (rows(x, ragged.prompt_PT) for x in (key_NKD, value_NKD))
    mixed = [
        F.scaled_dot_product_attention(
            rows(query_NHD, ragged.prompt_PT), key_PKTD, value_PKTD, is_causal=True, enable_gqa=grouped
        )
    ]
    for bucket in ragged.buckets:
        key, value = (
            torch.cat((before.index_select(0, bucket.prompt_B), rows(own, bucket.token_BT)), 2)
            for before, own in ((key_PKTD, key_NKD), (value_PKTD, value_NKD))
        )
        query = rows(query_NHD, bucket.token_BT)
        mixed.append(
            F.scaled_dot_product_attention(query, key, value, attn_mask=bucket.mask_B1TK, enable_gqa=grouped)
        )
    flat = torch.cat([x.transpose(1, 2).flatten(2).flatten(0, 1) for x in mixed])
    return flat.index_select(0, ragged.back_N)
