"""The options of the recipe tagger; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.errors import UsageError
from lineal.train.options import RunOptions, at_least, one_of
from lineal.train.recurrent.options import DTYPES, StepOptions

FEATURES = ("none", "static", "elmo")


@dataclass(frozen=True)
class TagOptions:
    """Which words with which tags, and what a word is known by."""

    data: str | None = None
    """A file in CoNLL's form: a word a line, columns, an empty line after each sentence; .gz is read as it is."""
    eval_data: str | None = None
    """Sentences to evaluate on; without it a part of --data is held out."""
    held_out: float = 0.2
    """Share of --data's sentences that is held out where there is no --eval-data."""
    word_column: int = 0
    """Column of the word, from 0 (CoNLL-U: 1)."""
    tag_column: int = -1
    """Column of the tag, from 0, or from the end as -1 (CoNLL-U: 3 for parts of speech)."""
    spans: bool = False
    """Tags are spans, as B-PER and I-PER: judged by the F1 of whole spans, in IOB1 or IOB2."""
    limit: int = 0
    """Train on at most this many sentences; 0 takes all."""
    features: str = "none"
    """What a word is given beside a vector of its own: none, static (one vector per word) or elmo (in its sentence)."""
    model: str | None = None
    """A run of elmo, or a folder with options.json and weights (static: its vectors of words without context)."""
    vectors: str | None = None
    """static: a file of vectors (word2vec, GloVe, fastText's .vec, .safetensors), in place of --model's."""
    tune_features: bool = False
    """elmo: its weights are trained too; otherwise only the mixture of its layers is."""
    layer_norm: bool = False
    """elmo: each layer is normalised before the mixture."""

    def __post_init__(self) -> None:
        one_of(self, features=FEATURES)
        at_least(self, held_out=0, limit=0, word_column=0)
        if not self.held_out < 1:
            raise UsageError(
                f"--held-out {self.held_out:g}: nothing would be left to learn from; it must be below 1."
            )
        if self.features == "elmo" and self.model is None:
            raise UsageError("--features elmo needs --model: a run of elmo.")
        # An option that does nothing would be taken for one that did.
        idle = {"elmo": ("vectors",), "static": ("tune_features", "layer_norm")}
        for name in idle.get(self.features, ("model", "vectors", "tune_features", "layer_norm")):
            if getattr(self, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} does nothing with --features {self.features}: "
                    f"{'name the features too (--features elmo or static)' if self.features == 'none' else 'leave it out'}."
                )
        if self.features == "static" and (self.model is None) == (self.vectors is None):
            raise UsageError("--features static needs --vectors FILE or --model RUN of elmo, one of them.")


@dataclass(frozen=True)
class TaggerOptions:
    """The tagger's shape."""

    word_width: int = 64
    """Width of the vector that the tagger learns for each word of the training sentences."""
    lstm_width: int = 100
    """Cells of the bidirectional LSTM, in each direction."""
    tagger_dropout: float = 0.5
    """Dropout of what the LSTM is given and of what it gives."""
    mix_decay: float = 0.001
    """elmo: weight of the sum of squares of the mixture's scores, which keeps it near the mean of the layers."""
    dtype: str = "float32"
    """float32 or float64."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 lets the probe decide."""

    def __post_init__(self) -> None:
        at_least(self, word_width=1, lstm_width=1, tagger_dropout=0, mix_decay=0, threads=0)
        one_of(self, dtype=DTYPES)
        if self.tagger_dropout >= 1:
            raise UsageError(f"--tagger-dropout {self.tagger_dropout:g}: it must be below 1.")


@dataclass(frozen=True)
class TaggerConfig:
    """Everything the recipe tagger can be told."""

    tags: TagOptions = field(default_factory=TagOptions)
    tagger: TaggerOptions = field(default_factory=TaggerOptions)
    optimiser: StepOptions = field(default_factory=StepOptions)
    run: RunOptions = field(default_factory=RunOptions)
