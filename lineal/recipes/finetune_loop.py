"""The loop of finetune: class loss plus auxiliary language-model loss, and the scores of the finished model."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.attention import Attention
from lineal.models.decoder import Block, Decoder
from lineal.models.finetuned import FineTuned, widened
from lineal.models.hf import save_model
from lineal.optim.groups import adamw
from lineal.optim.schedules import make_schedule
from lineal.recipes.config import FinetuneConfig
from lineal.train.build import build_model
from lineal.train.console import note
from lineal.train.device import Shape
from lineal.train.distributed import ALONE, Ranks, joined, sum_gradients
from lineal.train.finetune.inputs import extended, lay_out, micro_batches
from lineal.train.finetune.predictor import Facts, Predictor, save_predictor
from lineal.train.finetune.scores import Agreement, Scores, agreement, scores
from lineal.train.finetune.tasks import Labelled, LabelledTask, read_task
from lineal.train.guard import Guard
from lineal.train.order import Order
from lineal.train.progress import Progress
from lineal.train.run import Run
from lineal.train.session import autocast_dtype, model_card, over, place_as, restore, save, scheduled

SHOWN = 8
"""Rows told wrong, and told right, that the report shows."""


@dataclass
class Parts:
    """What the loop works with; rows: the training rows' sequences."""

    task: LabelledTask
    rows: list[list[list[int]]]
    predictor: Predictor
    optimiser: torch.optim.Optimizer
    order: Order
    ranks: Ranks = ALONE


def plan(config: FinetuneConfig) -> list[str]:
    """What a run would do, without doing it."""
    task = read_task(config.task)
    predictor = _predictor(config, task)
    size = sum(p.numel() for p in predictor.model.parameters())
    sample = predictor.encode([row.texts for row in task.train[:200]])
    tokens = sum(len(s) for row in sample for s in row) / len(sample)
    told = f"{len(task.labels)} classes" if task.labels else "a score"
    batch = config.tuning.batch_size
    return [
        f"maximise mean over rows of log p(label | texts) + {config.tuning.auxiliary:g} mean over tokens of log π(token)"
        if task.labels
        else f"minimise squared error of standardised scores - {config.tuning.auxiliary:g} mean log π(token)",
        f"data: {len(task.train):,} rows to train on, {len(task.held):,} to evaluate on; {task.kind}, {told}",
        f"model {predictor.model.decoder.config.layout}: {size:,} parameters, the head's included",
        f"a step: {batch} rows x {tokens:.0f} tokens, {steps_of(config, len(task.train)):,} steps",
        f"memory, about: weights, gradients and optimiser {16 * size / 2**20:.0f} MiB",
    ]


def steps_of(config: FinetuneConfig, rows: int) -> int:
    """Steps that the epochs take, or --steps where --epochs is 0."""
    if not config.tuning.epochs:
        return config.run.steps
    return max(1, math.ceil(config.tuning.epochs * rows / config.tuning.batch_size))


def _predictor(config: FinetuneConfig, task: LabelledTask) -> Predictor:
    if config.model.model is None:
        raise UsageError(
            "finetune needs --model: a run of gpt or pretrain, a model folder, or hf:OWNER/NAME."
        )
    decoder, tokenizer = build_model(config.model, "", 0, config.run.seed)
    if config.tuning.fresh:
        decoder = Decoder(decoder.config).initialise(config.run.seed)
    tokenizer, marks = extended(tokenizer)
    decoder = widened(decoder, marks.extract + 1, config.run.seed)
    _set_dropout(decoder, config.model.dropout)
    facts = Facts(task.kind, task.labels, marks, task.mean, task.spread, asdict(config.task))
    model = FineTuned(decoder, task.kind, task.outputs, config.tuning.head_dropout, config.run.seed)
    return Predictor(model, tokenizer, facts, token_budget=config.tuning.token_budget)


def _set_dropout(decoder: Decoder, rate: float) -> None:
    """The dropout of embeddings, sums and attention, whatever the model was trained with."""
    decoder.config = replace(decoder.config, dropout=rate)
    for block in decoder.modules():
        if isinstance(block, Block | Attention):
            block.dropout = rate


def build(config: FinetuneConfig, run: Run, ranks: Ranks = ALONE) -> Parts:
    """Rows, model and optimiser, placed on their device."""
    task = read_task(config.task)
    predictor, options = _predictor(config, task), config.tuning
    shape = predictor.model.decoder.config
    rows = predictor.encode([row.texts for row in task.train])
    tokens = options.batch_size * max(len(s) for row in rows for s in row)
    device = place_as(Shape(shape.width, shape.inner, tokens), predictor.model, run, config.model, ranks)
    predictor.half = autocast_dtype(device)
    optimiser = adamw(
        dict(predictor.model.named_parameters()), options.learning_rate, betas=(options.beta1, options.beta2),
        weight_decay=options.weight_decay,
    )  # fmt: skip
    return Parts(task, rows, predictor, optimiser, Order(len(rows), config.run.seed), ranks)


def run(config: FinetuneConfig, run: Run) -> None:
    """Fine-tune a model; resumes by itself when the run folder holds a checkpoint."""
    with joined(config.model.device) as ranks:
        _train(config, run, build(config, run, ranks))


def _train(config: FinetuneConfig, run: Run, parts: Parts) -> None:
    options, ranks, model = config.run, parts.ranks, parts.predictor.model
    steps = steps_of(config, len(parts.rows))
    warmup = min(steps, math.ceil(config.tuning.warmup * steps))
    schedule = make_schedule(config.tuning.schedule, steps, warmup, config.tuning.floor)
    live, shown = False if options.quiet else None, ("loss", "accuracy", "eval/accuracy")
    with Progress(steps, shown, stream=ranks.voice, live=live, seconds=options.time_limit) as progress:
        done, saved = restore(run, model, {"tuning": parts.optimiser}, ranks)
        guard = Guard(run.refused if ranks.first else None, in_a_row=saved.get("refused", 0))
        tokens, started = saved.get("tokens", 0), time.monotonic()
        for step in range(done + 1, 0 if saved.get("last") else steps + 1):
            begun = time.monotonic()
            rate = scheduled(schedule, config.tuning.learning_rate, step - 1, parts.optimiser)
            metrics = train_step(config, parts, step, guard)
            tokens += int(metrics["tokens"])
            epoch = parts.order.epoch(step, config.tuning.batch_size)
            metrics |= {"learning_rate": rate, "num_tokens": tokens, "epoch": epoch}
            (late,) = ranks.any(over(options, started, tokens))
            last = late or step == steps
            if options.eval_every and step % options.eval_every == 0 and not last:
                metrics |= evaluate(parts)[0].metrics()
            run.log(step, metrics)
            spent = time.monotonic() - begun
            run.time(step, {"step_time": spent, "tokens_per_second": metrics["tokens"] / spent})
            if not options.quiet:
                progress.update(step, metrics)
            (stop,) = ranks.any(run.stop_requested)
            if last or step % options.save_every == 0 or stop:
                state = {"tokens": tokens, "refused": guard.in_a_row, "last": last}
                save(run, step, model, {"tuning": parts.optimiser}, state, ranks)
            if stop and not last:
                run.exit()
            done = step
            if last:
                break
    _finish(run, parts, done)


def train_step(config: FinetuneConfig, parts: Parts, step: int, guard: Guard) -> dict[str, float]:
    """One optimiser step on a batch of rows; returns its losses, accuracy, gradient norm and tokens."""
    model, ranks, options = parts.predictor.model, parts.ranks, config.tuning
    model.train()
    # Dropout draws from torch's own generator: seeded by the step, so that a resumed run draws the same.
    torch.manual_seed(((config.run.seed << 32) + step) ^ (ranks.rank << 44))
    parts.optimiser.zero_grad(set_to_none=True)
    index = parts.order.batch(step - 1, options.batch_size)
    mine = ranks.mine(index)
    sums_3, tokens = torch.zeros(3, dtype=torch.float64), 0
    for group in micro_batches([parts.rows[i] for i in mine], options.token_budget):
        chosen = [mine[i] for i in group]
        told, language, hits, count = _losses(parts, chosen, options.auxiliary)
        ((told + options.auxiliary * language) / len(index)).backward()
        sums_3 += torch.stack([told.detach().double(), language.detach().double(), hits.double()]).cpu()
        tokens += count
    parameters = list(model.parameters())
    sum_gradients(parameters, ranks)
    norm = torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm or math.inf)
    told, language, hits = (ranks.sum(sums_3) / len(index)).tolist()
    guard.watch(step)
    if guard.finite(float(norm), loss=told + options.auxiliary * language):
        parts.optimiser.step()
    model.eval()
    found = {"loss": told, "grad_norm": float(norm), "tokens": float(sum(ranks.gather_json(tokens)))}
    found |= {"language_loss": language} if options.auxiliary else {}
    return found | ({"accuracy": hits} if parts.task.labels else {})


def _losses(parts: Parts, chosen: list[int], auxiliary: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """Summed over rows: -log p(label) or the squared error, the mean language loss, right ones; and the tokens."""
    task, model = parts.task, parts.predictor.model
    device = model.decoder.device
    inputs = lay_out([parts.rows[i] for i in chosen], device)
    target_B = torch.tensor([task.train[i].target for i in chosen], device=device)
    with parts.predictor.precision():
        score_BC, hidden_NTD = model(inputs.token_NT, inputs.last_N, inputs.each)
        language = score_BC.new_zeros(())
        if auxiliary:
            each_N = model.language_loss(hidden_NTD, inputs.token_NT, inputs.mask_NT)
            language = each_N.view(-1, inputs.each).mean(1).sum()
    wide_BC = score_BC.float() if score_BC.dtype == torch.bfloat16 else score_BC
    if task.labels:
        told = F.cross_entropy(wide_BC, target_B.long(), reduction="sum")
        hits = (wide_BC.argmax(-1) == target_B.long()).sum()
    else:
        told = (wide_BC[:, 0] - (target_B.to(wide_BC) - task.mean) / task.spread).square().sum()
        hits = torch.zeros((), device=device)
    return told, language, hits, int(inputs.mask_NT.sum())


def evaluate(parts: Parts) -> tuple[Scores | Agreement, Tensor]:
    """The scores on the rows to evaluate on, and the head's raw numbers [B, C] for each."""
    task, predictor = parts.task, parts.predictor
    raw_BC = predictor.raw(predictor.encode([row.texts for row in task.held]))
    target_B = torch.tensor([row.target for row in task.held], dtype=torch.float64)
    if not task.labels:
        return agreement(task.mean + task.spread * raw_BC[:, 0].double(), target_B), raw_BC
    return scores(raw_BC.double().softmax(-1), target_B.long(), task.labels), raw_BC


def _finish(run: Run, parts: Parts, step: int) -> None:
    ranks, task, predictor = parts.ranks, parts.task, parts.predictor
    if ranks.tell(run.final.exists()):
        return
    found, raw_BC = evaluate(parts)
    run.log(step, found.metrics() | {"eval/prompts": len(task.held), "eval/final": True})
    if isinstance(found, Scores):
        run.sample(step, found.record())
        for record in _shown(task, raw_BC):
            run.sample(step, {"kind": "eval", **record})
    line = ", ".join(
        f"{name.removeprefix('eval/').replace('_', ' ')} {value:.4f}"
        for name, value in found.metrics().items()
    )
    note(f"step {step}: {len(task.held):,} rows: {line}")
    if ranks.first:
        facts = {"task": task.kind, "steps": step, **{k: f"{v:.4f}" for k, v in found.metrics().items()}}
        decoder, tokenizer = predictor.model.decoder, predictor.tokenizer
        with run.final_folder() as folder:
            save_model(
                decoder, folder, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id
            )
            tokenizer.save(folder)
            save_predictor(folder, predictor)
            (folder / "README.md").write_text(model_card("finetune", decoder, facts), encoding="utf-8")


def _shown(task: LabelledTask, raw_BC: Tensor) -> list[dict]:
    """The surest of the wrong rows and of the right ones."""
    confidence_B, said_B = raw_BC.softmax(-1).max(-1)
    order = sorted(range(len(task.held)), key=lambda i: -confidence_B[i].item())
    right = [i for i in order if said_B[i] == task.held[i].target]
    wrong = [i for i in order if said_B[i] != task.held[i].target]
    return [_record(task, task.held[i], int(said_B[i])) for i in wrong[:SHOWN] + right[:SHOWN]]


def _record(task: LabelledTask, row: Labelled, said: int) -> dict:
    gold = int(row.target)
    return {
        "prompt": "\n".join(row.texts),
        "completions": [task.labels[said]],
        "rewards": [float(said == gold)],
        "answer": task.labels[gold],
    }
