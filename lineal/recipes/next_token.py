"""The loop of pretrain and sft: next-token cross-entropy on packed text, or on completions only."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lineal.environments.chat import load_chat_template
from lineal.environments.text import Example, TextTask, encode_prompts
from lineal.errors import DataError, UsageError
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.models.policy import ActorCritic
from lineal.objectives.algorithm import Group
from lineal.optim.groups import adamw
from lineal.optim.schedules import make_schedule
from lineal.recipes.config import LanguageConfig
from lineal.tokenizers import Tokenizer
from lineal.train.blocks import Blocks, pack, random_blocks, sequential_blocks, split_stream
from lineal.train.build import build_model, model_folder
from lineal.train.collect import Gathered, Source, to_rollout
from lineal.train.console import note
from lineal.train.data import read_documents
from lineal.train.evaluate import Evaluation, evaluate
from lineal.train.guard import Guard
from lineal.train.order import Order
from lineal.train.progress import Progress
from lineal.train.run import Run
from lineal.train.score import Scoring, Sheet, Want, score
from lineal.train.session import (
    autocast_dtype,
    evaluated,
    finish,
    model_card,
    over,
    place,
    restore,
    save,
    scheduled,
)
from lineal.train.tasks import build_scorer, build_task
from lineal.types import Completion

EVAL_TOKENS = 1 << 17
"""Most validation tokens that an evaluation on the way reads; the final one reads all."""


@dataclass
class Text:
    """Plain text as two streams of token ids, and the loss of a step on it."""

    train_N: Tensor
    held_N: Tensor


@dataclass
class Pairs:
    """Prompts with gold completions, and how completions are sampled and scored on the held-out ones."""

    task: TextTask
    source: Source


@dataclass
class Parts:
    """What the loop works with."""

    data: Text | Pairs
    decoder: Decoder
    tokenizer: Tokenizer
    optimiser: torch.optim.Optimizer
    scoring: Scoring


def plan(config: LanguageConfig) -> list[str]:
    """What a run would do, without doing it."""
    task, documents, alphabet, context = _read(config)
    decoder, tokenizer = build_model(config.model, alphabet, context, config.run.seed)
    size = sum(p.numel() for p in decoder.parameters())
    tokens = config.optimiser.batch_size * config.optimiser.block
    what = "maximise mean over tokens of log π(next token)"
    data = f"{sum(map(len, documents)):,} characters of text" if task is None else f"{len(task.train)} pairs"
    if task is not None:
        what = "maximise mean over completion tokens of log π(token | prompt, tokens before)"
    return [
        what,
        f"data: {data}",
        f"model {decoder.config.layout}: {size:,} parameters, vocabulary {tokenizer.vocab_size}",
        f"a step: {config.optimiser.batch_size} sequences"
        + (f" x {config.optimiser.block} tokens = {tokens:,} tokens" if task is None else ""),
        f"memory, about: weights, gradients and optimiser {4 * size * 4 / 2**20:.0f} MiB",
    ]


def run(config: LanguageConfig, run: Run) -> None:
    """Train a model on text or on pairs; resumes by itself when the run folder holds a checkpoint."""
    parts = _build(config, run)
    shown = ("eval/loss", "loss") if isinstance(parts.data, Text) else ("loss", "eval/accuracy")
    schedule = make_schedule(
        config.optimiser.schedule, config.run.steps, min(config.optimiser.warmup, config.run.steps), 0.1
    )
    with Progress(config.run.steps, shown, live=False if config.run.quiet else None) as progress:
        done, saved = restore(run, parts.decoder, {"policy": parts.optimiser})
        guard = Guard(run.refused, in_a_row=saved.get("refused", 0))
        tokens, started = saved.get("tokens", 0), time.monotonic()
        for step in range(done + 1, 0 if saved.get("last") else config.run.steps + 1):
            begun = time.monotonic()
            rate = scheduled(schedule, config.optimiser.learning_rate, step - 1, parts.optimiser)
            metrics = train_step(config, parts, step, guard)
            tokens += int(metrics["tokens"])
            metrics |= {"learning_rate": rate, "num_tokens": tokens}
            last = step == config.run.steps or over(config.run, started, tokens)
            if config.run.eval_every and step % config.run.eval_every == 0 and not last:
                metrics |= _check(config, parts, step, whole=False)
                last = 0 < config.optimiser.stop_accuracy <= metrics.get("eval/accuracy", -1.0)
            run.log(step, metrics)
            spent = time.monotonic() - begun
            run.time(step, {"step_time": spent, "tokens_per_second": metrics["tokens"] / spent})
            progress.update(step, metrics)
            if last or step % config.run.save_every == 0 or run.stop_requested:
                save(run, step, parts.decoder, {"policy": parts.optimiser},
                     {"tokens": tokens, "refused": guard.in_a_row, "last": last})  # fmt: skip
            if run.stop_requested and not last:
                run.exit()
            if last:
                return _finish(config, run, parts, step)
    return _finish(config, run, parts, done)


def _read(config: LanguageConfig) -> tuple[TextTask | None, list[str], str, int]:
    """The task (sft) or the documents (pretrain), the alphabet, and the context a fresh model needs."""
    if config.data.prompt_field == "text":
        if config.data.data is None:
            raise UsageError(
                "pretrain needs --data FILE: text to learn from (TXT, or rows with a column text)."
            )
        documents = read_documents(config.data.data, on_bad_row=config.data.on_bad_row)
        return None, documents, "".join(sorted(set("".join(documents)))), config.optimiser.block
    template = None
    if config.model.chat and config.model.model is not None:
        template = load_chat_template(model_folder(config.model.model))
    task = build_task(config.data, template)
    if template is not None:
        template.close()
    if not any(example.completion for example in task.train):
        raise DataError(
            f"{task.name}: no row has a gold completion, so there is nothing to imitate: name its column with "
            "--completion-field."
        )
    room = config.sampling.max_new_tokens or task.max_new_tokens or 0
    longest = max(len(e.prompt) + max(len(e.completion) + 1, room) for e in (*task.train, *task.held_out))
    return task, [], task.alphabet, longest + 1


def _build(config: LanguageConfig, run: Run) -> Parts:
    task, documents, alphabet, context = _read(config)
    decoder, tokenizer = build_model(config.model, alphabet, context, config.run.seed)
    data = _pairs(config, task, tokenizer) if task is not None else _text(config, documents, tokenizer)
    tokens = config.optimiser.batch_size * (config.optimiser.block if task is None else 16)
    device = place(decoder, run, config.model, tokens)
    options = config.optimiser
    optimiser = adamw(
        dict(decoder.named_parameters()), options.learning_rate,
        betas=(options.beta1, options.beta2), weight_decay=options.weight_decay,
    )  # fmt: skip
    return Parts(
        data, decoder, tokenizer, optimiser, Scoring(1.0, options.token_budget, autocast_dtype(device))
    )


def _pairs(config: LanguageConfig, task: TextTask, tokenizer: Tokenizer) -> Pairs:
    for line in task.notes:
        note(line)
    limit = config.sampling.max_new_tokens or task.max_new_tokens or 256
    sampling = Sampling(max_new_tokens=limit, temperature=config.sampling.temperature or 1.0)
    order, scorer = Order(len(task.train), config.run.seed), build_scorer(config.data, task, limit)
    return Pairs(task, Source(task.train, order, tokenizer, scorer, Group(1), sampling, config.run.seed))


def _text(config: LanguageConfig, documents: list[str], tokenizer: Tokenizer) -> Text:
    ids = [tokenizer.encode(document) for document in documents]
    stream_N = pack(ids, tokenizer.eos_id if len(ids) > 1 else None)
    return Text(*split_stream(stream_N, config.data.held_out))


def train_step(config: LanguageConfig, parts: Parts, step: int, guard: Guard) -> dict[str, float]:
    """One optimiser step; returns its loss, gradient norm and tokens."""
    parts.decoder.train()
    if config.model.dropout:
        # Dropout draws from torch's own generator: seeded by the step, so that a resumed run draws the same.
        torch.manual_seed((config.run.seed << 32) + step)
    parts.optimiser.zero_grad(set_to_none=True)
    if isinstance(parts.data, Text):
        losses = _text_losses(config, parts, parts.data, step)
    else:
        losses = _pair_losses(config, parts, parts.data, step)
    total, tokens = 0.0, 0
    for loss, count in losses:
        loss.backward()
        total, tokens = total + loss.detach(), tokens + count
    norm = torch.nn.utils.clip_grad_norm_(
        parts.decoder.parameters(), config.optimiser.max_grad_norm or math.inf
    )
    value, size = torch.stack([torch.as_tensor(total), norm]).tolist()
    guard.watch(step)
    if guard.finite(size, loss=value):
        parts.optimiser.step()
    parts.decoder.eval()
    return {"loss": value, "grad_norm": size, "tokens": float(tokens)}


def _text_losses(config: LanguageConfig, parts: Parts, data: Text, step: int) -> Iterator[tuple[Tensor, int]]:
    rows = config.optimiser.batch_size
    size = max(1, config.optimiser.token_budget // config.optimiser.block)
    for start in range(0, rows, size):
        some = range(start, min(rows, start + size))
        blocks = random_blocks(data.train_N, config.optimiser.block, some, seed=config.run.seed, step=step)
        yield _block_loss(parts, blocks) / (rows * config.optimiser.block), len(some) * config.optimiser.block


def _block_loss(parts: Parts, blocks: Blocks) -> Tensor:
    """Summed cross-entropy of the blocks' counted targets."""
    device = parts.decoder.device
    with parts.scoring.precision(device):
        hidden_BTD = parts.decoder(blocks.input_BT.to(device))
        logits_NV = parts.decoder.logits(hidden_BTD.flatten(0, 1))
    target_N = blocks.target_BT.masked_fill(~blocks.mask_BT, -100).flatten().to(device)
    return F.cross_entropy(
        logits_NV.float() if logits_NV.dtype == torch.bfloat16 else logits_NV, target_N, reduction="sum"
    )


def _pair_losses(
    config: LanguageConfig, parts: Parts, data: Pairs, step: int
) -> Iterator[tuple[Tensor, int]]:
    index = data.source.order.batch(step - 1, config.optimiser.batch_size)
    sheet = gold_sheet([data.task.train[i] for i in index], parts.tokenizer, parts.decoder)
    rows = torch.arange(len(index), device=parts.decoder.device)
    tokens = sum(sheet.length_B)
    policy = ActorCritic(parts.decoder)
    for micro in sheet.micro_batches(rows, parts.scoring.token_budget):
        with parts.scoring.precision(parts.decoder.device):
            scores = score(policy, micro, 1.0, Want(entropy="none"))
        yield -scores.logp_BT.sum() / tokens, len(micro.action_N)


def gold_sheet(examples: list[Example], tokenizer: Tokenizer, decoder: Decoder) -> Sheet:
    """Prompts with their gold completions, end-of-text included, laid out for scoring."""
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    golds = [tokenizer.encode(example.completion) + end for example in examples]
    room = max(map(len, golds))
    prompts = encode_prompts(examples, tokenizer, decoder.config.context, room=room)
    answers = [[Completion(tuple(gold), (0.0,) * len(gold), "stop")] for gold in golds]
    rewards = [[0.0] for _ in golds]
    return Sheet.of(to_rollout(Gathered(examples, prompts, answers, [], rewards), decoder.device))


def _check(config: LanguageConfig, parts: Parts, step: int, *, whole: bool) -> dict[str, float]:
    """Held-out figures: loss for text; accuracy for pairs (on validation prompts unless it is the final one)."""
    if isinstance(parts.data, Text):
        return {"eval/loss": held_out_loss(parts, parts.data, EVAL_TOKENS if not whole else 0)}
    return _evaluation(config, parts, parts.data, step, whole).metrics()


def _evaluation(config: LanguageConfig, parts: Parts, data: Pairs, step: int, whole: bool) -> Evaluation:
    examples = evaluated(data.task, config.run, whole)
    count = config.run.eval_prompts if whole else min(128, config.run.eval_prompts)
    return evaluate(
        parts.decoder, data.source, examples[:count], samples=config.run.eval_samples, step=step, greedy=whole
    )


@torch.no_grad()
def held_out_loss(parts: Parts, data: Text, most: int) -> float:
    """Mean cross-entropy over the held-out stream (its first `most` tokens; 0: all), every token once."""
    parts.decoder.eval()
    stream_N = data.held_N[: most + 1] if most else data.held_N
    total = count = 0.0
    for blocks in sequential_blocks(stream_N, parts.decoder.config.context, 64):
        total += float(_block_loss(parts, blocks))
        count += float(blocks.mask_BT.sum())
    return total / max(1.0, count)


def _finish(config: LanguageConfig, run: Run, parts: Parts, step: int) -> None:
    if run.final.exists():
        return
    facts: dict[str, Any] = {"steps": step}
    if isinstance(parts.data, Text):
        loss = held_out_loss(parts, parts.data, 0)
        run.log(step, {"eval/loss": loss, "eval/final": True})
        note(f"step {step}: held-out loss {loss:.4f} nats a token, perplexity {math.exp(loss):.2f}")
        facts["held-out loss"] = f"{loss:.4f}"
    else:
        found = _evaluation(config, parts, parts.data, step, whole=True)
        run.log(step, found.metrics() | {"eval/prompts": found.prompts, "eval/final": True})
        for record in found.records[:4] + found.records[-4:]:
            run.sample(step, {"kind": "eval", **record})
        note(f"step {step}: held-out accuracy {found.sampled:.3f} sampled, {found.greedy:.3f} greedy")
        facts["held-out accuracy"] = f"{found.sampled:.3f}"
    recipe = "pretrain" if isinstance(parts.data, Text) else "sft"
    finish(run, parts.decoder, parts.tokenizer, model_card(recipe, parts.decoder, facts))
