"""The options of the recipes word2vec and glove; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.errors import UsageError
from lineal.train.options import at_least, one_of

WORD2VEC_PRESETS = ("seconds", "minutes", "paper", "paper-tree")
GLOVE_PRESETS = ("seconds", "minutes", "paper")


@dataclass(frozen=True)
class WordsOptions:
    """The text, how it is cut into words, and which of them are kept."""

    data: str | None = None
    """Text to learn from: TXT, or rows with a column of text; .gz is read as it is; hf:NAME."""
    text_field: str = "text"
    """Name of the text's column."""
    on_bad_row: str = "error"
    """error, skip or warn: what a row that cannot be read does."""
    words: str = "letters"
    """letters (runs of letters and digits, in lower case) or spaces (what stands between spaces, as it is)."""
    across_lines: bool = False
    """Windows go on over line ends, for text in lines of fixed width; they never leave a document."""
    min_count: int = 5
    """Rarer words are left out."""
    max_words: int = 0
    """Keep at most this many words, the most frequent ones; 0 keeps all."""

    def __post_init__(self) -> None:
        at_least(self, min_count=1, max_words=0)
        one_of(self, words=("letters", "spaces"), on_bad_row=("error", "skip", "warn"))


@dataclass(frozen=True)
class Word2VecOptions:
    """What is learned: model, output, and their numbers."""

    preset: str = "minutes"
    """seconds, minutes, paper (300 dimensions, 15 negatives) or paper-tree (300 dimensions, hierarchical softmax)."""
    model: str = "skipgram"
    """skipgram (a word and each word near it) or cbow (a word and the mean of those near it)."""
    output: str = "negative"
    """negative (negative sampling), tree (hierarchical softmax over Huffman's tree) or softmax (whole: small vocabularies)."""
    dim: int = 100
    """Numbers of a vector."""
    window: int = 5
    """Words on each side that count as near."""
    dynamic: bool = True
    """Each place draws its window from 1 to --window, so that nearer words count more."""
    negatives: int = 5
    """Negative words for each pair, or with --shared for each window."""
    shared: bool = False
    """All pairs of a window learn in one step, against one set of negatives: faster, the same quality in our measurements."""
    sample: float = 1e-3
    """Words above this share of the text are subsampled; 0 keeps every occurrence."""
    sampling: str = "code"
    """code (as word2vec.c keeps them) or paper (discarded with probability 1 - sqrt(sample / share))."""
    subwords: bool = False
    """A word is the mean of itself and its n-grams (fastText), so that unseen words have vectors too."""
    min_ngram: int = 3
    """Shortest n-gram of --subwords."""
    max_ngram: int = 6
    """Longest n-gram of --subwords."""
    buckets: int = 2_000_000
    """Rows that n-grams are hashed into."""
    learning_rate: float = 0.025
    """Learning rate at the start."""
    final_rate: float = 1e-4
    """Learning rate at the end; between them it falls in a straight line."""
    epochs: int = 5
    """Passes over the text."""

    def __post_init__(self) -> None:
        at_least(self, dim=1, window=1, negatives=1, sample=0, min_ngram=1, max_ngram=1, buckets=1, epochs=1)
        at_least(self, learning_rate=0, final_rate=0)
        one_of(self, preset=WORD2VEC_PRESETS, model=("skipgram", "cbow"))
        one_of(self, output=("negative", "tree", "softmax"), sampling=("code", "paper"))
        if self.min_ngram > self.max_ngram:
            raise UsageError(
                f"--min-ngram {self.min_ngram} is above --max-ngram {self.max_ngram}: no n-gram would be left."
            )
        if self.shared and self.model == "cbow":
            raise UsageError("--shared --model cbow: cbow takes one step for each window already.")


@dataclass(frozen=True)
class GloveOptions:
    """Co-occurrences, how they are weighted, and the optimiser's numbers."""

    preset: str = "minutes"
    """seconds, minutes, or paper (300 dimensions, 100 epochs)."""
    dim: int = 100
    """Numbers of a vector."""
    window: int = 10
    """Words on each side that count as near; a word at distance d counts 1/d."""
    symmetric: bool = True
    """Words on both sides count; --no-symmetric counts those before a word only."""
    x_max: float = 100.0
    """Co-occurrences from here on have weight 1."""
    alpha: float = 0.75
    """Below x_max the weight is (x / x_max)^alpha."""
    learning_rate: float = 0.05
    """AdaGrad's learning rate."""
    epochs: int = 25
    """Passes over the co-occurrences."""
    memory: int = 512
    """MiB of memory for counting, beyond which counts are spilled to disk and merged."""

    def __post_init__(self) -> None:
        at_least(self, dim=1, window=1, x_max=0, alpha=0, learning_rate=0, epochs=1, memory=1)
        one_of(self, preset=GLOVE_PRESETS)
        if not self.x_max > 0:
            raise UsageError("--x-max 0: the weight (x / x_max)^alpha needs a number above 0.")


@dataclass(frozen=True)
class VectorsRunOptions:
    """The run folder: how often it is saved, by how many threads, from which seed."""

    out: str | None = None
    """The run folder (default: runs/RECIPE-N)."""
    seed: int = 0
    """Seed of the vectors' start and of every draw."""
    threads: int = 1
    """Threads that train without locks; with more than one, no two runs are alike."""
    step_size: int = 0
    """Words (glove: co-occurrences) of a step, after each of which it is logged; 0: a two-hundredth of the run."""
    save_every: int = 20
    """Checkpoint every N steps (the last step is always saved)."""
    keep_last: int = 2
    """Checkpoints kept."""
    keep_every: int = 0
    """Also keep every checkpoint whose step is a multiple of this; 0 for none."""
    time_limit: float = 0.0
    """Stop (cleanly, with final vectors) after this many seconds of training; 0 for no limit."""
    quiet: bool = False
    """Print no progress."""

    def __post_init__(self) -> None:
        at_least(self, threads=1, step_size=0, save_every=1, keep_last=1, keep_every=0, time_limit=0)


@dataclass(frozen=True)
class Word2VecConfig:
    """Everything the recipe word2vec can be told."""

    corpus: WordsOptions = field(default_factory=WordsOptions)
    vectors: Word2VecOptions = field(default_factory=Word2VecOptions)
    run: VectorsRunOptions = field(default_factory=VectorsRunOptions)


@dataclass(frozen=True)
class GloveConfig:
    """Everything the recipe glove can be told."""

    corpus: WordsOptions = field(default_factory=WordsOptions)
    vectors: GloveOptions = field(default_factory=GloveOptions)
    run: VectorsRunOptions = field(default_factory=VectorsRunOptions)
