"""The names people type, each loaded when it is first used; `import lineal` itself loads nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lineal.errors import (
        CheckpointError,
        DataError,
        LinealError,
        ModelError,
        RewardError,
        RunError,
        UsageError,
    )
    from lineal.types import Completion, Rollout, Scores

__version__ = "0.1.0"

_HOME: dict[str, tuple[str, ...]] = {
    "lineal.errors": (
        "CheckpointError",
        "DataError",
        "LinealError",
        "ModelError",
        "RewardError",
        "RunError",
        "UsageError",
    ),
    "lineal.types": ("Completion", "Rollout", "Scores"),
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
