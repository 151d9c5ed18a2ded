"""The options of the recipe elmo; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.errors import UsageError
from lineal.train.options import RunOptions, at_least, one_of
from lineal.train.recurrent.options import DTYPES, StepOptions

PRESETS = ("seconds", "cpu-30min", "gpu", "paper")


@dataclass(frozen=True)
class SentencesOptions:
    """The text, and which of its words are told apart."""

    preset: str = "cpu-30min"
    """seconds, cpu-30min (two CPU cores), gpu, or paper (93.6 million parameters)."""
    data: str | None = None
    """Text to learn from: TXT (one document), or rows with a column of text; .gz is read as it is; hf:NAME."""
    eval_data: str | None = None
    """Text to evaluate on; without it a part of --data is held out."""
    text_field: str = "text"
    """Column of the text."""
    held_out: float = 0.02
    """Share of --data that is held out where there is no --eval-data."""
    on_bad_row: str = "error"
    """error, skip or warn: what a row that cannot be read does."""
    vocab_size: int = 20_000
    """Words that the output layer tells apart, the most frequent ones; any word can be read."""
    samples: int = 2048
    """Words drawn at each step for the sampled softmax; 0 takes the softmax over all of them."""

    def __post_init__(self) -> None:
        one_of(self, preset=PRESETS)
        at_least(self, held_out=0, vocab_size=4, samples=0)
        if not self.held_out < 1:
            raise UsageError(
                f"--held-out {self.held_out:g}: nothing would be left to learn from; it must be below 1."
            )


@dataclass(frozen=True)
class BiLMOptions:
    """The shape of the bidirectional language model."""

    projection: int = 128
    """Width of a word's vector and of every layer's output, in each direction."""
    cells: int = 512
    """Cells of an LSTM layer."""
    layers: int = 2
    """LSTM layers of each direction."""
    filter_widths: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Characters that the convolutions see at once."""
    filter_counts: tuple[int, ...] = (16, 16, 32, 64, 128)
    """How many there are of each width."""
    character_width: int = 16
    """Width of a character's vector."""
    highway: int = 1
    """Highway layers."""
    activation: str = "relu"
    """relu or tanh, of the convolutions."""
    residual: bool = True
    """A layer above the first adds its input."""
    clip: float = 0.0
    """Bound of cells and outputs at every step (the paper's weights: 3); 0 for none, which is much faster on a CPU."""
    dropout: float = 0.1
    """Dropout of every layer's input."""
    dtype: str = "float32"
    """float32 or float64."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 lets the probe decide."""

    def __post_init__(self) -> None:
        at_least(self, projection=1, cells=1, layers=1, character_width=1, highway=0, clip=0, threads=0)
        at_least(self, dropout=0)
        one_of(self, activation=("relu", "tanh"), dtype=DTYPES)


@dataclass(frozen=True)
class ElmoRecipeConfig:
    """Everything the recipe elmo can be told."""

    sentences: SentencesOptions = field(default_factory=SentencesOptions)
    model: BiLMOptions = field(default_factory=BiLMOptions)
    optimiser: StepOptions = field(default_factory=StepOptions)
    run: RunOptions = field(default_factory=RunOptions)
