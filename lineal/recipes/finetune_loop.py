"""The loop of finetune: class loss plus auxiliary language-model loss, and the scores of the finished model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.dropout import Masks
from lineal.models.finetuned import FineTuned
from lineal.optim.groups import adamw
from lineal.optim.schedules import make_schedule
from lineal.recipes import staged
from lineal.recipes.config import FinetuneConfig
from lineal.train.build import model_folder
from lineal.train.console import note
from lineal.train.device import Shape
from lineal.train.distributed import ALONE, Ranks, joined, sum_gradients
from lineal.train.finetune.answers import span_targets
from lineal.train.finetune.bodies import BODIES, family_of
from lineal.train.finetune.inputs import Framed, lay_out, micro_batches, places
from lineal.train.finetune.judging import judge
from lineal.train.finetune.predictor import Facts, Predictor, save_predictor
from lineal.train.finetune.scores import Scores
from lineal.train.finetune.tasks import Labelled, LabelledTask, read_task
from lineal.train.guard import Guard
from lineal.train.order import Order
from lineal.train.run import Run
from lineal.train.session import autocast_dtype, place_as
from lineal.train.stage import Stage, due


@dataclass
class Parts:
    """What the loop works with; rows: the training rows' sequences; targets: of their decisions."""

    task: LabelledTask
    rows: list[list[Framed]]
    targets: list[list[float]]
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
    told = f"{len(task.labels)} classes" if task.labels else "a place" if task.kind == "span" else "a score"
    batch, weight = config.tuning.batch_size, auxiliary(config, predictor)
    beside = f" + {weight:g} mean over tokens of log π(token)" if weight else ""
    return [
        f"maximise mean over decisions of log p(label | texts){beside}"
        if task.labels or task.kind == "span"
        else f"maximise minus the squared error of standardised scores{beside}",
        f"data: {len(task.train):,} rows to train on, {len(task.held):,} to evaluate on; {task.kind}, {told}",
        f"model {predictor.facts.family}: {size:,} parameters, the head's included",
        f"a step: {batch} rows x {tokens:.0f} tokens, {steps_of(config, len(task.train)):,} steps",
        f"memory, about: weights, gradients and optimiser {16 * size / 2**20:.0f} MiB",
    ]


def steps_of(config: FinetuneConfig, rows: int) -> int:
    """Steps that the epochs take, or --steps where --epochs is 0."""
    if not config.tuning.epochs:
        return config.run.steps
    return max(1, math.ceil(config.tuning.epochs * rows / config.tuning.batch_size))


def auxiliary(config: FinetuneConfig, predictor: Predictor) -> float:
    """The weight of the language-modelling loss: the one asked for, else the one usual for the model."""
    body, asked = predictor.model.body, config.tuning.auxiliary
    if asked and not body.auxiliary:
        raise UsageError(
            f"--auxiliary {asked:g}: a model of the family {predictor.facts.family} has no next-token loss; leave it out."
        )
    return body.auxiliary if asked is None else asked


def _predictor(config: FinetuneConfig, task: LabelledTask) -> Predictor:
    options, tuning = config.model, config.tuning
    if options.model is None:
        raise UsageError(
            "finetune needs --model: a run of gpt, bert or pretrain, a model folder, or hf:OWNER/NAME."
        )
    folder = model_folder(options.model)
    family = family_of(folder)
    words = Path(options.tokenizer) if options.tokenizer else folder
    body, tokenizer, marks = BODIES[family].prepare(folder, words, tuning.fresh, config.run.seed)
    body.set_dropout(options.dropout)
    facts = Facts(task.kind, task.labels, marks, task.mean, task.spread, asdict(config.task), family)
    model = FineTuned(body, task.kind, task.outputs, tuning.head_dropout, config.run.seed)
    return Predictor(model, tokenizer, facts, token_budget=tuning.token_budget)


def targets_of(row: Labelled, framed: list[Framed], predictor: Predictor) -> list[float]:
    """What is right for each decision of a row."""
    if predictor.facts.kind == "span":
        assert isinstance(row.target, tuple)
        return [*span_targets(framed, places(predictor.tokenizer, row.texts[1])[1], row.target)]
    return list(row.target) if isinstance(row.target, tuple) else [row.target]


def build(config: FinetuneConfig, run: Run, ranks: Ranks = ALONE) -> Parts:
    """Rows, model and optimiser, placed on their device."""
    task = read_task(config.task)
    predictor, options = _predictor(config, task), config.tuning
    auxiliary(config, predictor)
    width = predictor.model.body.width
    rows = predictor.encode([row.texts for row in task.train])
    targets = [targets_of(row, framed, predictor) for row, framed in zip(task.train, rows, strict=True)]
    tokens = options.batch_size * max(len(s) for row in rows for s in row)
    device = place_as(Shape(width, 4 * width, tokens), predictor.model, run, config.model, ranks)
    predictor.half = autocast_dtype(device)
    optimiser = adamw(
        dict(predictor.model.named_parameters()), options.learning_rate, betas=(options.beta1, options.beta2),
        weight_decay=options.weight_decay,
    )  # fmt: skip
    return Parts(task, rows, targets, predictor, optimiser, Order(len(rows), config.run.seed), ranks)


class TuningStage(Stage):
    """What the loop asks of finetune."""

    name, shown = "tuning", ("loss", "accuracy", "eval/accuracy")

    def __init__(self, config: FinetuneConfig, parts: Parts):
        options, self.steps = config.tuning, steps_of(config, len(parts.rows))
        self.config, self.parts, self.ranks = config, parts, parts.ranks
        self.module, self.optimiser = parts.predictor.model, parts.optimiser
        warmup = min(self.steps, math.ceil(options.warmup * self.steps))
        self.peak, self.schedule = (
            options.learning_rate,
            make_schedule(options.schedule, self.steps, warmup, options.floor),
        )

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A batch of rows."""
        epoch = self.parts.order.epoch(step, self.config.tuning.batch_size)
        return train_step(self.config, self.parts, step, guard) | {"epoch": epoch}

    def between(self, run: Run, step: int, last: bool) -> dict[str, float]:
        """The scores of the rows to evaluate on."""
        if not due(self.config.run, step, last):
            return {}
        return judge(self.parts.predictor, self.parts.task)[0].metrics()

    def finish(self, run: Run, step: int) -> None:
        """The scores, and the folder of the fine-tuned model."""
        _finish(run, self.parts, step)


def run(config: FinetuneConfig, run: Run) -> None:
    """Fine-tune a model; resumes by itself when the run folder holds a checkpoint."""
    with joined(config.model.device) as ranks:
        staged.train(config.run, run, TuningStage(config, build(config, run, ranks)))


def train_step(config: FinetuneConfig, parts: Parts, step: int, guard: Guard) -> dict[str, float]:
    """One optimiser step on a batch of rows; returns its losses, accuracy, gradient norm and tokens."""
    model, ranks, options = parts.predictor.model, parts.ranks, config.tuning
    model.train()
    # Dropout draws from torch's own generator: seeded by the step, so that a resumed run draws the same.
    torch.manual_seed(((config.run.seed << 32) + step) ^ (ranks.rank << 44))
    model.body.masks = Masks(config.run.seed, step, ranks.rank)
    parts.optimiser.zero_grad(set_to_none=True)
    index = parts.order.batch(step - 1, options.batch_size)
    mine = ranks.mine(index)
    sums_3, tokens, weight = torch.zeros(3, dtype=torch.float64), 0, auxiliary(config, parts.predictor)
    whole = sum(len(parts.targets[i]) for i in index)
    for group in micro_batches([parts.rows[i] for i in mine], options.token_budget):
        chosen = [mine[i] for i in group]
        told, language, hits, count = _losses(parts, chosen, weight)
        (told / whole + weight * language / len(index)).backward()
        sums_3 += torch.stack([told.detach().double(), language.detach().double(), hits.double()]).cpu()
        tokens += count
    parameters = list(model.parameters())
    sum_gradients(parameters, ranks)
    norm = torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm or math.inf)
    each_3 = torch.tensor([whole, len(index), whole], dtype=torch.float64)
    told, language, hits = (ranks.sum(sums_3) / each_3).tolist()
    guard.watch(step)
    if guard.finite(float(norm), loss=told + weight * language):
        parts.optimiser.step()
    model.eval()
    found = {"loss": told, "grad_norm": float(norm), "tokens": float(sum(ranks.gather_json(tokens)))}
    found |= {"language_loss": language} if weight else {}
    return found | ({"accuracy": hits} if parts.task.labels or parts.task.kind == "span" else {})


def _losses(parts: Parts, chosen: list[int], weight: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """Summed: -log p(right) or the squared error over decisions, the mean language loss over rows, right ones; tokens."""
    task, model = parts.task, parts.predictor.model
    device = model.body.device
    inputs = lay_out([parts.rows[i] for i in chosen], device)
    target_M = torch.tensor([x for i in chosen for x in parts.targets[i]], device=device)
    with parts.predictor.precision():
        score_MC, hidden_NTD = model(inputs)
        language = score_MC.new_zeros(())
        if weight:
            language = model.body.language_loss(hidden_NTD, inputs) / inputs.each
    wide_MC = score_MC.float() if score_MC.dtype == torch.bfloat16 else score_MC
    if task.labels or task.kind == "span":
        told = F.cross_entropy(wide_MC, target_M.long(), reduction="sum")
        hits = (wide_MC.argmax(-1) == target_M.long()).sum()
    else:
        told = (wide_MC[:, 0] - (target_M.to(wide_MC) - task.mean) / task.spread).square().sum()
        hits = torch.zeros((), device=device)
    return told, language, hits, int(inputs.mask_NT.sum())


def _finish(run: Run, parts: Parts, step: int) -> None:
    ranks, task, predictor = parts.ranks, parts.task, parts.predictor
    found, shown = judge(predictor, task)
    run.log(step, found.metrics() | {"eval/prompts": len(task.held), "eval/final": True})
    if isinstance(found, Scores):
        run.sample(step, found.record())
    for record in shown:
        run.sample(step, {"kind": "eval", **record})
    line = ", ".join(
        f"{name.removeprefix('eval/').replace('_', ' ')} {value:.4f}"
        for name, value in found.metrics().items()
    )
    note(f"step {step}: {len(task.held):,} rows: {line}")
    if ranks.first:
        facts = {"task": task.kind, "steps": step, **{k: f"{v:.4f}" for k, v in found.metrics().items()}}
        with run.final_folder() as folder:
            BODIES[predictor.facts.family].save(predictor.model.body, folder, predictor.tokenizer)
            predictor.tokenizer.save(folder)
            save_predictor(folder, predictor)
            (folder / "README.md").write_text(_card(predictor, facts), encoding="utf-8")


def _card(predictor: Predictor, facts: dict) -> str:
    size = sum(parameter.numel() for parameter in predictor.model.parameters())
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return (
        "---\nlibrary_name: lineal\npipeline_tag: text-classification\ntags: [lineal, finetune]\n---\n"
        f"# A fine-tuned {predictor.facts.family} of `lineal run finetune`\n\n{size:,} parameters, the head's included.\n\n"
        f"| fact | value |\n|---|---|\n{rows}\n"
    )
