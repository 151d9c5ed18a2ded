"""The options of the recipe ulmfit; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.errors import UsageError
from lineal.train.options import RunOptions, at_least, one_of, optimisation

STAGES = ("lm", "tune", "classify")
PRESETS = ("seconds", "cpu-30min", "gpu", "paper")
DIRECTIONS = ("forward", "backward", "both")
UNFREEZING = ("gradual", "all", "last", "chain")
POOLINGS = ("concat", "last", "max", "mean")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class StageOptions:
    """Which stage, from which model, on which text."""

    stage: str = "lm"
    """lm (a language model on a general corpus), tune (it goes on, on the target's text) or classify (labelled rows)."""
    preset: str = "cpu-30min"
    """seconds, cpu-30min (two CPU cores), gpu, or paper: sizes, rates and epochs of each stage."""
    model: str | None = None
    """tune, classify: the run or folder of the stage before. classify without it starts from nothing."""
    data: str | None = None
    """Text, or labelled rows: TXT (lm, tune), JSONL, CSV, TSV, Parquet; .gz is read as it is; hf:NAME."""
    eval_data: str | None = None
    """What to evaluate on; without it a part of --data is held out."""
    text_field: str = "text"
    """Column of the text."""
    label_field: str = "label"
    """classify: column of the label."""
    held_out: float = 0.1
    """Share of --data that is held out where there is no --eval-data."""
    limit: int = 0
    """classify: train on at most this many rows; 0 takes all."""
    on_bad_row: str = "error"
    """error, skip or warn: what a row that cannot be read does."""
    vocab_size: int = 30_000
    """Words of the vocabulary at most."""
    min_frequency: int = 2
    """Rarer words are unknown."""
    vocabulary: str = "target"
    """tune: target (the target's words; known ones keep their vectors, new ones get the mean) or keep."""
    directions: str = "forward"
    """forward, backward, or both: two models, whose probabilities are averaged. tune and classify take --model's."""

    def __post_init__(self) -> None:
        one_of(self, stage=STAGES, preset=PRESETS, directions=DIRECTIONS, vocabulary=("target", "keep"))
        at_least(self, held_out=0, limit=0, vocab_size=5, min_frequency=0)
        if not self.held_out < 1:
            raise UsageError(
                f"--held-out {self.held_out:g}: nothing would be left to learn from; it must be below 1."
            )


@dataclass(frozen=True)
class ReaderOptions:
    """The AWD-LSTM: its shape (of stage lm) and its dropout."""

    width: int = 400
    """Width of the embedding and of the last layer's output."""
    hidden: int = 1150
    """Width of the other layers' outputs."""
    layers: int = 3
    """LSTM layers."""
    tied: bool = True
    """The output layer is the embedding; --no-tied gives it weights of its own."""
    dropout_scale: float = 1.0
    """All the dropouts below, times this."""
    embedding_dropout: float = 0.05
    """Share of words dropped from the vocabulary for a step."""
    input_dropout: float = 0.4
    """Dropout of the embedded text, one mask per sequence."""
    weight_dropout: float = 0.5
    """Dropout of recurrent weights (DropConnect)."""
    hidden_dropout: float = 0.3
    """Dropout between layers, one mask per sequence."""
    output_dropout: float = 0.4
    """Dropout of the last layer's output, one mask per sequence."""
    dtype: str = "float32"
    """float32 or float64."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 lets the probe decide."""

    def __post_init__(self) -> None:
        at_least(self, width=1, hidden=1, layers=1, threads=0, dropout_scale=0)
        one_of(self, dtype=DTYPES)
        for name, value in self.dropouts().items():
            if not 0 <= value < 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} times --dropout-scale is {value:g}: at least 0, and below 1."
                )

    def dropouts(self) -> dict[str, float]:
        """Each dropout with the common scale."""
        names = ("embedding", "input", "weight", "hidden", "output")
        return {f"{n}_dropout": self.dropout_scale * getattr(self, f"{n}_dropout") for n in names}


@dataclass(frozen=True)
class StepOptions:
    """Steps: how many, how large, and by which rule."""

    batch_size: int = 64
    """Columns of text read side by side; of classify, rows per step."""
    block: int = 70
    """Tokens of a window of truncated back-propagation; of classify, of a piece of a document."""
    vary_block: bool = True
    """Windows differ in length (lm, tune); the rate follows their length."""
    epochs: float = 1.0
    """Passes over the text or the rows; they say how many steps are taken, unless 0 leaves that to --steps."""
    method: str = "adam"
    """adam, adagrad, sgd, or averaged: SGD, averaged from when the held-out loss no longer improves (NT-ASGD)."""
    patience: int = 5
    """averaged: evaluations (--eval-every) that may pass without a new best."""
    learning_rate: float = 4e-3
    """Peak learning rate, of the top layer."""
    schedule: str = "slanted"
    """slanted (triangle), constant, linear, cosine, wsd or inverse_sqrt."""
    cut_fraction: float = 0.1
    """slanted: share of the steps in which the rate rises."""
    ratio: float = 32.0
    """slanted: the peak rate over the lowest."""
    discriminative: float = 2.6
    """Each layer's rate over that of the layer below it; 1 gives all layers one rate. lm has one rate."""
    beta1: float = 0.7
    """Adam's first decay."""
    beta2: float = 0.99
    """Adam's second decay."""
    weight_decay: float = 1e-7
    """Decoupled weight decay."""
    max_grad_norm: float = 0.25
    """Global gradient clip of each direction; 0 turns it off."""
    activation_penalty: float = 2.0
    """AR: weight of the mean square of the last outputs (lm, tune)."""
    temporal_penalty: float = 1.0
    """TAR: weight of the mean square of their change from token to token (lm, tune)."""

    def __post_init__(self) -> None:
        at_least(self, batch_size=1, block=1, epochs=0, patience=1, learning_rate=0, weight_decay=0)
        at_least(self, max_grad_norm=0, activation_penalty=0, temporal_penalty=0, ratio=1)
        one_of(self, method=("adam", "adagrad", "sgd", "averaged"))
        optimisation(self, "slanted")
        if not 0 < self.cut_fraction < 1 or not self.discriminative > 0:
            raise UsageError(
                f"--cut-fraction {self.cut_fraction:g} must lie between 0 and 1, --discriminative "
                f"{self.discriminative:g} above 0."
            )


@dataclass(frozen=True)
class ClassifierOptions:
    """Of stage classify: how a document is read, and which layers learn when."""

    unfreeze: str = "gradual"
    """gradual (the last layer first, one more per epoch), all, last, or chain (one at a time, then all)."""
    pooling: str = "concat"
    """concat (last, max and mean output), last, max or mean."""
    backward_tokens: int = 1400
    """Gradients flow through so many last tokens of a document (BPT3C); 0 for all of them."""
    head_width: int = 50
    """Width of the head's hidden layer."""
    head_dropout: float = 0.1
    """Dropout before each of the head's linear layers."""
    fresh: bool = False
    """Start from fresh weights of --model's shape and vocabulary: the control that says what pre-training is worth."""
    token_budget: int = 8192
    """Most tokens of one micro-batch of documents, padding included."""

    def __post_init__(self) -> None:
        one_of(self, unfreeze=UNFREEZING, pooling=POOLINGS)
        at_least(self, backward_tokens=0, head_width=1, head_dropout=0, token_budget=1)
        if self.head_dropout >= 1:
            raise UsageError(f"--head-dropout {self.head_dropout:g}: it must be below 1.")


@dataclass(frozen=True)
class ULMFiTConfig:
    """Everything the recipe ulmfit can be told."""

    stage: StageOptions = field(default_factory=StageOptions)
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    optimiser: StepOptions = field(default_factory=StepOptions)
    documents: ClassifierOptions = field(default_factory=ClassifierOptions)
    run: RunOptions = field(default_factory=RunOptions)
