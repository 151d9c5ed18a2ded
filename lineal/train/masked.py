"""The two losses of BERT, and what a model makes of held-out pairs."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lineal.models.bert import Bert
from lineal.models.dropout import Masks
from lineal.models.multihead import Pass
from lineal.ops.smoothing import smoothed_loss
from lineal.train.distributed import ALONE, Ranks
from lineal.train.length_order import Ints, parts_of
from lineal.train.masked_batches import MaskedBatch, Pairs, like_lengths

SEEN = 64
"""Held-out pairs that are read at a time."""


@dataclass(frozen=True)
class Losses:
    """Sums over a batch: -log p(hidden word), -log p(follows or not), right words, right answers; and how many of each."""

    words: Tensor
    follows: Tensor
    words_right: Tensor
    follows_right: Tensor
    hidden: int
    rows: int

    def sums(self) -> Tensor:
        """As six numbers."""
        found = (self.words, self.follows, self.words_right, self.follows_right)
        counts = torch.tensor([self.hidden, self.rows], dtype=torch.float64)
        return torch.cat((torch.stack([x.detach().double().cpu() for x in found]), counts))


def losses_of(
    model: Bert, batch: MaskedBatch, half: torch.dtype | None = None, masks: Masks | None = None
) -> Losses:
    """Of one batch; the words' scores are made at the hidden places only, never for all of [B, T, V]."""
    precision: Any = nullcontext() if half is None else torch.autocast(model.device.type, half)
    with precision:
        hidden_BTD = model(batch.token_BT, batch.segment_BT, batch.mask_BT, Pass(masks))
        state_MD = model.word_states(hidden_BTD.flatten(0, 1)[batch.at_M])
        logits_B2 = model.follows(model.pooled(hidden_BTD))
    wide_B2 = logits_B2.float() if logits_B2.dtype == torch.bfloat16 else logits_B2
    # What is measured is measured in float32: near ties would be ties in bfloat16.
    words, _, words_right = smoothed_loss(
        state_MD,
        model.embedding.weight,
        batch.word_M,
        bias_V=model.word_bias,
        half=half is not None and model.training,
    )
    return Losses(
        words,
        F.cross_entropy(wide_B2, batch.random_B, reduction="sum"),
        words_right,
        (wide_B2.argmax(-1) == batch.random_B).sum(),
        len(batch.word_M),
        len(batch.random_B),
    )


@dataclass(frozen=True)
class Held:
    """What a model makes of held-out pairs: losses in nats, and shares that are right.

    usual: the share of the more frequent answer to what follows, which one that always gave it would reach.
    """

    words: float
    follows: float
    word_accuracy: float
    next_accuracy: float
    usual: float
    pairs: int

    def metrics(self) -> dict[str, float]:
        """As they go into metrics.jsonl."""
        return {
            "eval/masked_loss": self.words,
            "eval/masked_accuracy": self.word_accuracy,
            "eval/next_loss": self.follows,
            "eval/next_accuracy": self.next_accuracy,
            "eval/next_usual": self.usual,
            "eval/masked_perplexity": math.exp(min(self.words, 700)),
        }

    def line(self) -> str:
        """As people read it."""
        return (
            f"{self.pairs:,} held-out pairs: {100 * self.word_accuracy:.1f} % of hidden words right (loss {self.words:.3f} "
            f"nats), {100 * self.next_accuracy:.1f} % of what follows (always the same answer: {100 * self.usual:.1f} %)"
        )


@torch.no_grad()
def held_out(
    model: Bert, pairs: Pairs, half: torch.dtype | None = None, most: int = 0, ranks: Ranks = ALONE
) -> Held:
    """The figures of the first variant of held-out pairs (of at most `most` of them; 0: all)."""
    was = model.training
    model.eval()
    rows = pairs.of(0)
    count = min(len(rows), most) if most else len(rows)
    chosen_N = np.arange(len(rows))[:: max(1, len(rows) // count)][:count]
    sums_6 = torch.zeros(6, dtype=torch.float64)
    for number, row_B in enumerate(like_lengths(chosen_N, rows.lengths(), SEEN)):
        if number % ranks.world == ranks.rank:
            sums_6 += losses_of(model, pairs.batch(0, row_B).to(model.device), half).sums()
    model.train(was)
    words, follows, words_right, follows_right, hidden, seen = (
        sum(part) for part in zip(*ranks.gather_json(sums_6.tolist()), strict=True)
    )
    share = float(rows.random_N[chosen_N].mean())
    return Held(
        words / hidden,
        follows / seen,
        words_right / hidden,
        follows_right / seen,
        max(share, 1 - share),
        int(seen),
    )


def micro_batches(pairs: Pairs, variant: int, row_B: Ints, budget: int) -> list[MaskedBatch]:
    """The pairs of a step in parts of at most `budget` tokens."""
    if not len(row_B):
        return []
    length_B = pairs.of(variant).lengths()[row_B] + 3
    return [pairs.batch(variant, part_B) for part_B in parts_of(row_B, int(length_B.max()), budget)]
