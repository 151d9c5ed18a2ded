"""The options of the recipe moe; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.train.options import DataOptions, ModelOptions, OptimiserOptions, RunOptions, at_least, one_of


@dataclass(frozen=True)
class ExpertOptions:
    """The mixture of experts and the losses that keep its experts in use."""

    preset: str = "cpu-10min"
    """seconds, cpu-10min, or a model of the paper: moe-4, moe-32, moe-256, moe-256-h, moe-1024-h, moe-4096-h."""
    body: str = "lstm"
    """Around the experts: lstm (LSTM, mixture, LSTM, as in the paper) or decoder (a Transformer's feed-forward layers)."""
    experts: int = 32
    """Experts of each mixture layer."""
    chosen: int = 4
    """Experts that each token goes to (with groups: groups, and experts of each)."""
    groups: int = 1
    """Groups of the two-level hierarchy; 1 for a flat mixture."""
    gate: str = "noisy_top_k"
    """noisy_top_k (trainable noise while training), top_k (no noise) or softmax (every expert, no choice)."""
    expert_activation: str | None = None
    """relu (the paper's experts) or swiglu (default: relu under lstm, swiglu under decoder)."""
    capacity: float | None = None
    """An expert takes ceil(capacity x choices / experts) tokens of a training batch (default: all that come)."""
    overflow: str = "next"
    """Tokens whose expert is full: next (to their next best expert with room) or around (past the layer)."""
    importance_weight: float = 0.1
    """Weight of the importance loss, CV squared of the experts' summed gates."""
    load_weight: float = 0.1
    """Weight of the load loss, CV squared of the smooth estimate of tokens per expert; needs noisy_top_k."""
    expert_rate: float | None = None
    """Learning rate of the experts, as a share of the others' (default: sqrt(tokens that an expert gets / all tokens))."""
    expert_parallel: bool = False
    """Under torchrun: each process holds a part of the experts, and tokens travel to them."""

    def __post_init__(self) -> None:
        at_least(self, experts=1, chosen=1, groups=1, expert_rate=0)
        one_of(self, body=BODIES, preset=PRESETS)


BODIES = ("lstm", "decoder")
PRESETS = ("seconds", "cpu-10min", "moe-4", "moe-32", "moe-256", "moe-256-h", "moe-1024-h", "moe-4096-h")


@dataclass(frozen=True)
class MixtureConfig:
    """Everything the recipe moe can be told."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    experts: ExpertOptions = field(default_factory=ExpertOptions)
    run: RunOptions = field(default_factory=RunOptions)
