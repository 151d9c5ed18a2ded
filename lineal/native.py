"""Finds the compiled form of a core: a Python file of this package that Cython compiled when it was installed."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

BUILT = Path(__file__).parent / "_built"
SWITCH = "LINEAL_COMPILED"
"""Set to 0 in the environment, it makes every core run as Python."""


def compiled(core: str, instructions: str = "") -> ModuleType | None:
    """The module compiled from `core` ("lineal.generate.rows"), or None where it can't be had.

    instructions: which of several, such as "v3" for x86-64-v3; a processor without them would stop at the first.
    None when there was no compiler at install, when LINEAL_COMPILED=0, or when the source changed since it was
    compiled: what is read is then what runs. Install again to compile it again.
    """
    if why_not(core):
        return None
    name = core.rsplit(".", 1)[1] + (f"__{instructions}" if instructions else "")
    try:
        return import_module(f"lineal._built.{name}")
    except ImportError:
        return None


def why_not(core: str) -> str:
    """Why the compiled form of a core is not used; empty when it is."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    note = BUILT / "sources.json"
    if not note.is_file():
        return "nothing was compiled at install (no C compiler?)"
    source = Path(__file__).parent.joinpath(*core.split(".")[1:]).with_suffix(".py")
    noted = json.loads(note.read_text()).get(core)
    if noted is None:
        return "it could not be compiled at install"
    if noted["source"] != hashlib.sha256(source.read_bytes()).hexdigest():
        return f"{source.name} changed since it was compiled: install again"
    return ""


def summary() -> str:
    """The compiled cores in use, or why there are none, as `lineal doctor` says it."""
    note = BUILT / "sources.json"
    cores = list(json.loads(note.read_text())) if note.is_file() else []
    used = [core.rsplit(".", 1)[1] for core in cores if not why_not(core)]
    if used:
        return ", ".join(used)
    return "none: " + why_not(cores[0] if cores else "")
