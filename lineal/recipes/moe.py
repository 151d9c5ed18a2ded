"""The sparsely gated mixture of experts (Shazeer et al., 2017), in its LSTM language model and in a decoder."""

from typing import Any

from lineal.recipes.config import MixtureConfig, Paper, with_options

PAPER = Paper(
    year=2017,
    title="Outrageously large neural networks: the sparsely-gated mixture-of-experts layer",
    url="https://arxiv.org/abs/1701.06538",
    departures=(
        "Text is read in windows drawn by a counter-based hash, the LSTM's state starting at zero in each; the paper "
        "reads shuffled sentences of the 1-billion-word corpus.",
        "The softmax over the vocabulary is computed whole; the paper samples it by importance.",
        "The balance losses are taken over a micro-batch of all processes (--token-budget), which is the whole batch "
        "unless that does not fit: CV squared is no sum over tokens.",
        "Capacity limits apply to training batches only: when a model is evaluated, sampled from or scored, every expert "
        "takes all tokens that come, so that a token's result does not depend on the others in its batch.",
        "Gates compute in float32 (or float64) whatever the precision around them.",
        "Adam decays matrices (decoupled, AdamW) only where a preset or an option says so; the paper's has no decay.",
        "Experts learn at sqrt(active / experts) times the rate of all else (--expert-rate), for each sees so many fewer tokens; the "
        "paper's presets keep one rate.",
        "With two levels, a token whose expert is full asks the next best expert of the same group.",
    ),
)
SUMMARY = "a sparsely gated mixture of experts, in an LSTM or a decoder"
LOOP = "lineal.recipes.moe_loop"
ESSENTIAL = (
    "preset", "body", "data", "tokenizer", "experts", "chosen", "groups", "gate", "capacity", "overflow",
    "importance_weight", "load_weight", "width", "inner", "dropout", "batch_size", "block", "learning_rate", "steps",
    "seed", "out",
)  # fmt: skip

_PAPER: dict[str, Any] = {
    "width": 512, "inner": 1024, "dropout": 0.1, "chosen": 4, "batch_size": 6000, "block": 50, "learning_rate": 1e-3,
    "schedule": "inverse_sqrt", "warmup": 1000, "steps": 27_000, "weight_decay": 0.0, "beta2": 0.999, "save_every": 1000,
    "expert_rate": 1.0,
}  # fmt: skip
_TWO_LEVELS: dict[str, Any] = {**_PAPER, "groups": 16, "chosen": 2}

PRESETS: dict[str, dict[str, Any]] = {
    "seconds": {
        "width": 32, "inner": 32, "experts": 8, "chosen": 2, "batch_size": 16, "block": 32, "steps": 60, "warmup": 5,
        "learning_rate": 1e-2, "save_every": 30,
    },
    "cpu-10min": {
        "width": 128, "inner": 512, "chosen": 4, "layers": 2, "batch_size": 64, "block": 32, "steps": 4500,
        "warmup": 100, "learning_rate": 12e-3, "schedule": "cosine", "weight_decay": 0.0, "save_every": 500,
        "eval_every": 500,
    },
    "moe-4": {**_PAPER, "experts": 4},
    "moe-32": {**_PAPER, "experts": 32},
    "moe-256": {**_PAPER, "experts": 256},
    "moe-256-h": {**_TWO_LEVELS, "experts": 256},
    "moe-1024-h": {**_TWO_LEVELS, "experts": 1024, "dropout": 0.2},
    "moe-4096-h": {**_TWO_LEVELS, "experts": 4096, "dropout": 0.2},
}  # fmt: skip
"""From seconds on a laptop to the paper's ladder: every model of it does 8 million multiplications for a token."""


def default() -> MixtureConfig:
    """The ten-minute setting on the user's text file."""
    return tuned(with_options(MixtureConfig(), prompt_field="text", held_out=0.05))


def tuned(config: MixtureConfig) -> MixtureConfig:
    """The configuration of the preset that `config` names."""
    return with_options(config, **PRESETS[config.experts.preset])
