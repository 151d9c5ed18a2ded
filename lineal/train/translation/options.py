"""The options of a translation run; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.errors import UsageError
from lineal.train.options import at_least, optimisation


@dataclass(frozen=True)
class TransformerOptions:
    """The shape of the encoder-decoder, and where it runs."""

    preset: str = "tiny"
    """tiny, multi30k, base or big: the shape, and the batches, rates and steps that go with it."""
    encoder_layers: int = 1
    """Layers of the encoder."""
    decoder_layers: int = 1
    """Layers of the decoder."""
    width: int = 64
    """Width of the model."""
    inner: int = 128
    """Inner width of the feed-forward layers."""
    heads: int = 4
    """Attention heads."""
    dropout: float = 0.1
    """Dropout on the output of each sublayer, and on embeddings plus positions."""
    attention_dropout: float = 0.0
    """Dropout on attention weights (not in the paper)."""
    context: int = 1024
    """Longest source or target that the model takes, in subwords."""
    dtype: str = "auto"
    """auto (a short probe decides), float32, bfloat16 (autocast) or float64."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 lets the probe decide."""

    def __post_init__(self) -> None:
        at_least(self, encoder_layers=1, decoder_layers=1, width=2, inner=1, heads=1, context=2, threads=0)
        at_least(self, dropout=0, attention_dropout=0)
        for name in ("dropout", "attention_dropout"):
            if getattr(self, name) >= 1:
                flag = "--" + name.replace("_", "-")
                raise UsageError(
                    f"{flag} {getattr(self, name):g}: nothing would be left; it must be below 1."
                )
        if self.width % self.heads or self.width % 2:
            raise UsageError(f"--width {self.width} must be even and a multiple of --heads {self.heads}.")


@dataclass(frozen=True)
class PairOptions:
    """Which pairs of sentences, and which of them are left out."""

    source_file: str | None = None
    """Sentences to translate, one a line (.gz read as it is); without it: a made-up task, copying numbers."""
    target_file: str | None = None
    """Their translations, line by line."""
    pairs: str | None = None
    """Or one file: lines of source<TAB>target (.tsv, .txt), or rows with the columns source and target (.jsonl, .csv, .parquet)."""
    valid_source: str | None = None
    """Validation sentences; without them a share of the training pairs is held out."""
    valid_target: str | None = None
    """Their translations."""
    test_source: str | None = None
    """Sentences translated once at the end (default: the validation sentences)."""
    test_target: str | None = None
    """Their translations."""
    held_out: float = 0.02
    """Share of the training pairs held out where no validation files are given (at most 2,000 pairs)."""
    max_tokens: int = 256
    """Training pairs with a longer side, in subwords, are left out."""
    max_ratio: float = 3.0
    """Training pairs one side of which is so many times as long as the other, both counted in subwords and 5 more, are left out."""
    limit: int = 0
    """Read at most this many training pairs; 0 reads all."""
    on_bad_row: str = "error"
    """error, skip or warn: what a line that is no text does."""
    subwords: str = "bpe"
    """bpe (bytes) or unigram, learned from both sides together; or a folder with a tokenizer."""
    vocab_size: int = 10000
    """Subwords in the joint vocabulary."""
    target_language: str = "en"
    """Code of the target language, by which tokenised BLEU cuts words."""

    def __post_init__(self) -> None:
        at_least(self, held_out=0, max_tokens=1, max_ratio=1, limit=0, vocab_size=8)
        if not self.held_out < 1:
            raise UsageError(
                f"--held-out {self.held_out:g}: nothing would be left to train on; it must be below 1."
            )


@dataclass(frozen=True)
class TeachingOptions:
    """Batches, loss and Adam."""

    batch_tokens: int = 1024
    """Most tokens of either side of a batch, padding included."""
    token_budget: int = 16384
    """Most tokens of either side of one micro-batch; the gradient does not depend on it."""
    smoothing: float = 0.1
    """Label smoothing ε."""
    schedule: str = "noam"
    """noam (the paper's), constant, linear, cosine or wsd."""
    learning_rate: float = 1.0
    """noam: a factor, 1 in the paper; of the other schedules: the peak."""
    warmup: int = 4000
    """Steps of linear warm-up."""
    beta1: float = 0.9
    """Adam's first decay."""
    beta2: float = 0.98
    """Adam's second decay."""
    epsilon: float = 1e-9
    """Adam's ε."""
    weight_decay: float = 0.0
    """Decoupled weight decay, on matrices only; the paper has none."""
    max_grad_norm: float = 0.0
    """Global gradient clip; 0 turns it off, as in the paper."""
    average: int = 5
    """Final weights are the mean of the last so many snapshots; 1 takes the last weights."""
    snapshot_every: int = 100
    """Steps between two snapshots of the weights."""
    final: str = "average"
    """average, last or best (by validation loss): the weights of final/."""

    def __post_init__(self) -> None:
        at_least(self, batch_tokens=1, token_budget=1, smoothing=0, learning_rate=0, warmup=1, weight_decay=0)
        at_least(self, max_grad_norm=0, average=1, snapshot_every=1)
        optimisation(self, "noam")
        if not self.epsilon > 0:
            raise UsageError(f"--epsilon {self.epsilon:g}: it must be above 0.")
        if self.smoothing >= 1:
            raise UsageError(
                f"--smoothing {self.smoothing:g}: nothing would be left for the right word; stay below 1."
            )
        if self.final not in ("average", "last", "best"):
            raise UsageError(f"--final {self.final} is none of average, last and best.")


@dataclass(frozen=True)
class BeamOptions:
    """How sentences are translated."""

    beams: int = 4
    """Hypotheses kept; 1 is greedy."""
    length_penalty: float = 0.6
    """alpha in sum logp / length^alpha."""
    max_new_tokens: int = 256
    """Longest translation in subwords; at most 50 more than the source has."""
    max_batch: int = 320
    """Most hypotheses decoded at once."""

    def __post_init__(self) -> None:
        at_least(self, beams=1, length_penalty=0, max_new_tokens=1, max_batch=1)


@dataclass(frozen=True)
class TranslationRunOptions:
    """The run folder: how long, how often, from which seed."""

    out: str | None = None
    """The run folder (default: runs/transformer-N)."""
    steps: int = 300
    """Steps to take."""
    seed: int = 0
    """Seed of initialisation, order of data and dropout."""
    save_every: int = 100
    """Checkpoint every N steps (the last step is always saved)."""
    keep_last: int = 2
    """Checkpoints kept."""
    keep_every: int = 0
    """Also keep every checkpoint whose step is a multiple of this; 0 for none."""
    eval_every: int = 100
    """Validate every N steps: loss, and BLEU of greedy translations; 0 only at the end."""
    eval_sentences: int = 500
    """Validation sentences translated on the way; the end takes all."""
    time_limit: float = 0.0
    """Stop (cleanly, with a final model) after this many seconds of training; 0 for no limit."""
    token_limit: int = 0
    """Stop after this many target tokens; 0 for no limit."""
    quiet: bool = False
    """Print no progress."""

    def __post_init__(self) -> None:
        at_least(self, steps=1, save_every=1, keep_last=1, keep_every=0, eval_every=0, eval_sentences=1)
        at_least(self, time_limit=0, token_limit=0)


@dataclass(frozen=True)
class TranslationConfig:
    """Everything `lineal run transformer` can be told."""

    model: TransformerOptions = field(default_factory=TransformerOptions)
    data: PairOptions = field(default_factory=PairOptions)
    optimiser: TeachingOptions = field(default_factory=TeachingOptions)
    decoding: BeamOptions = field(default_factory=BeamOptions)
    run: TranslationRunOptions = field(default_factory=TranslationRunOptions)
