"""ELMo (Peters et al., 2018): a forward and a backward language model over characters, as features for any task."""

from typing import Any

from lineal.recipes.config import ElmoRecipeConfig, Paper, with_options

PAPER = Paper(
    year=2018,
    title="Deep contextualized word representations",
    url="https://arxiv.org/abs/1802.05365",
    departures=(
        "The backward model reads the corpus from its end, not each sentence from its end: its state is carried just as the "
        "forward one's.",
        "The sampled softmax makes a fixed number of draws, of which equal ones count once; the authors draw until they have so "
        "many different words.",
        "A word's characters are read once per step and type, however often the word occurs.",
        "Dropout is applied to every layer's input, drawn anew at each step of time.",
        "Cells and outputs are not clipped unless --clip asks for it (the authors' code clips at 3; preset paper does).",
        "A layer under layer norm is normalised over its own numbers, word by word; the authors' code does it over a batch.",
        "The presets below paper have sizes, rates and vocabularies of their own, and Adam in place of Adagrad.",
    ),
)
SUMMARY = "ELMo: language models in both directions over characters, as features"
LOOP = "lineal.recipes.elmo_loop"
ESSENTIAL = (
    "preset", "data", "eval_data", "vocab_size", "samples", "projection", "cells", "layers", "dropout", "epochs",
    "batch_size", "block", "learning_rate", "method", "steps", "time_limit", "seed", "out",
)  # fmt: skip

_COMMON: dict[str, Any] = {
    "vary_block": False, "discriminative": 1.0, "schedule": "cosine", "beta1": 0.9, "beta2": 0.99, "max_grad_norm": 1.0,
    "activation_penalty": 0.0, "temporal_penalty": 0.0,
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "seconds": {
        **_COMMON, "vocab_size": 300, "samples": 64, "projection": 12, "cells": 24, "filter_widths": (1, 2, 3),
        "filter_counts": (8, 8, 16), "character_width": 8, "batch_size": 8, "block": 12, "epochs": 2.0,
        "learning_rate": 5e-3, "save_every": 20, "held_out": 0.1,
    },
    "cpu-30min": {
        **_COMMON, "vocab_size": 20_000, "samples": 2048, "projection": 128, "cells": 512, "batch_size": 64, "block": 20,
        "epochs": 0.8, "learning_rate": 2e-3, "save_every": 250, "eval_every": 500, "time_limit": 1740.0,
    },
    "gpu": {
        **_COMMON, "vocab_size": 100_000, "samples": 8192, "projection": 256, "cells": 2048, "highway": 2,
        "filter_widths": (1, 2, 3, 4, 5, 6, 7), "filter_counts": (32, 32, 64, 128, 256, 512, 512), "batch_size": 128,
        "block": 20, "epochs": 5.0, "learning_rate": 1e-3, "save_every": 1000, "eval_every": 2000,
    },
    "paper": {
        **_COMMON, "vocab_size": 793_471, "samples": 8192, "projection": 512, "cells": 4096, "highway": 2, "clip": 3.0,
        "filter_widths": (1, 2, 3, 4, 5, 6, 7), "filter_counts": (32, 32, 64, 128, 256, 512, 1024), "batch_size": 128,
        "block": 20, "epochs": 10.0, "method": "adagrad", "learning_rate": 0.2, "schedule": "constant",
        "max_grad_norm": 10.0, "weight_decay": 0.0, "save_every": 2000, "eval_every": 10_000,
    },
}  # fmt: skip
"""What a size brings with it, from seconds to the paper's."""


def default() -> ElmoRecipeConfig:
    """The preset of thirty minutes on two cores."""
    return tuned(ElmoRecipeConfig())


def tuned(config: ElmoRecipeConfig) -> ElmoRecipeConfig:
    """The configuration of the preset that `config` names."""
    name = config.sentences.preset
    return with_options(ElmoRecipeConfig(), preset=name, **PRESETS[name])
