"""The names people type, each loaded when it is first used; `import lineal` itself loads nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lineal.environments.control.opening import open_environment
    from lineal.environments.scoring import Scorer
    from lineal.environments.text import Example, TextTask
    from lineal.errors import (
        CheckpointError,
        DataError,
        LinealError,
        ModelError,
        NonFiniteError,
        RewardError,
        RunError,
        UsageError,
    )
    from lineal.generate.sampling import Sampling
    from lineal.models.decoder import Decoder, DecoderConfig
    from lineal.models.hf import load_model, save_model
    from lineal.objectives.advantage import GAE, FullReturn, GroupMean, GroupNormalised, RewardToGo
    from lineal.objectives.algorithm import (
        Adam,
        Algorithm,
        AlgorithmState,
        Batch,
        Critic,
        Group,
        NaturalGradient,
        TrustRegion,
        needs,
        objective,
        override,
        prepare,
        split,
    )
    from lineal.objectives.penalty import AdaptiveKL, Entropy, OldKL, ReferenceKL
    from lineal.objectives.policy import ALGORITHMS, named
    from lineal.objectives.ratio import NoRatio, SequenceRatio, SequenceTokenRatio, TokenRatio
    from lineal.objectives.reduction import PerBudget, PerPromptToken, PerSequence, PerToken, PlainSum
    from lineal.objectives.surrogate import Clip, ClippedWeight, Linear, LogLikelihood
    from lineal.tokenizers import ByteTokenizer, CharTokenizer, HFTokenizer, load_tokenizer
    from lineal.train.control.evaluate import run_episodes
    from lineal.train.control.files import load_policy
    from lineal.train.preferences.labels import LabelStore
    from lineal.train.run import Run
    from lineal.types import Completion, Rollout, Scores

__version__ = "0.1.0"

_HOME: dict[str, tuple[str, ...]] = {
    "lineal.errors": (
        "CheckpointError",
        "DataError",
        "LinealError",
        "ModelError",
        "NonFiniteError",
        "RewardError",
        "RunError",
        "UsageError",
    ),
    "lineal.types": (
        "Completion",
        "Rollout",
        "Scores",
    ),
    "lineal.tokenizers": (
        "ByteTokenizer",
        "CharTokenizer",
        "HFTokenizer",
        "load_tokenizer",
    ),
    "lineal.models.decoder": (
        "Decoder",
        "DecoderConfig",
    ),
    "lineal.models.hf": (
        "load_model",
        "save_model",
    ),
    "lineal.objectives.algorithm": (
        "Adam",
        "Algorithm",
        "AlgorithmState",
        "Batch",
        "Critic",
        "Group",
        "NaturalGradient",
        "TrustRegion",
        "needs",
        "objective",
        "override",
        "prepare",
        "split",
    ),
    "lineal.objectives.advantage": (
        "GAE",
        "FullReturn",
        "GroupMean",
        "GroupNormalised",
        "RewardToGo",
    ),
    "lineal.objectives.ratio": (
        "NoRatio",
        "SequenceRatio",
        "SequenceTokenRatio",
        "TokenRatio",
    ),
    "lineal.objectives.surrogate": (
        "Clip",
        "ClippedWeight",
        "Linear",
        "LogLikelihood",
    ),
    "lineal.objectives.reduction": (
        "PerBudget",
        "PerPromptToken",
        "PerSequence",
        "PerToken",
        "PlainSum",
    ),
    "lineal.objectives.penalty": (
        "AdaptiveKL",
        "Entropy",
        "OldKL",
        "ReferenceKL",
    ),
    "lineal.objectives.policy": (
        "ALGORITHMS",
        "named",
    ),
    "lineal.environments.text": (
        "Example",
        "TextTask",
    ),
    "lineal.environments.scoring": ("Scorer",),
    "lineal.environments.control.opening": ("open_environment",),
    "lineal.train.control.files": ("load_policy",),
    "lineal.train.control.evaluate": ("run_episodes",),
    "lineal.train.preferences.labels": ("LabelStore",),
    "lineal.generate.sampling": ("Sampling",),
    "lineal.train.run": ("Run",),
}

__all__ = sorted(name for names in _HOME.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'lineal' has no attribute {name!r}; there are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
