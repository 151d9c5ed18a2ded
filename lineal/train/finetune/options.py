"""The options of fine-tuning; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.errors import UsageError
from lineal.train.options import ModelOptions, RunOptions, at_least, one_of, optimisation

KINDS = ("classification", "pair", "similarity", "choice", "tagging", "span")
TARGETS = ("classes", "score")


@dataclass(frozen=True)
class TaskOptions:
    """What is to be told from which columns."""

    task: str = "classification"
    """classification (one text), pair (two in order, as in entailment), similarity (two, in both orders), choice, tagging
    (a class for each word) or span (where in a context a question is answered)."""
    target: str = "classes"
    """classes, or score: a number per row (squared error; Pearson's and Spearman's correlation)."""
    data: str | None = None
    """Labelled rows: JSONL, CSV, TSV (with a header) or Parquet; .gz is read as it is; hf:NAME."""
    eval_data: str | None = None
    """Labelled rows to evaluate on; without it a part of --data is held out."""
    text_field: str = "text"
    """Column of the text; of the first of two; of what the choices continue; of the words; of the question."""
    second_field: str = "second"
    """Column of the second text (pair, similarity), or of the context (span)."""
    choices_field: tuple[str, ...] = ("choices",)
    """choice: one column with a list of texts, or one column per choice."""
    label_field: str = "label"
    """Column of the label: a class's name, a number (--target score), the right choice's number from 0, a list of tags, or an
    answer that is in the context (span)."""
    held_out: float = 0.1
    """Share of --data that is held out where there is no --eval-data."""
    limit: int = 0
    """Train on at most this many rows; 0 takes all."""
    on_bad_row: str = "error"
    """error, skip or warn: what a row that cannot be read does."""

    def __post_init__(self) -> None:
        one_of(self, task=KINDS, target=TARGETS)
        at_least(self, held_out=0, limit=0)
        if not self.held_out < 1:
            raise UsageError(
                f"--held-out {self.held_out:g}: nothing would be left to learn from; it must be below 1."
            )
        asks = {
            "choice": "which of several is right",
            "tagging": "for a class of each word",
            "span": "for a place",
        }
        if self.task in asks and self.target == "score":
            raise UsageError(
                f"--task {self.task} asks {asks[self.task]}: --target score does not go with it."
            )


@dataclass(frozen=True)
class TuningOptions:
    """How the model is tuned."""

    auxiliary: float | None = None
    """Weight of the language-modelling loss on the same inputs (default: 0.5 for a decoder, as GPT-1; 0 for others)."""
    fresh: bool = False
    """Start from fresh weights of the same shape: the control that says what pre-training is worth."""
    head_dropout: float = 0.1
    """Dropout before the linear head."""
    batch_size: int = 32
    """Rows per step."""
    epochs: float = 3.0
    """Passes over the training rows; they say how many steps are taken, unless 0 leaves that to --steps."""
    learning_rate: float = 6.25e-5
    """Peak learning rate."""
    schedule: str = "linear"
    """constant, linear, cosine, wsd (a linear fall over the last fifth) or inverse_sqrt."""
    warmup: float = 0.002
    """Share of the steps that is linear warm-up."""
    floor: float = 0.0
    """Share of the peak that linear and cosine end at."""
    weight_decay: float = 0.01
    """Decoupled weight decay, on matrices only."""
    beta1: float = 0.9
    """Adam's first decay."""
    beta2: float = 0.999
    """Adam's second decay."""
    max_grad_norm: float = 1.0
    """Global gradient clip; 0 turns it off."""
    token_budget: int = 16384
    """Most tokens of one micro-batch, padding included."""

    def __post_init__(self) -> None:
        at_least(
            self, auxiliary=0, head_dropout=0, batch_size=1, epochs=0, learning_rate=0, warmup=0, floor=0
        )
        at_least(self, weight_decay=0, max_grad_norm=0, token_budget=1)
        optimisation(self)
        if self.head_dropout >= 1 or self.warmup > 1:
            raise UsageError(
                f"--head-dropout {self.head_dropout:g} and --warmup {self.warmup:g} are shares: below 1, and at most 1."
            )


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything the recipe finetune can be told."""

    model: ModelOptions = field(default_factory=ModelOptions)
    task: TaskOptions = field(default_factory=TaskOptions)
    tuning: TuningOptions = field(default_factory=TuningOptions)
    run: RunOptions = field(default_factory=RunOptions)
