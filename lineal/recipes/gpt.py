"""GPT-1 (Radford et al., 2018): generative pre-training of a decoder on plain text."""

from typing import Any

from lineal.recipes.config import GPTConfig, Paper, with_options

PAPER = Paper(
    year=2018,
    title="Improving language understanding by generative pre-training",
    url="https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf",
    departures=(
        "An epoch is as many randomly placed sequences as cover the text once; which ones is a counter-based hash of "
        "(seed, step, row), so that a run resumes exactly.",
        "Decay also applies to no bias and no gain, as in the paper, and is decoupled from the gradient (AdamW).",
        "Gradients are clipped to norm 1, which the paper does not mention and its code does in fine-tuning.",
        "Text is not cleaned unless --clean paper asks for ftfy and spaCy; lower case and BERT's cutting into words stand in "
        "for them, as in transformers.",
        "GELU is the tanh form, which the authors' code computes.",
        "The presets below paper have sizes, rates and vocabularies of their own.",
    ),
)
SUMMARY = "GPT-1: pre-train a decoder on plain text, from the raw file on"
LOOP = "lineal.recipes.gpt_loop"
ESSENTIAL = (
    "preset", "data", "eval_data", "clean", "vocab_size", "epochs", "tokenizer", "layers", "width", "heads", "dropout",
    "batch_size", "block", "learning_rate", "warmup", "steps", "time_limit", "seed", "out",
)  # fmt: skip

_SMALL: dict[str, Any] = {
    "layout": "openai-gpt", "dropout": 0.1, "schedule": "cosine", "floor": 0.0, "weight_decay": 0.01, "beta2": 0.999,
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "seconds": {
        **_SMALL, "layers": 2, "width": 64, "heads": 2, "block": 32, "batch_size": 16, "vocab_size": 400, "steps": 60,
        "warmup": 10, "learning_rate": 3e-3, "save_every": 30,
    },
    "cpu-20min": {
        **_SMALL, "layers": 4, "width": 256, "heads": 4, "block": 128, "batch_size": 16, "vocab_size": 8000, "steps": 3000,
        "warmup": 200, "learning_rate": 1e-3, "save_every": 250, "eval_every": 500, "time_limit": 1200.0,
    },
    "gpu-small": {
        **_SMALL, "layers": 8, "width": 512, "heads": 8, "block": 256, "batch_size": 64, "vocab_size": 16_000,
        "steps": 20_000, "warmup": 1000, "learning_rate": 5e-4, "save_every": 1000, "eval_every": 1000,
        "token_budget": 65_536,
    },
    "paper": {
        **_SMALL, "layers": 12, "width": 768, "heads": 12, "block": 512, "batch_size": 64, "vocab_size": 40_478,
        "epochs": 100.0, "warmup": 2000, "learning_rate": 2.5e-4, "clean": "paper", "save_every": 2000,
        "eval_every": 10_000, "token_budget": 32_768,
    },
}  # fmt: skip
"""What a size brings with it, from seconds to the paper's 117 million parameters."""


def default() -> GPTConfig:
    """The preset of twenty minutes on two cores, on the user's text file."""
    return tuned(GPTConfig())


def tuned(config: GPTConfig) -> GPTConfig:
    """The configuration of the preset that `config` names."""
    name = config.corpus.preset
    return with_options(GPTConfig(), preset=name, **PRESETS[name])
