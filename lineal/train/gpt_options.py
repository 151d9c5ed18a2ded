"""The options of the recipe gpt; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.errors import UsageError
from lineal.train.options import ModelOptions, OptimiserOptions, RunOptions, at_least, one_of

PRESETS = ("seconds", "cpu-20min", "gpu-small", "paper")
CLEANING = ("none", "paper")


@dataclass(frozen=True)
class CorpusOptions:
    """The text, how it is cleaned, and the vocabulary learned from it."""

    preset: str = "cpu-20min"
    """seconds, cpu-20min (two CPU cores), gpu-small, or paper (the specification of 2018)."""
    data: str | None = None
    """Text to learn from: TXT (one document), or rows with a column of text; .gz is read as it is; hf:NAME."""
    eval_data: str | None = None
    """Text to evaluate on; without it a part of --data is held out."""
    text_field: str = "text"
    """Name of the text's column."""
    held_out: float = 0.05
    """Share of --data that is held out where there is no --eval-data."""
    on_bad_row: str = "error"
    """error, skip or warn: what a row that cannot be read does."""
    clean: str = "none"
    """none, or paper: ftfy repairs the text and spaCy cuts it into words (pip install 'lineal[text]')."""
    vocab_size: int = 8000
    """Characters and merges of the BPE vocabulary that is learned (the paper: 478 + 40,000)."""
    epochs: float = 0.0
    """Passes over the text, which then say how many steps are taken; 0 leaves that to --steps."""

    def __post_init__(self) -> None:
        at_least(self, vocab_size=2, epochs=0, held_out=0)
        one_of(self, preset=PRESETS, clean=CLEANING)
        if self.held_out >= 1:
            raise UsageError(
                f"--held-out {self.held_out:g}: nothing would be left to learn from; it must be below 1."
            )


@dataclass(frozen=True)
class GPTConfig:
    """Everything the recipe gpt can be told."""

    corpus: CorpusOptions = field(default_factory=CorpusOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    run: RunOptions = field(default_factory=RunOptions)
