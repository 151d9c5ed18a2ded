"""The loop of pretrain, gpt, sft and moe: next-token cross-entropy on packed text, or on completions only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lineal.environments.text import TextTask
from lineal.errors import DataError, UsageError
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.objectives.algorithm import Group
from lineal.objectives.balance import Balance
from lineal.optim.groups import Scale, adamw
from lineal.optim.schedules import make_schedule
from lineal.recipes import staged
from lineal.recipes.config import GPTConfig, LanguageConfig, MixtureConfig
from lineal.tokenizers import Tokenizer
from lineal.train.build import build_model
from lineal.train.collect import Source
from lineal.train.console import note
from lineal.train.data import named, read_documents
from lineal.train.distributed import ALONE, Ranks, joined, sum_gradients
from lineal.train.evaluate import Evaluation, evaluate
from lineal.train.guard import Guard
from lineal.train.language import (
    Reader,
    Text,
    final_figures,
    gold_sheet,
    held_out_figures,
    pair_losses,
    text_losses,
    text_of,
)
from lineal.train.order import Order
from lineal.train.routing import Balanced, expert_scale
from lineal.train.run import Run
from lineal.train.score import Scoring
from lineal.train.session import (
    autocast_dtype,
    evaluated,
    finish,
    log_final,
    model_card,
    place,
)
from lineal.train.sharding import refresh, spread, whole
from lineal.train.specialists import specialists
from lineal.train.stage import Stage, due
from lineal.train.tasks import build_scorer, longest_completion, read_task

Reading = LanguageConfig | MixtureConfig
"""Of pretrain and sft, and of moe, which learns from plain text only."""
Config = Reading | GPTConfig
"""Of gpt too, which reads its text in its own way."""

EVAL_TOKENS = 1 << 17
"""Most validation tokens that an evaluation on the way reads; the final one reads all."""


@dataclass
class Pairs:
    """Prompts with gold completions, and how completions are sampled and scored on the held-out ones."""

    task: TextTask
    source: Source


@dataclass
class Parts:
    """What the loop works with; balance: the losses that keep the experts of a mixture in use."""

    data: Text | Pairs
    decoder: Reader
    tokenizer: Tokenizer
    optimiser: torch.optim.Optimizer
    scoring: Scoring
    twin: Reader | None = None
    balance: Balance | None = None

    def actor(self) -> Reader:
        """The decoder as it samples and is measured: itself, or where it is sharded its whole copy, now up to date."""
        refresh(self.twin, self.decoder)
        return self.twin or self.decoder


def plan(config: LanguageConfig) -> list[str]:
    """What a run would do, without doing it."""
    task, documents, alphabet, context = read(config)
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


class LanguageStage(Stage):
    """What the loop asks of pretrain, gpt, sft and moe."""

    def __init__(self, config: Config, parts: Parts):
        options, self.steps = config.optimiser, config.run.steps
        self.config, self.parts, self.ranks = config, parts, parts.scoring.ranks
        self.module, self.optimiser = parts.decoder, parts.optimiser
        self.shown = ("eval/loss", "loss") if isinstance(parts.data, Text) else ("loss", "eval/accuracy")
        warmup = min(options.warmup, self.steps)
        self.peak, self.schedule = (
            options.learning_rate,
            make_schedule(options.schedule, self.steps, warmup, options.floor),
        )

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A batch of sequences."""
        return train_step(self.config, self.parts, step, guard)

    def between(self, run: Run, step: int, last: bool) -> dict[str, float]:
        """Held-out figures: loss for text; accuracy for pairs, on validation prompts."""
        if not due(self.config.run, step, last):
            return {}
        if isinstance(self.parts.data, Text):
            block = self.config.optimiser.block
            return held_out_figures(
                self.parts.actor(), self.parts.data, self.parts.scoring, block, EVAL_TOKENS
            )
        return _evaluation(self.config, self.parts, self.parts.data, step, whole=False).metrics()

    def enough(self, metrics: Mapping[str, float]) -> bool:
        """Whether sampled accuracy has reached --stop-accuracy."""
        return 0 < self.config.optimiser.stop_accuracy <= metrics.get("eval/accuracy", -1.0)

    def finish(self, run: Run, step: int) -> None:
        """Figures of all that is held out, and the model folder."""
        _finish(self.config, run, self.parts, step)


def run(config: LanguageConfig, run: Run) -> None:
    """Train a model on text or on pairs; resumes by itself when the run folder holds a checkpoint."""
    with joined(config.model.device) as ranks:
        train(config, run, build(config, run, ranks))


def train(config: Config, run: Run, parts: Parts) -> None:
    """All steps that are left to take, and the final model."""
    staged.train(config.run, run, LanguageStage(config, parts))


def read(config: Reading) -> tuple[TextTask | None, list[str], str, int]:
    """The task (sft) or the documents (pretrain), the alphabet, and the context a fresh model needs."""
    if config.data.prompt_field == "text":
        recipe = "moe" if isinstance(config, MixtureConfig) else "pretrain"
        documents = read_documents(named(config.data.data, recipe), on_bad_row=config.data.on_bad_row)
        return None, documents, "".join(sorted(set("".join(documents)))), config.optimiser.block
    if isinstance(config, MixtureConfig):
        raise UsageError(
            f"--prompt-field {config.data.prompt_field}: moe learns from plain text, in the field text."
        )
    task = read_task(config.data, config.model)
    if not any(example.completion for example in task.train):
        raise DataError(
            f"{task.name}: no row has a gold completion, so there is nothing to imitate: name its column with "
            "--completion-field."
        )
    room = config.sampling.max_new_tokens or task.max_new_tokens or 0
    longest = max(len(e.prompt) + max(len(e.completion) + 1, room) for e in (*task.train, *task.held_out))
    return task, [], task.alphabet, longest + 1


Make = Callable[[Any, str, int, int], tuple[Reader, Tokenizer]]
"""(model options, alphabet, context, seed) -> a model and its tokenizer."""


def build(config: Reading, run: Run, ranks: Ranks = ALONE, make: Make = build_model) -> Parts:
    """Data, model and optimiser, placed on their device."""
    task, documents, alphabet, context = read(config)
    decoder, tokenizer = make(config.model, alphabet, context, config.run.seed)
    data: Text | Pairs
    if task is None or isinstance(config, MixtureConfig):
        data = text_of(documents, tokenizer, config.data.held_out)
    else:
        data = _pairs(config, task, tokenizer, ranks)
    return assemble(config, run, ranks, data, decoder, tokenizer)


def assemble(
    config: Config, run: Run, ranks: Ranks, data: Text | Pairs, decoder: Reader, tokenizer: Tokenizer
) -> Parts:
    """Model and optimiser placed on their device, beside the data."""
    tokens = config.optimiser.batch_size * (config.optimiser.block if isinstance(data, Text) else 16)
    device = place(decoder, run, config.model, tokens, ranks)
    dealt = isinstance(config, MixtureConfig) and config.experts.expert_parallel
    twin, options = spread(decoder, ranks, config.model.shard or dealt, experts=dealt), config.optimiser
    optimiser = adamw(
        dict(decoder.named_parameters()), options.learning_rate,
        betas=(options.beta1, options.beta2), weight_decay=options.weight_decay,
        scale=_scale(config, decoder),
    )  # fmt: skip
    scoring = Scoring(1.0, options.token_budget, autocast_dtype(device), ranks=ranks)
    return Parts(data, decoder, tokenizer, optimiser, scoring, twin)


def _scale(config: Config, reader: Reader) -> Scale:
    experts = reader.config.experts
    if not isinstance(config, MixtureConfig) or experts is None:
        return lambda name: 1.0
    return expert_scale(experts, config.experts.expert_rate)


def _pairs(config: LanguageConfig, task: TextTask, tokenizer: Tokenizer, ranks: Ranks) -> Pairs:
    for line in task.notes:
        note(line)
    limit = longest_completion(task, config.sampling.max_new_tokens)
    sampling = Sampling(
        max_new_tokens=limit, temperature=config.sampling.temperature or 1.0, stop_ids=tokenizer.stop_ids
    )
    order, scorer = Order(len(task.train), config.run.seed), build_scorer(config.data, task, limit)
    source = Source(task.train, order, tokenizer, scorer, Group(1), sampling, config.run.seed, ranks=ranks)
    return Pairs(task, source)


def train_step(config: Config, parts: Parts, step: int, guard: Guard) -> dict[str, float]:
    """One optimiser step; returns its loss, gradient norm and tokens."""
    parts.decoder.train()
    ranks = parts.scoring.ranks
    if config.model.dropout:
        # Dropout draws from torch's own generator: seeded by the step, so that a resumed run draws the same.
        torch.manual_seed(((config.run.seed << 32) + step) ^ (ranks.rank << 44))
    parts.optimiser.zero_grad(set_to_none=True)
    balanced = None if parts.balance is None else Balanced(parts.balance, config.run.seed, step)
    if isinstance(parts.data, Text):
        losses = text_losses(
            parts.decoder, parts.data, config.optimiser, parts.scoring,
            seed=config.run.seed, step=step, balanced=balanced,
        )  # fmt: skip
    else:
        assert isinstance(parts.decoder, Decoder)
        index = parts.data.source.order.batch(step - 1, config.optimiser.batch_size)
        sheet = gold_sheet([parts.data.task.train[i] for i in index], parts.tokenizer, parts.decoder)
        losses = pair_losses(parts.decoder, sheet, parts.scoring)
    total, tokens = 0.0, 0
    for loss, count in losses:
        loss.backward()
        total, tokens = total + loss.detach(), tokens + count
    parameters = list(parts.decoder.parameters())
    sum_gradients(parameters, ranks)
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.optimiser.max_grad_norm or math.inf)
    value, size = torch.stack([ranks.sum(torch.as_tensor(total)), whole(norm)]).tolist()
    guard.watch(step)
    if guard.finite(size, loss=value):
        parts.optimiser.step()
    parts.decoder.eval()
    routing = {} if balanced is None else balanced.sums.metrics(ranks)
    value -= routing.get("balance_loss", 0.0)
    return {"loss": value, "grad_norm": size, "tokens": float(sum(ranks.gather_json(tokens))), **routing}


def _evaluation(config: Config, parts: Parts, data: Pairs, step: int, whole: bool) -> Evaluation:
    examples, actor = evaluated(data.task, config.run, whole), parts.actor()
    assert isinstance(actor, Decoder)
    return evaluate(actor, data.source, examples, samples=config.run.eval_samples, step=step, greedy=whole)


def _finish(config: Config, run: Run, parts: Parts, step: int) -> None:
    ranks = parts.scoring.ranks
    facts: dict[str, Any] = {"steps": step}
    if isinstance(parts.data, Text):
        facts |= final_figures(run, parts.actor(), parts.data, parts.scoring, config.optimiser.block, step)
        for record in specialists(parts.actor(), parts.data.held_N, parts.tokenizer) if parts.balance else ():
            run.sample(step, record)
    else:
        found = _evaluation(config, parts, parts.data, step, whole=True)
        log_final(run, step, found)
        facts["held-out accuracy"] = f"{found.sampled:.3f}"
    decoder = parts.actor()
    if ranks.first:
        finish(
            run, decoder, parts.tokenizer, model_card(run.config.get("recipe", "pretrain"), decoder, facts)
        )
