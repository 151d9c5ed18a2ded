"""Finds the compiled form of a core: a Python file of this package that Cython compiled when it was installed."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

BUILT = Path(__file__).parent / "_built"
SWITCH = "LINEAL_COMPILED"
"""Set to 0 in the environment, it makes every core run as Python."""


def compiled(core: str) -> ModuleType | None:
    """The module compiled from `core` ("lineal.generate.rows"), or None where it can't be had.

    Of several, the one for the best instruction set that this processor has. None when there was no compiler at install,
    when LINEAL_COMPILED=0, or when the source changed since it was compiled: what is read is then what runs. Install
    again to compile it again.
    """
    if why_not(core):
        return None
    name = core.rsplit(".", 1)[1]
    for form in (*(f"{name}__{level}" for level in instruction_sets()), name):
        try:
            return import_module(f"lineal._built.{form}")
        except ImportError:
            continue
    return None


@cache
def instruction_sets() -> tuple[str, ...]:
    """The levels of x86-64 above the first that are compiled for and that this processor has, the best first."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            # The first processor's flags are in the first page; the whole file is slow on machines with many.
            flags = set(file.read(8192).split("flags", 1)[-1].split("\n", 1)[0].split())
    except OSError:
        return ()
    third = flags >= {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
    fourth = third and flags >= {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    return ("v4", "v3") if fourth else ("v3",) if third else ()


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
    if noted["source"] != _source_hash(*map(_stamp, (source, source.with_suffix(".pxd")))):
        return f"{source.name} changed since it was compiled: install again"
    return ""


def _stamp(path: Path) -> tuple[Path, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_mtime_ns, found.st_size


@cache
def _source_hash(*files: tuple[Path, int, int] | None) -> str:
    """Of a core's source and of its C declarations, if any; read again where one was written to."""
    return hashlib.sha256(b"".join(file[0].read_bytes() for file in files if file)).hexdigest()


def summary() -> str:
    """The compiled cores in use, or why there are none, as `lineal doctor` says it."""
    note = BUILT / "sources.json"
    cores = list(json.loads(note.read_text())) if note.is_file() else []
    used = [core.rsplit(".", 1)[1] for core in cores if not why_not(core)]
    if used:
        return ", ".join(used)
    return "none: " + why_not(cores[0] if cores else "")
