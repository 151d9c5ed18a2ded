"""BERT (Devlin et al., 2018): pre-training of an encoder on raw documents, by hidden words and by what follows."""

from typing import Any

from lineal.recipes.config import BertRunConfig, Paper, with_options

PAPER = Paper(
    year=2018,
    title="BERT: pre-training of deep bidirectional transformers for language understanding",
    url="https://arxiv.org/abs/1810.04805",
    departures=(
        "Pairs and masks are new in each epoch; --duplicates 10 makes ten versions in advance, as the authors' code does.",
        "A sentence that stands alone makes no pair, so that half of the pairs are true ones; the authors' code pairs it with "
        "a random sentence and has more of those.",
        "Batches are made of pairs of like length; the paper pads all to 512, and 90 % of its steps to 128.",
        "At most 15 % of a sequence is hidden; the authors' code also sets a limit of 20 pieces (--most-masked 20).",
        "A random word that stands in for a hidden one is never a special token; in the authors' code it may be.",
        "Decay is decoupled and Adam's moments are corrected for their start (AdamW); the authors' optimiser does not correct "
        "them. Decay applies to embeddings too, and to no bias and no gain.",
        "The presets below base have sizes, rates and vocabularies of their own; base and large train on sequences of one "
        "length, the paper on 128 tokens first and 512 for the last tenth: two runs, the second with --model.",
    ),
)
SUMMARY = "BERT: pre-train an encoder on raw documents"
LOOP = "lineal.recipes.bert_loop"
ESSENTIAL = (
    "preset", "data", "eval_data", "cut", "document_words", "vocab_size", "whole_words", "duplicates", "model", "tokenizer",
    "layers", "width", "heads", "batch_size", "block", "learning_rate", "warmup", "steps", "time_limit", "seed", "out",
)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "seconds": {
        "layers": 2, "width": 64, "heads": 2, "block": 48, "batch_size": 16, "vocab_size": 500, "steps": 60, "warmup": 10,
        "learning_rate": 3e-3, "save_every": 30, "dropout": 0.0,
    },
    "cpu-30min": {
        "layers": 4, "width": 256, "heads": 4, "block": 96, "batch_size": 48, "vocab_size": 8000, "steps": 3600,
        "warmup": 500, "learning_rate": 1e-3, "dropout": 0.0, "save_every": 500, "eval_every": 1000, "time_limit": 1800.0,
    },
    "base": {
        "layers": 12, "width": 768, "heads": 12, "block": 128, "context": 512, "batch_size": 256, "vocab_size": 30_522,
        "steps": 1_000_000, "warmup": 10_000, "learning_rate": 1e-4, "dropout": 0.1, "save_every": 5000,
        "eval_every": 20_000, "token_budget": 32_768,
    },
    "large": {
        "layers": 24, "width": 1024, "heads": 16, "block": 128, "context": 512, "batch_size": 256, "vocab_size": 30_522,
        "steps": 1_000_000, "warmup": 10_000, "learning_rate": 1e-4, "dropout": 0.1, "save_every": 5000,
        "eval_every": 20_000, "token_budget": 16_384,
    },
}  # fmt: skip
"""What a size brings with it, from seconds to the paper's 110 and 340 million parameters."""


def default() -> BertRunConfig:
    """The preset of thirty minutes on two cores, on the user's documents."""
    return tuned(BertRunConfig())


def tuned(config: BertRunConfig) -> BertRunConfig:
    """The configuration of the preset that `config` names."""
    name = config.documents.preset
    return with_options(BertRunConfig(), preset=name, **PRESETS[name])
