"""Compiles the package's cores when it is built or installed; without a C compiler it installs all the same.

A core is an ordinary Python file that Cython also understands. Its extension modules go to `lineal/_built`, under the
core's name and the instruction set that each was compiled for, beside a note of the sources they were made from;
`lineal/native.py` chooses among them.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-O3", "-fno-strict-aliasing", "-w", "-g0"]


class CompileCores(BuildHookInterface):
    """Hatchling's hook; the cores and their instruction sets stand in pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and make the wheel one of this platform; or say why not, and leave it pure Python."""
        if self.target_name != "wheel":
            return
        built = Path(self.root) / "lineal" / "_built"
        built.mkdir(exist_ok=True)
        for old in built.iterdir():
            old.unlink()
        try:
            sources = compile_cores(Path(self.root), built, self.config["cores"])
        except Exception as error:
            print(f"lineal: compiled nothing, its Python forms will serve ({error})", file=sys.stderr)
            return
        (built / "sources.json").write_text(json.dumps(sources, indent=1) + "\n")
        build_data["artifacts"].append("/lineal/_built/*")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_cores(root: Path, built: Path, cores: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Compile each core in each of its forms into `built`; the sources' hashes by core."""
    from Cython.Build import cythonize
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    with tempfile.TemporaryDirectory() as temporary:
        wanted = [form for core, how in cores.items() for form in forms(root, Path(temporary), core, how)]
        extensions = cythonize(wanted, language_level=3, quiet=True, build_dir=temporary, nthreads=2)
        for extension in extensions:
            # A compiler may lack an instruction set; the other forms are still good. (cythonize drops this mark.)
            extension.optional = True
        command = build_ext(Distribution({"ext_modules": extensions}))
        command.build_lib, command.build_temp, command.parallel = f"{temporary}/lib", temporary, 2
        command.ensure_finalized()
        command.run()
        made = [Path(command.get_ext_fullpath(extension.name)) for extension in extensions]
        made = [path for path in made if path.is_file()]
        if not made:
            raise RuntimeError("no C compiler that works was found")
        for path in made:
            (built / path.name).write_bytes(path.read_bytes())
    return {core: digest(source_of(root, core)) for core in cores}


def forms(root: Path, temporary: Path, core: str, how: dict[str, Any]) -> Iterator[Any]:
    """The extensions of a core: one per instruction set on x86-64, else one."""
    from setuptools import Extension

    intel = platform.machine().lower() in ("x86_64", "amd64")
    unix = not sys.platform.startswith("win")
    sets = how.get("x86-64", {}) if intel and unix else {}
    for suffix, flags in sets.items() or [("", "")]:
        name = core.rsplit(".", 1)[1] + (f"_{suffix}" if suffix else "")
        copy = temporary / name / f"{name}.py"
        copy.parent.mkdir()
        copy.write_bytes(source_of(root, core).read_bytes())
        flags = [*FLAGS, *how.get("flags", "").split(), *flags.split()] if unix else ["/O2"]
        # The vector forms of exp and tanh are linked through libm.
        libraries = ["m"] if unix else []
        yield Extension(f"lineal._built.{name}", [str(copy)], extra_compile_args=flags, libraries=libraries)


def source_of(root: Path, core: str) -> Path:
    """The Python file of a core."""
    return root.joinpath(*core.split(".")).with_suffix(".py")


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
