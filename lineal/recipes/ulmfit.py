"""ULMFiT (Howard and Ruder, 2018): a language model on a general corpus, tuned on the target's text, then a classifier."""

from typing import Any

from lineal.recipes.config import Paper, ULMFiTConfig, with_options

PAPER = Paper(
    year=2018,
    title="Universal language model fine-tuning for text classification",
    url="https://arxiv.org/abs/1801.06146",
    departures=(
        "The three stages are three runs, each begun from the one before (--model): each resumes, and is used, by itself.",
        "Words are lower-cased and cut at punctuation; the tokens that the authors add for upper case, repeated characters "
        "and repeated words are left out.",
        "A document's pieces share one set of dropout masks, so that reading it in pieces is reading it in one pass; the "
        "authors draw new ones for each piece.",
        "Where gradients stop before a document's beginning, the pooled states before that point still count.",
        "Documents of a step are grouped by length; the head's batch norm sees all of them at once.",
        "Weight decay is decoupled from the gradient (AdamW).",
        "Forward and backward models train in one run, and their probabilities are averaged.",
        "The presets below paper have sizes, rates and vocabularies of their own.",
    ),
)
SUMMARY = "ULMFiT: language model, tuned on your text, then a classifier (AWD-LSTM)"
LOOP = "lineal.recipes.ulmfit_loop"
ESSENTIAL = (
    "stage", "preset", "model", "data", "eval_data", "text_field", "label_field", "limit", "vocab_size", "directions",
    "width", "hidden", "layers", "dropout_scale", "epochs", "learning_rate", "discriminative", "schedule", "unfreeze",
    "pooling", "fresh", "batch_size", "block", "steps", "time_limit", "seed", "out",
)  # fmt: skip

_SECONDS: dict[str, Any] = {
    "width": 24, "hidden": 32, "layers": 2, "vocab_size": 400, "min_frequency": 1, "batch_size": 8, "block": 20,
    "dropout_scale": 0.3, "save_every": 20, "backward_tokens": 200, "head_width": 12,
}  # fmt: skip
_CPU: dict[str, Any] = {
    "width": 200, "hidden": 400, "layers": 2, "vocab_size": 12_000, "batch_size": 32, "dropout_scale": 0.3,
    "save_every": 200, "head_width": 50,
}  # fmt: skip
_GPU: dict[str, Any] = {"width": 400, "hidden": 1150, "layers": 3, "vocab_size": 30_000, "save_every": 500}
_PAPER: dict[str, Any] = {**_GPU, "vocab_size": 60_000, "batch_size": 64, "save_every": 1000}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "seconds": {
        "lm": {**_SECONDS, "epochs": 2.0, "learning_rate": 1e-2},
        "tune": {**_SECONDS, "epochs": 2.0, "learning_rate": 8e-3},
        "classify": {**_SECONDS, "epochs": 4.0, "learning_rate": 2e-2},
    },
    "cpu-30min": {
        "lm": {**_CPU, "epochs": 1.0, "learning_rate": 4e-3, "eval_every": 500, "time_limit": 1740.0, "held_out": 0.02},
        "tune": {**_CPU, "epochs": 2.0, "learning_rate": 4e-3, "eval_every": 500, "held_out": 0.05},
        "classify": {**_CPU, "epochs": 6.0, "learning_rate": 1e-2, "block": 140, "dropout_scale": 0.5},
    },
    "gpu": {
        "lm": {**_GPU, "batch_size": 128, "epochs": 10.0, "dropout_scale": 0.4, "eval_every": 2000},
        "tune": {**_GPU, "batch_size": 128, "epochs": 8.0, "dropout_scale": 0.6, "eval_every": 1000},
        "classify": {**_GPU, "batch_size": 64, "epochs": 8.0, "learning_rate": 1e-2, "token_budget": 65_536},
    },
    "paper": {
        "lm": {**_PAPER, "epochs": 14.0, "learning_rate": 4e-3, "eval_every": 5000},
        "tune": {**_PAPER, "epochs": 15.0, "learning_rate": 4e-3, "eval_every": 1000},
        "classify": {**_PAPER, "epochs": 50.0, "learning_rate": 1e-2, "token_budget": 65_536},
    },
}  # fmt: skip
"""What a size brings to each stage, from seconds to the paper's 3 layers of 1150 (WikiText-103: 103 million words)."""


def default() -> ULMFiTConfig:
    """Stage lm in the preset of thirty minutes on two cores."""
    return tuned(ULMFiTConfig())


def tuned(config: ULMFiTConfig) -> ULMFiTConfig:
    """The configuration of the preset and the stage that `config` names."""
    stage, preset = config.stage.stage, config.stage.preset
    # Of a language model from nothing all layers learn at one rate.
    one = {"discriminative": 1.0} if stage == "lm" else {}
    return with_options(ULMFiTConfig(), stage=stage, preset=preset, **one, **PRESETS[preset][stage])
