"""GloVe (Pennington et al., 2014): vectors of words from how often they are near each other."""

from typing import Any

from lineal.recipes.config import GloveConfig, Paper, with_options

PAPER = Paper(
    year=2014,
    title="GloVe: global vectors for word representation",
    url="https://aclanthology.org/D14-1162/",
    departures=(
        "Each loss is halved, AdaGrad divides by what it had summed before the step, the sum starts at 1 and is of gradients "
        "times the learning rate, as in the authors' program.",
        "Vectors are float32 (the authors' program: float64), and biases start at 0.",
        "Co-occurrences are summed in units of 2^-28, so that their sums do not depend on the order of summing.",
        "They are learned in an order that is drawn once from their hashes, the same in every epoch, as in the authors' program.",
    ),
)
SUMMARY = "vectors of words from their co-occurrences, weighted least squares"
LOOP = "lineal.recipes.glove_loop"
ESSENTIAL = (
    "preset", "data", "words", "min_count", "dim", "window", "symmetric", "x_max", "alpha", "learning_rate", "epochs",
    "memory", "threads", "seed", "out",
)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "seconds": {"dim": 50, "window": 5, "epochs": 5, "min_count": 2, "x_max": 10.0},
    "minutes": {},
    "paper": {"dim": 300, "epochs": 100, "max_words": 400_000},
}
"""From seconds to the settings of the paper's section 4.2 (there on texts of 6 billion words and more)."""


def default() -> GloveConfig:
    """100 dimensions, window 10, on the user's text."""
    return GloveConfig()


def tuned(config: GloveConfig) -> GloveConfig:
    """The configuration of the preset that `config` names."""
    return with_options(config, **PRESETS[config.vectors.preset])
