"""The loop of `transformer`: teacher forcing on pairs of sentences, weights averaged at the end, translations judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lineal.models.dropout import Masks
from lineal.models.hf.marian import save_marian
from lineal.models.transformer import Transformer, TransformerConfig
from lineal.optim.groups import adamw
from lineal.optim.schedules import Noam, Schedule, make_schedule
from lineal.recipes import staged
from lineal.tokenizers import Tokenizer
from lineal.train.console import note, warn
from lineal.train.device import Shape
from lineal.train.distributed import ALONE, Ranks, joined, sum_gradients
from lineal.train.guard import Guard
from lineal.train.run import Run
from lineal.train.session import autocast_dtype, place_as
from lineal.train.stage import Stage, due
from lineal.train.translation.batches import Order, make_batch, micro_batches
from lineal.train.translation.bleu import HINT, available
from lineal.train.translation.losses import batch_loss, figures
from lineal.train.translation.options import TranslationConfig
from lineal.train.translation.pairs import read_corpus
from lineal.train.translation.snapshots import average, put, snapshot
from lineal.train.translation.task import Judged, Task, beam_search, judge, make_task
from lineal.train.translation.vocabulary import ids_of, learn, remembered


@dataclass
class Parts:
    """What the loop works with; half: multiply in bfloat16."""

    task: Task
    model: Transformer
    optimiser: torch.optim.Optimizer
    order: Order
    half: bool
    ranks: Ranks = ALONE


def shape(config: TranslationConfig, tokenizer: Tokenizer) -> TransformerConfig:
    """The model that the options ask for, over this vocabulary."""
    options, ids = config.model, ids_of(tokenizer)
    return TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        width=options.width,
        inner=options.inner,
        heads=options.heads,
        encoder_layers=options.encoder_layers,
        decoder_layers=options.decoder_layers,
        dropout=options.dropout,
        attention_dropout=options.attention_dropout,
        context=options.context,
        pad=ids.pad,
        start=ids.start,
    )


def build(config: TranslationConfig, run: Run, ranks: Ranks = ALONE) -> Parts:
    """Sentences, vocabulary, model and optimiser, placed on their device."""
    corpus, data = read_corpus(config.data, config.run.seed), config.data

    def fresh() -> Tokenizer:
        return learn(corpus.train.sources, corpus.train.targets, data.subwords, data.vocab_size)

    if ranks.first:
        remembered(run.path / "tokenizer", fresh)
    ranks.gather_json(0)
    tokenizer = remembered(run.path / "tokenizer", fresh)
    model = Transformer(shape(config, tokenizer)).initialise(config.run.seed)
    task, options = make_task(data, corpus, tokenizer, model.config.context), config.optimiser
    # Of a small model the output layer is half of the work, so it is what the probe measures.
    widest = Shape(model.config.width, max(model.config.inner, model.config.vocab_size), options.batch_tokens)
    device = place_as(widest, model, run, config.model, ranks)
    optimiser = adamw(
        dict(model.named_parameters()), options.learning_rate, betas=(options.beta1, options.beta2),
        eps=options.epsilon, weight_decay=options.weight_decay,
    )  # fmt: skip
    order = Order(task.train, options.batch_tokens, config.run.seed)
    return Parts(task, model, optimiser, order, autocast_dtype(device) is not None, ranks)


def schedule_of(config: TranslationConfig) -> Schedule:
    """Step -> what the learning rate is multiplied by; noam is the rate itself for a factor of 1."""
    options, steps = config.optimiser, config.run.steps
    if options.schedule == "noam":
        return Noam(config.model.width, options.warmup)
    return make_schedule(options.schedule, steps, min(options.warmup, steps), 0.0)


def plan(config: TranslationConfig) -> list[str]:
    """What a run would do, without doing it: the objective, sizes, work, memory and time."""
    from lineal.train.translation.estimate import estimate

    corpus, data = read_corpus(config.data, config.run.seed), config.data
    tokenizer = learn(corpus.train.sources, corpus.train.targets, data.subwords, data.vocab_size)
    schedule_of(config)
    task = make_task(data, corpus, tokenizer, config.model.context)
    order = Order(task.train, config.optimiser.batch_tokens, config.run.seed)
    return estimate(config, shape(config, tokenizer), task, order)


class TranslationStage(Stage):
    """What the loop asks of transformer; best: the lowest validation loss so far."""

    shown = ("nll", "eval/bleu", "eval/loss", "learning_rate")

    def __init__(self, config: TranslationConfig, parts: Parts):
        self.config, self.parts, self.ranks, self.steps = config, parts, parts.ranks, config.run.steps
        self.module, self.optimiser = parts.model, parts.optimiser
        self.peak, self.schedule = config.optimiser.learning_rate, schedule_of(config)
        self.best = math.inf

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A batch of pairs of sentences."""
        return train_step(self.config, self.parts, step, guard)

    def between(self, run: Run, step: int, last: bool) -> dict[str, float]:
        """A snapshot of the weights, and validation; the weights of its lowest loss are kept."""
        config, parts = self.config, self.parts
        if self.ranks.first and (step % config.optimiser.snapshot_every == 0 or last):
            snapshot(run, parts.model, step, config.optimiser.average)
        if not due(config.run, step, last):
            return {}
        found = _check(config, run, parts, step)
        if found["eval/loss"] < self.best:
            self.best = found["eval/loss"]
            if self.ranks.first:
                snapshot(run, parts.model, step, 1, "best")
        return found

    def finish(self, run: Run, step: int) -> None:
        """Figures of the test pairs, and the model folder."""
        _finish(self.config, run, self.parts, step)

    def kept(self) -> dict[str, Any]:
        """The lowest loss."""
        return {"best": self.best}

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Take it back."""
        self.best = saved.get("best", math.inf)


def run(config: TranslationConfig, run: Run) -> None:
    """Train a translation model; resumes by itself when the run folder holds a checkpoint."""
    with joined(config.model.device) as ranks:
        stage = TranslationStage(config, build(config, run, ranks))
        if not available():
            note(HINT)
        staged.train(config.run, run, stage)


def train_step(config: TranslationConfig, parts: Parts, step: int, guard: Guard) -> dict[str, float]:
    """One optimiser step: the mean smoothed loss over the batch's target tokens, whatever its micro-batches."""
    model, ranks, options = parts.model.train(), parts.ranks, config.optimiser
    parts.optimiser.zero_grad(set_to_none=True)
    rows, counts = parts.order.batch(step - 1), parts.order.target_N
    whole = int(counts[rows].sum())
    masks = Masks(config.run.seed, step, ranks.rank)
    sums = torch.zeros(3, dtype=torch.float64)
    for micro in micro_batches(rows, parts.order, options.token_budget):
        mine = micro[ranks.rank :: ranks.world]
        if len(mine):
            batch = make_batch(parts.task.train, mine, parts.task.ids, model.device)
            loss = batch_loss(model, batch, options.smoothing, parts.half, masks)
            (loss.smoothed / whole).backward()
            sums += torch.stack([x.detach().double().cpu() for x in (loss.smoothed, loss.plain, loss.hits)])
    parameters = list(model.parameters())
    sum_gradients(parameters, ranks)
    norm = torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm or math.inf)
    smoothed, plain, hits = (
        sum(part) / whole for part in zip(*ranks.gather_json(sums.tolist()), strict=True)
    )
    # A refused step keeps what its sentences can be made from again.
    guard.watch(step, lambda: {"rows": torch.from_numpy(rows)})
    if guard.finite(norm, loss=smoothed):
        parts.optimiser.step()
    model.eval()
    return {
        "loss": smoothed,
        "nll": plain,
        "token_accuracy": hits,
        "grad_norm": float(norm),
        "tokens": float(whole),
        "epoch": parts.order.place(step - 1)[0],
    }


def _check(config: TranslationConfig, run: Run, parts: Parts, step: int) -> dict[str, float]:
    """Validation on the way: loss of all pairs, BLEU of greedy translations of some; the first process measures."""
    ranks = parts.ranks
    found: dict[str, float] = {}
    if ranks.first:
        found = figures(parts.model, parts.task.valid, parts.task.ids, parts.half).metrics()
        search = beam_search(config.decoding, greedy=True)
        judged = judge(
            parts.model,
            parts.task.corpus.valid,
            parts.task,
            search,
            most=config.run.eval_sentences,
            whole=False,
        )
        found |= judged.metrics()
        _samples(run, step, judged)
    return ranks.tell(found)


def _samples(run: Run, step: int, judged: Judged) -> None:
    for record in judged.records():
        run.sample(step, record)


def _finish(config: TranslationConfig, run: Run, parts: Parts, step: int) -> None:
    """Average, judge, and write final/."""
    if parts.ranks.first:
        chosen = _weights(config, run, step)
        if chosen:
            put(parts.model, chosen)
        else:
            warn(f"there are no weights to make --final {config.optimiser.final} of: the last ones are kept.")
        found = figures(parts.model, parts.task.valid, parts.task.ids)
        judged = judge(parts.model, parts.task.corpus.test, parts.task, beam_search(config.decoding))
        run.log(step, {**found.metrics(), **judged.metrics(), "eval/final": True})
        _samples(run, step, judged)
        said = [
            found.line(),
            *([judged.bleu.line()] if judged.bleu else []),
            f"{100 * judged.exact:.1f} % word for word",
        ]
        note(f"step {step}: " + "; ".join(said))
        (run.path / "translations.txt").write_text(
            "".join(f"{line}\n" for line in judged.found), encoding="utf-8"
        )
        _write(config, run, parts, {"steps": step, "weights": config.optimiser.final, "validation": found.line(),
                                    "test": judged.bleu.line() if judged.bleu else HINT})  # fmt: skip
    parts.ranks.gather_json(0)


def _weights(config: TranslationConfig, run: Run, step: int) -> dict[str, torch.Tensor]:
    options = config.optimiser
    if options.final == "best":
        return average(run, 1, step, "best")
    return average(run, options.average if options.final == "average" else 1, step)


def _write(config: TranslationConfig, run: Run, parts: Parts, facts: dict[str, Any]) -> None:
    size = sum(parameter.numel() for parameter in parts.model.parameters())
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    card = (
        "---\nlibrary_name: transformers\npipeline_tag: translation\ntags: [lineal, transformer]\n---\n"
        f"# A translation model trained by `lineal run transformer`\n\n{size:,} parameters, in the Marian layout.\n\n"
        f"| fact | value |\n|---|---|\n{rows}\n"
    )
    with run.final_folder() as folder:
        beams, penalty = config.decoding.beams, config.decoding.length_penalty
        save_marian(parts.model, folder, parts.task.ids.end, beams, penalty)
        parts.task.tokenizer.save(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
