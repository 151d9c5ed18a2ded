"""The options of the recipe bert; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.errors import UsageError
from lineal.train.options import RunOptions, at_least, one_of, optimisation

PRESETS = ("seconds", "cpu-30min", "base", "large")
CUTS = ("lines", "sentences")


@dataclass(frozen=True)
class DocumentOptions:
    """The documents, and how they become pairs of texts with words hidden."""

    preset: str = "cpu-30min"
    """seconds, cpu-30min (two CPU cores), base or large (the paper's)."""
    data: str | None = None
    """Documents: TXT parted at blank lines, or rows with a column of text; .gz is read as it is; hf:NAME."""
    eval_data: str | None = None
    """Documents to evaluate on; without it a part of --data is held out."""
    text_field: str = "text"
    """Name of the text's column."""
    held_out: float = 0.05
    """Share of --data's documents that is held out where there is no --eval-data."""
    on_bad_row: str = "error"
    """error, skip or warn: what a row that cannot be read does."""
    cut: str = "sentences"
    """What pairs are made of: lines, or the sentences of each line."""
    document_words: int = 0
    """Cut the text at lines into documents of about so many words, whatever its blank lines (novels: 1000); 0 cuts at those."""
    vocab_size: int = 8000
    """Tokens of the WordPiece vocabulary that is learned (the paper: 30,522)."""
    cased: bool = False
    """Keep capitals and accents in the vocabulary that is learned."""
    whole_words: bool = False
    """Hide all pieces of a word or none."""
    mask_rate: float = 0.15
    """Share of the pieces that is hidden; of those 80 % become [MASK], 10 % any token, 10 % stay."""
    most_masked: int = 0
    """At most so many pieces of a sequence are hidden; 0 sets no limit beyond the share."""
    short_sequences: float = 0.1
    """Chance that a pair aims at a random shorter length."""
    duplicates: int = 0
    """Versions of the data with other pairs and masks, taken in turn by the epochs; 0 makes new ones for each epoch."""
    next_sentence: bool = True
    """Learn to tell what follows; --no-next-sentence leaves that loss out."""

    def __post_init__(self) -> None:
        one_of(self, preset=PRESETS, cut=CUTS)
        at_least(self, held_out=0, document_words=0, vocab_size=8, most_masked=0, duplicates=0)
        if self.held_out >= 1:
            raise UsageError(
                f"--held-out {self.held_out:g}: nothing would be left to learn from; it must be below 1."
            )
        for name in ("mask_rate", "short_sequences"):
            value, flag = getattr(self, name), "--" + name.replace("_", "-")
            if not 0 <= value <= 1 or (name == "mask_rate" and value == 0):
                raise UsageError(f"{flag} {value:g}: it is a share, above 0 and at most 1.")


@dataclass(frozen=True)
class EncoderOptions:
    """Which encoder, or the shape of a fresh one."""

    model: str | None = None
    """A BERT folder, a run of bert, or hf:OWNER/NAME to go on from. Without it: a fresh model."""
    tokenizer: str | None = None
    """A folder with a WordPiece tokenizer.json or vocab.txt (default: the model's own, or one learned from --data)."""
    layers: int = 4
    """Layers of a fresh model."""
    width: int = 256
    """Width of a fresh model."""
    heads: int = 4
    """Attention heads of a fresh model."""
    inner: int | None = None
    """Inner width of the feed-forward layers (default: 4 x width)."""
    context: int | None = None
    """Longest sequence that a fresh model has positions for (default: --block, at least 128)."""
    dropout: float = 0.1
    """Of embeddings, sums and attention weights."""
    dtype: str = "auto"
    """auto (a short probe decides), float32, bfloat16 (autocast) or float64."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 lets the probe decide."""

    def __post_init__(self) -> None:
        at_least(self, layers=1, width=1, heads=1, inner=1, context=8, threads=0, dropout=0)
        if self.dropout >= 1:
            raise UsageError(f"--dropout {self.dropout:g}: nothing would be left; it must be below 1.")
        if self.width % self.heads:
            raise UsageError(f"--width {self.width} is not a multiple of --heads {self.heads}.")


@dataclass(frozen=True)
class EncoderOptimiserOptions:
    """Batches and AdamW."""

    batch_size: int = 64
    """Pairs per step."""
    block: int = 128
    """Longest sequence of a pair, its three special tokens counted."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: str = "linear"
    """constant, linear, cosine, wsd (a linear fall over the last fifth) or inverse_sqrt."""
    warmup: int = 200
    """Steps of linear warm-up."""
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
        at_least(self, batch_size=1, block=8, learning_rate=0, warmup=0, floor=0, max_grad_norm=0)
        at_least(self, weight_decay=0, token_budget=1)
        optimisation(self)


@dataclass(frozen=True)
class BertRunConfig:
    """Everything the recipe bert can be told."""

    documents: DocumentOptions = field(default_factory=DocumentOptions)
    model: EncoderOptions = field(default_factory=EncoderOptions)
    optimiser: EncoderOptimiserOptions = field(default_factory=EncoderOptimiserOptions)
    run: RunOptions = field(default_factory=RunOptions)
