"""Which tokens each expert of a mixture takes: the picture of what the experts became."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lineal.models.gating import Routes
from lineal.tokenizers import Tokenizer
from lineal.train.language import Reader

READ = 1 << 16
"""Tokens that are read for the picture."""
SHOWN = 12
"""Tokens that are named for each expert."""
OFTEN = 5
"""A token seen less often than this says nothing about an expert."""


@torch.no_grad()
def specialists(model: Reader, stream_N: Tensor, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """For each mixture layer, and each expert: its share of all tokens, and the tokens that it takes most above that
    share, with their counts and how many times as often as by chance (lift)."""
    block = model.config.context
    token_BT = stream_N[: min(READ, len(stream_N)) // block * block].long().view(-1, block)
    if not len(token_BT):
        return []
    model.eval()
    counts: list[Tensor] = []
    for part_BT in token_BT.split(max(1, (1 << 13) // block)):
        routes = Routes()
        part_BT = part_BT.to(model.device)
        model(part_BT, routes=routes)
        for layer, routing in enumerate(routes.routing):
            if len(counts) <= layer:
                counts.append(torch.zeros(model.config.vocab_size, routing.config.count, dtype=torch.int64))
            pair_M = part_BT.flatten()[:, None] * routing.config.count + routing.expert_NK
            counts[layer] += torch.bincount(pair_M.flatten().cpu(), minlength=counts[layer].numel()).view(
                counts[layer].shape
            )
    return [
        {
            "kind": "experts",
            "layer": layer,
            "experts": [_expert(count_VE, e, tokenizer) for e in range(count_VE.shape[1])],
        }
        for layer, count_VE in enumerate(counts)
    ]


def _expert(count_VE: Tensor, expert: int, tokenizer: Tokenizer) -> dict[str, Any]:
    own_V, all_V = count_VE[:, expert].double(), count_VE.sum(1).double()
    share = own_V.sum() / all_V.sum()
    expected_V = all_V * share
    # Pearson's residual: far above chance, and often enough to matter.
    score_V = torch.where(
        own_V >= OFTEN, (own_V - expected_V) / expected_V.clamp_min(1e-9).sqrt(), -torch.inf
    )
    best = [int(v) for v in score_V.argsort(descending=True)[:SHOWN] if score_V[v] > 2]
    return {
        "share": float(share),
        "tokens": [[tokenizer.decode([v]), int(own_V[v]), float(own_V[v] / expected_V[v])] for v in best],
    }
