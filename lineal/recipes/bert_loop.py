"""The loop of bert: documents, vocabulary, pairs with words hidden, and both losses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lineal.errors import ModelError, UsageError
from lineal.generate.fill import Filler, coreference, fillings
from lineal.models.bert import Bert, BertConfig
from lineal.models.dropout import Masks
from lineal.models.hf.bert import load_bert, save_bert
from lineal.optim.groups import adamw
from lineal.optim.schedules import make_schedule
from lineal.recipes import staged
from lineal.recipes.config import BertRunConfig
from lineal.tokenizers.pipeline import Pipeline
from lineal.train.bert_corpus import pairs_of, read_corpus, tokenizer_of
from lineal.train.build import model_folder
from lineal.train.console import note
from lineal.train.device import Shape
from lineal.train.distributed import ALONE, Ranks, joined, sum_gradients
from lineal.train.guard import Guard
from lineal.train.masked import held_out, losses_of, micro_batches
from lineal.train.masked_batches import PairOrder, Pairs, padding
from lineal.train.run import Run
from lineal.train.session import autocast_dtype, place_as
from lineal.train.stage import Stage, due

EVAL_PAIRS = 1024
"""Most held-out pairs that an evaluation on the way reads; the final one reads all."""


@dataclass
class Parts:
    """What the loop works with; half: autocast's dtype."""

    train: Pairs
    held: Pairs
    order: PairOrder
    model: Bert
    tokenizer: Pipeline
    optimiser: torch.optim.Optimizer
    half: torch.dtype | None = None
    ranks: Ranks = ALONE


def model_of(config: BertRunConfig, vocab_size: int, pad: int) -> Bert:
    """The model to go on from, or a fresh one."""
    options, block = config.model, config.optimiser.block
    if options.model is not None:
        model = load_bert(model_folder(options.model))
        if vocab_size > model.config.vocab_size or block > model.config.context:
            raise ModelError(
                f"{options.model} has {model.config.vocab_size:,} words and reads {model.config.context} tokens; asked for are "
                f"{vocab_size:,} and {block}."
            )
        return model
    context = max(block, 128) if options.context is None else options.context
    if block > context:
        raise UsageError(
            f"--block {block} is longer than --context {context}: there would be no positions for it."
        )
    shape = BertConfig(
        vocab_size=vocab_size, width=options.width, inner=options.inner or 4 * options.width, heads=options.heads,
        layers=options.layers, context=context, dropout=options.dropout, attention_dropout=options.dropout, pad=pad,
    )  # fmt: skip
    return Bert(shape).initialise(config.run.seed)


def plan(config: BertRunConfig) -> list[str]:
    """What a run would do, without doing it."""
    corpus = read_corpus(config.documents)
    tokenizer = tokenizer_of(config, corpus, None)
    train, held = pairs_of(config, corpus, tokenizer)
    order, options = PairOrder(train, config.optimiser.batch_size), config.optimiser
    rows, first = train.of(0), order.epoch(0)
    size = sum(p.numel() for p in model_of(config, tokenizer.vocab_size, train.words.pad).parameters())
    tokens = len(train.data.token_N)
    share, length = padding(first, rows.lengths() + 3), float(rows.lengths().mean()) + 3
    return [
        "maximise mean over hidden words of log p(word | what is left)"
        + (" + mean over pairs of log p(follows or not | pair)" if config.documents.next_sentence else ""),
        f"data: {len(corpus.train):,} documents of {tokens:,} tokens to train on, {len(corpus.held):,} held out",
        f"pairs: {len(rows):,} an epoch, {100 * (1 - rows.random_N.mean()):.1f} % of them true, {length:.0f} tokens each, "
        f"{100 * share:.1f} % padding; {len(held.of(0)):,} held out",
        f"model bert: {size:,} parameters, vocabulary {tokenizer.vocab_size:,}",
        f"a step: {options.batch_size} pairs, about {options.batch_size * length:,.0f} tokens; {config.run.steps:,} steps are "
        f"{config.run.steps / len(first):.3g} epochs",
        f"memory, about: weights, gradients and optimiser {16 * size / 2**20:,.0f} MiB",
    ]


def build(config: BertRunConfig, run: Run, ranks: Ranks = ALONE) -> Parts:
    """Pairs, vocabulary, model and optimiser, placed on their device."""
    corpus, folder, options = read_corpus(config.documents), run.path / "tokenizer", config.optimiser
    if ranks.first:
        tokenizer_of(config, corpus, folder)
    ranks.gather_json(0)
    tokenizer = tokenizer_of(config, corpus, folder)
    train, held = pairs_of(config, corpus, tokenizer)
    note(
        f"{len(train.data.token_N):,} tokens in {len(corpus.train):,} documents to train on, {len(corpus.held):,} held out, "
        f"vocabulary {tokenizer.vocab_size:,}"
    )
    model = model_of(config, tokenizer.vocab_size, train.words.pad)
    tokens = min(options.token_budget, options.batch_size * options.block)
    device = place_as(Shape(model.config.width, model.config.inner, tokens), model, run, config.model, ranks)
    optimiser = adamw(
        dict(model.named_parameters()), options.learning_rate, betas=(options.beta1, options.beta2), eps=1e-6,
        weight_decay=options.weight_decay,
    )  # fmt: skip
    order = PairOrder(train, options.batch_size)
    return Parts(train, held, order, model, tokenizer, optimiser, autocast_dtype(device), ranks)


class PretrainingStage(Stage):
    """What the loop asks of bert."""

    shown = ("masked_loss", "eval/masked_accuracy", "eval/next_accuracy")

    def __init__(self, config: BertRunConfig, parts: Parts):
        options, self.steps = config.optimiser, config.run.steps
        self.config, self.parts, self.ranks = config, parts, parts.ranks
        self.module, self.optimiser = parts.model, parts.optimiser
        warmup = min(options.warmup, self.steps)
        self.peak, self.schedule = (
            options.learning_rate,
            make_schedule(options.schedule, self.steps, warmup, options.floor),
        )

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A batch of pairs."""
        return train_step(self.config, self.parts, step, guard)

    def between(self, run: Run, step: int, last: bool) -> dict[str, float]:
        """Held-out figures, after the first step too."""
        if last or not (step == 1 or due(self.config.run, step, last)):
            return {}
        parts = self.parts
        return held_out(parts.model, parts.held, parts.half, EVAL_PAIRS, self.ranks).metrics()

    def finish(self, run: Run, step: int) -> None:
        """Figures of all held-out pairs, words filled in, and the model folder."""
        _finish(run, self.parts, step)


def run(config: BertRunConfig, run: Run) -> None:
    """Pre-train on documents; resumes by itself when the run folder holds a checkpoint."""
    with joined(config.model.device) as ranks:
        staged.train(config.run, run, PretrainingStage(config, build(config, run, ranks)))


def train_step(config: BertRunConfig, parts: Parts, step: int, guard: Guard) -> dict[str, float]:
    """One optimiser step: the mean loss over the batch's hidden words, and over its pairs, whatever its micro-batches."""
    model, ranks, options = parts.model.train(), parts.ranks, config.optimiser
    parts.optimiser.zero_grad(set_to_none=True)
    variant, row_B = parts.order.drawn(step - 1)
    batches = micro_batches(parts.train, variant, row_B[ranks.rank :: ranks.world], options.token_budget)
    # Told before the backward pass: each share is of the whole batch's words and pairs.
    hidden = sum(ranks.gather_json(sum(len(batch.word_M) for batch in batches)))
    weight = float(config.documents.next_sentence)
    masks = Masks(config.run.seed, step, ranks.rank)
    sums_6, counts = torch.zeros(6, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        found = losses_of(model, batch.to(model.device), parts.half, masks)
        (found.words / hidden + weight * found.follows / len(row_B)).backward()
        sums_6 += found.sums()
        counts += torch.tensor([batch.mask_BT.sum(), batch.mask_BT.numel()], dtype=torch.float64)
    parameters = list(model.parameters())
    sum_gradients(parameters, ranks)
    norm = torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm or math.inf)
    words, follows, words_right, follows_right, _, _, tokens, places = ranks.sum(
        torch.cat((sums_6, counts))
    ).tolist()
    loss = words / hidden + weight * follows / len(row_B)
    # A refused step keeps what its pairs can be made from again.
    guard.watch(step, lambda: {"rows": torch.from_numpy(row_B)})
    if guard.finite(float(norm), loss=loss):
        parts.optimiser.step()
    model.eval()
    return {
        "loss": loss, "masked_loss": words / hidden, "masked_accuracy": words_right / hidden,
        "next_loss": follows / len(row_B), "next_accuracy": follows_right / len(row_B), "grad_norm": float(norm),
        "padding": 1 - tokens / places, "tokens": tokens, "epoch": parts.order.place(step - 1)[0],
    }  # fmt: skip


def _finish(run: Run, parts: Parts, step: int) -> None:
    ranks, model = parts.ranks, parts.model
    found = held_out(model, parts.held, parts.half, ranks=ranks)
    run.log(step, {**found.metrics(), "eval/pairs": found.pairs, "eval/final": True})
    note(f"step {step}: {found.line()}")
    if ranks.first:
        filler = Filler(model, parts.tokenizer)
        for record in (*fillings(filler), coreference(filler)):
            run.sample(step, record)
        size = sum(parameter.numel() for parameter in model.parameters())
        card = (
            "---\nlibrary_name: transformers\npipeline_tag: fill-mask\ntags: [lineal, bert]\n---\n"
            f"# A BERT pre-trained by `lineal run bert`\n\n{size:,} parameters, {step} steps.\n\n{found.line()}.\n"
        )
        with run.final_folder() as folder:
            save_bert(model, folder)
            parts.tokenizer.save(folder)
            (folder / "README.md").write_text(card, encoding="utf-8")
