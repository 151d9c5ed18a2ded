"""Stage classify of ulmfit: the language model's layers with a head on pooled states, unfrozen from the top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.awd_lstm import AWDLSTM, Directions
from lineal.models.documents import DocumentReader, Pieces
from lineal.models.dropout import Masks
from lineal.models.hf.awd import DIRECTIONS
from lineal.optim.layerwise import learning_layers, set_learning
from lineal.recipes.config import ULMFiTConfig
from lineal.recipes.ulmfit_language import (
    asked_directions,
    card,
    fresh_models,
    fresh_shape,
    open_models,
    place,
)
from lineal.tokenizers import Tokenizer
from lineal.train.console import note
from lineal.train.finetune.inputs import micro_batches
from lineal.train.finetune.judging import shown
from lineal.train.finetune.options import TaskOptions
from lineal.train.finetune.scores import Scores, scores
from lineal.train.finetune.tasks import Labelled, LabelledTask, read_task
from lineal.train.guard import Guard
from lineal.train.order import Order
from lineal.train.recurrent.predictor import (
    DocumentFacts,
    DocumentPredictor,
    document_readers,
    pooled_of,
    save_document_predictor,
)
from lineal.train.recurrent.reading import spoken
from lineal.train.recurrent.stage import RecurrentStage
from lineal.train.recurrent.steps import Layers, make_optimiser, take_step
from lineal.train.recurrent.vocabulary import learn_words
from lineal.train.run import Run
from lineal.train.translation.vocabulary import remembered


def task_options(config: ULMFiTConfig) -> TaskOptions:
    """The columns of the labelled rows."""
    stage = config.stage
    return TaskOptions(
        data=stage.data, eval_data=stage.eval_data, text_field=stage.text_field, label_field=stage.label_field,
        held_out=stage.held_out, limit=stage.limit, on_bad_row=stage.on_bad_row,
    )  # fmt: skip


def begin(config: ULMFiTConfig, task: LabelledTask, run: Run | None) -> tuple[dict[str, AWDLSTM], Tokenizer]:
    """The models that the classifier starts from, and their tokenizer."""
    options = config.stage
    if options.model is not None:
        models, tokenizer = open_models(config, options.model)
        if config.documents.fresh:
            models = fresh_models(config, next(iter(models.values())).config, tuple(models))
        return models, tokenizer
    texts = [row.texts[0] for row in task.train]

    def learned() -> Tokenizer:
        return learn_words(texts, options.vocab_size, options.min_frequency)

    tokenizer = learned() if run is None else remembered(run.path / "tokenizer", learned)
    shape = fresh_shape(config, tokenizer.vocab_size)
    return fresh_models(config, shape, asked_directions(options)), tokenizer


def targets(rows: Sequence[Labelled]) -> Tensor:
    """The numbers of the rows' classes."""
    return torch.tensor([int(row.target) for row in rows if not isinstance(row.target, tuple)])


@dataclass
class ClassifyStage(RecurrentStage):
    """What the loop works with; see `Stage`."""

    config: ULMFiTConfig
    module: Directions
    task: LabelledTask
    rows: list[list[int]]
    predictor: DocumentPredictor
    optimiser: torch.optim.Optimizer
    steps: int
    order: Order
    shown: tuple[str, ...] = ("loss", "accuracy", "eval/accuracy")

    @property
    def readers(self) -> dict[str, DocumentReader]:
        """The readers by direction."""
        return dict(self.module.items())

    def epoch(self, step: int) -> float:
        """Passes over the rows."""
        return self.order.epoch(step, self.config.optimiser.batch_size)

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A batch of documents, read by each direction."""
        options, documents, seed = self.config.optimiser, self.config.documents, self.config.run.seed
        index = self.order.batch(step - 1, options.batch_size)
        rows = [self.rows[i] for i in index]
        target_B = targets([self.task.train[i] for i in index])
        epoch = int(self.epoch(step - 1))
        self.module.train()
        self.optimiser.zero_grad(set_to_none=True)
        losses, told, learning = {}, torch.zeros(()), []
        for direction, reader in self.readers.items():
            layers: Layers = reader.groups()
            chosen = learning_layers(documents.unfreeze, epoch, len(layers))
            set_learning(layers, chosen)
            learning.append([layers[i] for i in chosen])
            where = (seed, step, DIRECTIONS.index(direction))
            score_BC = self._scores(reader, rows, direction, where)
            loss = F.cross_entropy(score_BC, target_B.to(score_BC.device))
            loss.backward()
            losses[direction] = loss.detach()
            told = told + score_BC.detach().softmax(-1).cpu()
        guard.watch(step)
        norm = take_step(self.optimiser, learning, losses, options.max_grad_norm, guard)
        self.module.eval()
        return {
            "loss": float(torch.stack(list(losses.values())).mean()),
            "accuracy": float((told.argmax(-1) == target_B).double().mean()),
            "grad_norm": norm,
            "layers_learning": len(learning[0]),
            "tokens": float(sum(map(len, rows)) * len(losses)),
            "epoch": self.epoch(step),
        }

    def _scores(
        self, reader: DocumentReader, rows: list[list[int]], direction: str, where: tuple[int, ...]
    ) -> Tensor:
        """The head's scores of all rows at once, their pooled states made in groups of like length."""
        documents, block = self.config.documents, self.config.optimiser.block
        found: list[Tensor | None] = [None] * len(rows)
        for number, group in enumerate(self._groups(rows)):
            noise = reader.reader.draw(Masks(*where, number), len(group))
            pieces = Pieces(block, documents.backward_tokens)
            pooled_BD = pooled_of(reader, [rows[i] for i in group], direction, pieces, noise)
            for i, pooled_D in zip(group, pooled_BD, strict=True):
                found[i] = pooled_D
        pooled_BD = torch.stack([pooled_D for pooled_D in found if pooled_D is not None])
        return reader.head(pooled_BD, Masks(*where), documents.head_dropout)

    def _groups(self, rows: list[list[int]]) -> list[list[int]]:
        """Rows of like length; one that is too long for gradients through all of it stands alone, so that its own last
        tokens get them."""
        limit = self.config.documents.backward_tokens or math.inf
        short = [i for i, row in enumerate(rows) if len(row) <= limit]
        grouped = micro_batches([[rows[i]] for i in short], self.config.documents.token_budget)
        alone = [[i] for i, row in enumerate(rows) if len(row) > limit]
        return [[short[i] for i in group] for group in grouped] + alone

    def evaluate(self, whole: bool) -> dict[str, float]:
        """The scores of the rows to evaluate on."""
        return self.judged()[0].metrics()

    def judged(self) -> tuple[Scores, Tensor]:
        """The scores of the rows to evaluate on, and the probabilities told of each."""
        self.module.eval()
        held = self.task.held
        probability_BC = self.predictor.probabilities(self.predictor.encode([row.texts[0] for row in held]))
        target_B = targets(held)
        return scores(probability_BC, target_B, self.task.labels), probability_BC

    def write(self, run: Run, step: int) -> None:
        """The scores, and the folder of the classifier."""
        found, probability_BC = self.judged()
        run.log(step, found.metrics() | {"eval/prompts": len(self.task.held), "eval/final": True})
        run.sample(step, found.record())
        for record in shown(self.task, probability_BC.log()):
            run.sample(step, {"kind": "eval", **record})
        note(f"step {step}: {len(self.task.held):,} rows: {spoken(found.metrics())}")
        with run.final_folder() as folder:
            save_document_predictor(folder, self.predictor)
            facts = {"stage": "classify", "steps": step, **found.metrics()}
            models = {d: reader.reader for d, reader in self.readers.items()}
            (folder / "README.md").write_text(card(models, facts), encoding="utf-8")


def build(config: ULMFiTConfig, run: Run | None) -> ClassifyStage:
    """Rows, models and optimiser, on their device."""
    options = config.optimiser
    if options.batch_size < 2:
        raise UsageError("--batch-size 1: the head's batch norm needs at least 2 rows per step.")
    task = read_task(task_options(config))
    models, tokenizer = begin(config, task, run)
    documents = config.documents
    columns = asdict(task_options(config))
    facts = DocumentFacts(
        task.labels, documents.pooling, documents.head_width, options.block, columns=columns
    )
    module = document_readers(models, facts, config.run.seed)
    if run is not None:
        place(config, run, module, next(iter(models.values())).config)
    predictor = DocumentPredictor(module, tokenizer, facts, documents.token_budget)
    rows = predictor.encode([row.texts[0] for row in task.train])
    note(f"{len(rows):,} rows to train on, {sum(map(len, rows)):,} tokens; {len(task.held):,} to evaluate on")
    steps = config.run.steps
    if options.epochs:
        steps = max(1, math.ceil(options.epochs * len(rows) / options.batch_size))
    optimiser = make_optimiser(options, [reader.groups() for _, reader in module.items()])
    order = Order(len(rows), config.run.seed)
    return ClassifyStage(config, module, task, rows, predictor, optimiser, steps, order)


def plan(config: ULMFiTConfig) -> list[str]:
    """What a run would do, without doing it."""
    quiet = replace(config, run=replace(config.run, quiet=True))
    stage, options = build(quiet, None), config.optimiser
    size = sum(p.numel() for p in stage.module.parameters())
    tokens = sum(map(len, stage.rows)) / len(stage.rows)
    return [
        "maximise mean over rows of log p(label | text)",
        f"data: {len(stage.rows):,} rows to train on, {len(stage.task.held):,} to evaluate on; {len(stage.task.labels)} classes",
        f"model: {', '.join(stage.readers)}; {size:,} parameters, the head's included",
        f"a step: {options.batch_size} rows x {tokens:.0f} tokens, {stage.steps:,} steps",
        f"memory, about: weights, gradients and optimiser {16 * size / 2**20:.0f} MiB",
    ]
