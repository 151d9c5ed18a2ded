"""The masked loss of a batch, in training and in validation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lineal.generate.translate import Ids
from lineal.models.dropout import Masks
from lineal.models.transformer import Transformer
from lineal.ops.smoothing import smoothed_loss
from lineal.train.translation.batches import Batch, Encoded, Order, make_batch

VALIDATION_TOKENS = 4096
"""Tokens of one validation batch."""


@dataclass(frozen=True)
class Loss:
    """Sums over the targets of a batch: the smoothed loss, -log p, right ones, and how many there are."""

    smoothed: Tensor
    plain: Tensor
    hits: Tensor
    tokens: int


def batch_loss(
    model: Transformer, batch: Batch, smoothing: float, half: bool = False, masks: Masks | None = None
) -> Loss:
    """Teacher forcing: each target token given the source and the target before it. half: products in bfloat16."""
    device = batch.input_BT.device.type
    with torch.autocast(device, torch.bfloat16, enabled=half):
        hidden_BTD = model(batch.source_BS, batch.input_BT, batch.source_mask, masks)
    # Only where there is a target: padding costs no logits.
    where_N = batch.mask_BT.flatten().nonzero()[:, 0]
    hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, where_N)
    target_N = batch.target_BT.flatten().index_select(0, where_N)
    sums = smoothed_loss(hidden_ND, model.embedding.weight, target_N, smoothing, model.logit_bias, half)
    return Loss(*sums, len(target_N))


@dataclass(frozen=True)
class Figures:
    """How well a model predicts held-out targets, token by token.

    loss: mean -log p in nats. perplexity: exp of it. bits_per_byte: Σ -log2 p over the UTF-8 bytes of the targets, so that
    vocabularies can be compared. token_accuracy: share of tokens that were the most probable. End tokens count.
    """

    loss: float
    bits_per_byte: float
    token_accuracy: float

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))

    def metrics(self) -> dict[str, float]:
        """As they go into metrics.jsonl."""
        return {
            "eval/loss": self.loss,
            "eval/perplexity": self.perplexity,
            "eval/bits_per_byte": self.bits_per_byte,
            "eval/token_accuracy": self.token_accuracy,
        }

    def line(self) -> str:
        """One line for the user."""
        return (
            f"perplexity {self.perplexity:.3f}, {self.bits_per_byte:.4f} bits a byte, "
            f"{100 * self.token_accuracy:.1f} % of tokens right"
        )


@torch.no_grad()
def figures(model: Transformer, data: Encoded, ids: Ids, half: bool = False) -> Figures:
    """The figures of all pairs, without dropout or smoothing."""
    order = Order(data, max(VALIDATION_TOKENS, _longest(data)), seed=0)
    sums = torch.zeros(2, dtype=torch.float64)
    tokens = 0
    for rows in order.epoch(0):
        loss = batch_loss(model, make_batch(data, rows, ids, model.device), 0.0, half)
        sums += torch.stack([loss.plain.double().cpu(), loss.hits.double().cpu()])
        tokens += loss.tokens
    nats, hits = sums.tolist()
    return Figures(nats / tokens, nats / math.log(2) / max(1, data.bytes), hits / tokens)


def _longest(data: Encoded) -> int:
    return int(max((at[1:] - at[:-1]).max() for at in (data.source_at, data.target_at)))
