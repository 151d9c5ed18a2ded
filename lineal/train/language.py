"""The losses of next-token training: on blocks of text, and on completions given their prompts.

Each loss is a micro-batch's share of the mean over the whole batch, so shares add up over micro-batches and processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lineal.environments.text import Example, encode_prompts
from lineal.models.decoder import Decoder
from lineal.models.gating import Routes
from lineal.models.lstm import RecurrentModel
from lineal.models.policy import ActorCritic
from lineal.ops.smoothing import smoothed_loss
from lineal.tokenizers import Tokenizer
from lineal.train.blocks import Blocks, pack, random_blocks, sequential_blocks, split_stream
from lineal.train.collect import to_rollout
from lineal.train.console import note
from lineal.train.gathered import Gathered
from lineal.train.routing import Balanced
from lineal.train.run import Run
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

    def figures(self, loss: float, accuracy: float) -> dict[str, float]:
        """A held-out loss in nats per token; exp(loss); loss * tokens / (bytes ln 2), comparable between tokenizers; and
        the share of tokens that were the most probable one.
        """
        bits = loss * (len(self.held_N) - 1) / (max(1, self.held_bytes) * math.log(2))
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {
            "eval/loss": loss,
            "eval/perplexity": perplexity,
            "eval/bits_per_byte": bits,
            "eval/token_accuracy": accuracy,
        }


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
        loss = _block_loss(decoder, scoring, blocks, routes)[0] / (rows * block)
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


def text_of(documents: Sequence[str], tokenizer: Tokenizer, held_out: float) -> Text:
    """The documents as one stream of tokens, its last part held out."""
    train_N, held_N = split_stream(stream_of(documents, tokenizer), held_out)
    return Text(train_N, held_N, bytes_of(held_N, tokenizer))


def stream_of(documents: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """All documents as one stream of ids, the end-of-text token after each where there are several."""
    ids = [tokenizer.encode(document) for document in documents]
    return pack(ids, tokenizer.eos_id if len(ids) > 1 else None)


def bytes_of(stream_N: Tensor, tokenizer: Tokenizer) -> int:
    """Bytes of what a stream says after its first token, which nothing predicts."""
    return len(tokenizer.decode(stream_N[1:].tolist()).encode())


def figures_line(figures: Mapping[str, float]) -> str:
    """The figures of a held-out text as people read them."""
    loss, perplexity, bits, accuracy = figures.values()
    return (
        f"loss {loss:.4f} nats a token, perplexity {perplexity:.2f}, {bits:.4f} bits a byte, "
        f"{100 * accuracy:.1f} % of tokens right"
    )


@torch.no_grad()
def held_out_figures(
    decoder: Reader, text: Text, scoring: Scoring, block: int, most: int = 0
) -> dict[str, float]:
    """The figures of the held-out stream (of its first `most` tokens; 0: all), every token once, read as training reads it:
    a model with a longer context has met no position beyond a block."""
    decoder.eval()
    length = min(block, decoder.config.context)
    ranks = scoring.ranks
    stream_N = text.held_N[: most + 1] if most else text.held_N
    sums_3 = torch.zeros(3, dtype=torch.float64)
    for number, blocks in enumerate(sequential_blocks(stream_N, length, 64)):
        if number % ranks.world == ranks.rank:
            loss, right = _block_loss(decoder, scoring, blocks)
            sums_3 += torch.tensor(
                [float(loss), float(right), float(blocks.mask_BT.sum())], dtype=torch.float64
            )
    loss, right, count = (sum(part) for part in zip(*ranks.gather_json(sums_3.tolist()), strict=True))
    return text.figures(loss / max(1.0, count), right / max(1.0, count))


def _block_loss(
    decoder: Reader, scoring: Scoring, blocks: Blocks, routes: Routes | None = None
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of the blocks' counted targets, and how many of them were the most probable token."""
    device = decoder.device
    with scoring.precision(device):
        hidden_BTD = decoder(blocks.input_BT.to(device), routes=routes)
    hidden_ND, target_N = hidden_BTD.flatten(0, 1), blocks.target_BT.flatten()
    if not blocks.mask_BT.all():
        where_N = blocks.mask_BT.flatten().nonzero()[:, 0]
        hidden_ND, target_N = hidden_ND[where_N.to(device)], target_N[where_N]
    # What is measured is measured in float32: near ties would be ties in bfloat16.
    half = decoder.training and scoring.autocast is not None
    loss, _, right = smoothed_loss(hidden_ND, decoder.head_weight, target_N.to(device), half=half)
    return loss, right


def final_figures(
    run: Run, reader: Reader, text: Text, scoring: Scoring, block: int, step: int
) -> dict[str, str]:
    """The figures of all held-out text, logged and said; returned as a model card states them."""
    found = held_out_figures(reader, text, scoring, block)
    run.log(step, {**found, "eval/final": True})
    note(f"step {step}: held-out {figures_line(found)}")
    names = ("held-out loss", "perplexity", "bits per byte", "token accuracy")
    return {name: f"{value:.4f}" for name, value in zip(names, found.values(), strict=True)}
