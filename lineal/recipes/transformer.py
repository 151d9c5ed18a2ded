"""The Transformer (Vaswani et al., 2017): from two aligned text files to a translation model, in one command."""

from __future__ import annotations

from typing import Any

from lineal.errors import UsageError
from lineal.recipes.config import Paper, with_options
from lineal.train.translation.options import TranslationConfig

PAPER = Paper(
    year=2017,
    title="Attention is all you need",
    url="https://arxiv.org/abs/1706.03762",
    departures=(
        "How weights start is not in the paper: Xavier-uniform matrices and embeddings N(0, 1/width), as its code has it.",
        "Label smoothing spreads ε over the whole vocabulary, the right word included (Szegedy et al., 2016); the paper's "
        "code leaves the right word out.",
        "The length penalty is Σ log p / |y|^α with the end token counted; the paper's is Wu et al.'s ((5 + |y|)/6)^α.",
        "A batch holds at most so many tokens of either side, padding included; the paper's holds about so many of each.",
        "The presets tiny and multi30k have schedules of their own: the paper's 100,000 steps would not end there.",
    ),
)
SUMMARY = "translate: an encoder-decoder from two aligned text files"
LOOP = "lineal.recipes.transformer_loop"
ESSENTIAL = (
    "preset", "source_file", "target_file", "pairs", "valid_source", "test_source", "subwords", "vocab_size", "batch_tokens",
    "learning_rate", "warmup", "beams", "steps", "seed", "out",
)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "schedule": "linear", "learning_rate": 4e-3, "warmup": 50,
        "batch_tokens": 512, "steps": 400, "snapshot_every": 10, "average": 3, "eval_every": 200,
    },
    "multi30k": {
        "encoder_layers": 4, "decoder_layers": 4, "width": 128, "inner": 256, "heads": 4, "dropout": 0.3,
        "schedule": "linear", "learning_rate": 2e-3, "warmup": 1000, "batch_tokens": 2048, "steps": 20_000,
        "average": 10, "snapshot_every": 200, "save_every": 500, "eval_every": 1000, "beams": 5, "length_penalty": 1.0,
    },
    "base": {
        "encoder_layers": 6, "decoder_layers": 6, "width": 512, "inner": 2048, "heads": 8, "dropout": 0.1,
        "warmup": 4000, "batch_tokens": 25_000, "vocab_size": 37_000, "steps": 100_000, "average": 5,
        "snapshot_every": 1000, "save_every": 1000, "eval_every": 5000,
    },
    "big": {
        "encoder_layers": 6, "decoder_layers": 6, "width": 1024, "inner": 4096, "heads": 16, "dropout": 0.3,
        "warmup": 4000, "batch_tokens": 25_000, "vocab_size": 37_000, "steps": 300_000, "average": 20,
        "snapshot_every": 1000, "save_every": 1000, "eval_every": 5000,
    },
}  # fmt: skip
"""What a size brings with it: the paper's base and big model; one for Multi30k on two CPU cores; one of seconds."""


def default() -> TranslationConfig:
    """The tiny preset: without files, a made-up task that is learned in seconds."""
    return with_options(TranslationConfig(), **PRESETS["tiny"])


def tuned(asked: TranslationConfig) -> TranslationConfig:
    """The defaults of the preset that is asked for."""
    name = asked.model.preset
    if name not in PRESETS:
        raise UsageError(f"--preset {name} is not one of {', '.join(PRESETS)}.")
    return with_options(TranslationConfig(), preset=name, **PRESETS[name])
