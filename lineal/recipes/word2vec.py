"""word2vec (Mikolov et al., 2013): vectors of words from the words near them."""

from typing import Any

from lineal.recipes.config import Paper, Word2VecConfig, with_options

PAPER = Paper(
    year=2013,
    title="Distributed representations of words and phrases and their compositionality",
    url="https://arxiv.org/abs/1310.4546",
    departures=(
        "As in the authors' program and in gensim, the vector of a word of the window predicts the word in its middle; the "
        "paper writes it the other way round, which gives the same pairs.",
        "Every row of a step is read before one is written, so that a step is the gradient of its loss exactly; the authors' "
        "program updates a negative word that was drawn twice in sequence.",
        "The sigmoid is computed; the authors' program and gensim look it up in a table of 1000 values and, in gensim and "
        "under the hierarchical softmax, leave out products beyond 6.",
        "With --model cbow a word gets its share of the gradient, 1/n of n words (as in gensim); the authors' program adds the "
        "whole to each.",
        "With --subwords each part of a word gets the whole of the gradient, and the word is the mean of its parts, as in "
        "fastText's program; the paper (Bojanowski et al., 2017) sums them.",
        "Subsampling keeps words as the authors' program does; --sampling paper is the paper's formula.",
        "Each draw is a hash of (seed, epoch, place in the text), so that a run goes on in the middle of an epoch exactly.",
        "The learning rate falls with every sentence; the authors' program looks at it every 10,000 words.",
    ),
)
SUMMARY = "vectors of words: skip-gram or CBOW, negative sampling or a tree"
LOOP = "lineal.recipes.word2vec_loop"
ESSENTIAL = (
    "preset", "data", "words", "min_count", "model", "output", "dim", "window", "negatives", "shared", "sample",
    "subwords", "learning_rate", "epochs", "threads", "seed", "out",
)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "seconds": {"dim": 50, "shared": True, "epochs": 2, "min_count": 2},
    "minutes": {},
    "paper": {"dim": 300, "negatives": 15, "sample": 1e-5, "sampling": "paper", "epochs": 1},
    "paper-tree": {"dim": 300, "output": "tree", "sample": 1e-5, "sampling": "paper", "epochs": 1},
}
"""From seconds to the settings of the paper's table 1 (there on a text of a billion words)."""


def default() -> Word2VecConfig:
    """Skip-gram with 100 dimensions on the user's text."""
    return Word2VecConfig()


def tuned(config: Word2VecConfig) -> Word2VecConfig:
    """The configuration of the preset that `config` names."""
    return with_options(config, **PRESETS[config.vectors.preset])
