"""The losses of next-token training: on blocks of text, and on completions given their prompts.

Each loss is a micro-batch's share of the mean over the whole batch, so shares add up over micro-batches and processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lineal.environments.text import Example, encode_prompts
from lineal.models.decoder import Decoder
from lineal.models.gating import Routes
from lineal.models.lstm import RecurrentModel
from lineal.models.policy import ActorCritic
from lineal.tokenizers import Tokenizer
from lineal.train.blocks import Blocks, random_blocks, sequential_blocks
from lineal.train.collect import to_rollout
from lineal.train.gathered import Gathered
from lineal.train.routing import Balanced
from lineal.train.score import Scoring, Sheet, Want, score, shared_micro_batches
from lineal.types import Completion

if TYPE_CHECKING:
    from lineal.train.options import OptimiserOptions


Reader = Decoder | RecurrentModel
"""A model that reads blocks of text: hidden states of tokens, and scores of the next one from them."""


@dataclass
class Text:
    """Plain text as two streams of token ids: to train on, and held out; and the bytes of what is held out."""

    train_N: Tensor
    held_N: Tensor
    held_bytes: int = 0

    def figures(self, loss: float) -> dict[str, float]:
        """A held-out loss in nats per token; exp(loss); and loss * tokens / (bytes ln 2), comparable between tokenizers."""
        bits = loss * (len(self.held_N) - 1) / (max(1, self.held_bytes) * math.log(2))
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {"eval/loss": loss, "eval/perplexity": perplexity, "eval/bits_per_byte": bits}


def text_losses(
    decoder: Reader,
    text: Text,
    options: OptimiserOptions,
    scoring: Scoring,
    *,
    seed: int,
    step: int,
    balanced: Balanced | None = None,
) -> Iterator[tuple[Tensor, int]]:
    """Loss and tokens of each of this process's micro-batches of random blocks.

    balanced: the losses that keep the experts of a mixture in use, each over a micro-batch of all processes.
    """
    rows, block, ranks = options.batch_size, options.block, scoring.ranks
    size = max(1, options.token_budget // block) * ranks.world
    for start in range(0, rows, size):
        mine = ranks.mine(range(start, min(rows, start + size)))
        # A process without rows makes the pass for nothing, because under FSDP2 it is a collective.
        blocks = random_blocks(text.train_N, block, mine or range(1), seed=seed, step=step)
        routes = None
        if balanced is not None:
            routes = balanced.routes(mine or range(1), block, decoder.device, ranks, bool(mine))
        loss = _block_loss(decoder, scoring, blocks, routes) / (rows * block)
        loss = loss if mine else 0 * loss
        if balanced is not None and routes is not None:
            share = min(size, rows - start) / rows
            loss = loss + balanced.loss(routes, ranks, share, counts=bool(mine))
        yield loss, len(mine) * block


def pair_losses(decoder: Decoder, sheet: Sheet, scoring: Scoring) -> Iterator[tuple[Tensor, int]]:
    """Loss and tokens of each of this process's micro-batches of completions; every token weighs the same."""
    tokens, policy = sum(sheet.length_B), ActorCritic(decoder)
    rows = torch.arange(len(sheet), device=decoder.device)
    for micro, counts in shared_micro_batches(sheet, rows, scoring):
        with scoring.precision(decoder.device):
            scores = score(policy, micro, 1.0, Want(entropy="none"))
        loss = -scores.logp_BT.sum() / tokens
        yield (loss, len(micro.action_N)) if counts else (0 * loss, 0)


def gold_sheet(examples: Sequence[Example], tokenizer: Tokenizer, decoder: Decoder) -> Sheet:
    """Prompts with their gold completions, end-of-text included, laid out for scoring."""
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    golds = [tokenizer.encode(example.completion) + end for example in examples]
    room = max(map(len, golds))
    prompts = encode_prompts(examples, tokenizer, decoder.config.context, room=room)
    answers = [[Completion(tuple(gold), (0.0,) * len(gold), "stop")] for gold in golds]
    rewards = [[0.0] for _ in golds]
    return Sheet.of(to_rollout(Gathered(list(examples), prompts, answers, [], rewards), decoder.device))


@torch.no_grad()
def held_out_loss(decoder: Reader, text: Text, scoring: Scoring, most: int = 0) -> float:
    """Mean cross-entropy over the held-out stream (its first `most` tokens; 0: all), every token once."""
    decoder.eval()
    ranks = scoring.ranks
    stream_N = text.held_N[: most + 1] if most else text.held_N
    total = count = 0.0
    for number, blocks in enumerate(sequential_blocks(stream_N, decoder.config.context, 64)):
        if number % ranks.world == ranks.rank:
            total += float(_block_loss(decoder, scoring, blocks))
            count += float(blocks.mask_BT.sum())
    totals, counts = zip(*ranks.gather_json([total, count]), strict=True)
    return sum(totals) / max(1.0, sum(counts))


def _block_loss(decoder: Reader, scoring: Scoring, blocks: Blocks, routes: Routes | None = None) -> Tensor:
    """Summed cross-entropy of the blocks' counted targets."""
    device = decoder.device
    with scoring.precision(device):
        hidden_BTD = decoder(blocks.input_BT.to(device), routes=routes)
        logits_NV = decoder.logits(hidden_BTD.flatten(0, 1))
    target_N = blocks.target_BT.masked_fill(~blocks.mask_BT, -100).flatten().to(device)
    return F.cross_entropy(
        logits_NV.float() if logits_NV.dtype == torch.bfloat16 else logits_NV, target_N, reduction="sum"
    )
