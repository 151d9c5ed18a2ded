"""Which versions of what a run was made with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

DECISIVE = ("lineal", "python", "torch")
"""Those that can change a result bit for bit."""
CORE = ("lineal", "torch", "numpy", "safetensors")
EXTRAS = ("transformers", "tokenizers", "datasets")


def package_version(name: str) -> str | None:
    """The installed version of a package, without importing it; None when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Versions of Python, the core packages and the extras; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {name: package_version(name) for name in CORE + EXTRAS}


def changed_versions(recorded: Mapping[str, str | None]) -> list[str]:
    """One phrase for each decisive version that is not the recorded one: "torch 2.12.0, now 2.13.0"."""
    current = versions()
    return [
        f"{name} {recorded[name]}, now {current[name]}"
        for name in DECISIVE
        if name in recorded and recorded[name] != current[name]
    ]
