"""Compiles the package's cores when it is built or installed; without a C compiler it installs all the same.

A core is an ordinary Python file that Cython also understands: it says `import cython`. Its extension modules go to
`lineal/_built`, under the core's name and the instruction set that each was compiled for, beside a note of the sources
they were made from; `lineal/native.py` chooses among them. What is already there and still good is kept.

    python hatch_build.py [lineal.generate.rows ...]        compile what changed, in place
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-O3", "-fno-strict-aliasing", "-w", "-g0"]
UNIX = not sys.platform.startswith("win")
INTEL = platform.machine().lower() in ("x86_64", "amd64")


class CompileCores(BuildHookInterface):
    """Hatchling's hook; flags of some cores stand in pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and make the wheel one of this platform; or say why not, and leave it pure Python."""
        if self.target_name == "wheel" and build(Path(self.root)):
            build_data["artifacts"].append("/lineal/_built/*")
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def build(root: Path, only: Sequence[str] = ()) -> bool:
    """Bring lineal/_built up to date (of `only` these cores, if any are named); whether anything is there."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    special = settings["tool"]["lineal"]["cores"]
    built = root / "lineal" / "_built"
    built.mkdir(exist_ok=True)
    note = built / "sources.json"
    before = json.loads(note.read_text()) if note.is_file() else {}
    after = {}
    for source in sorted((root / "lineal").rglob("*.py")):
        text = source.read_bytes()
        core = ".".join(source.relative_to(root).with_suffix("").parts)
        if only and core not in only:
            after |= {core: before[core]} if core in before else {}
        elif b"\nimport cython\n" in text:
            how = special.get(core, {})
            kind = json.dumps([how, FLAGS, platform.machine(), sysconfig.get_config_var("EXT_SUFFIX")])
            declared = source.with_suffix(".pxd")
            text += declared.read_bytes() if declared.is_file() else b""
            after[core] = {"source": hashlib.sha256(text).hexdigest(), "how": kind}
    stale = {core: special.get(core, {}) for core in after if before.get(core) != after[core]}
    for old in {*before} - {*after} | {*stale}:
        name = old.rsplit(".", 1)[1]
        for path in [*built.glob(f"{name}.*"), *built.glob(f"{name}__*")]:
            path.unlink()
    try:
        if stale:
            compile_cores(root, built, stale)
            print(f"lineal: compiled {len(stale)} cores", file=sys.stderr)
    except Exception as error:
        print(f"lineal: no core was compiled, Python forms will serve: {error}", file=sys.stderr)
        after = {core: entry for core, entry in after.items() if core not in stale}
    (built / "sources.json.tmp").write_text(json.dumps(after, indent=1) + "\n")
    os.replace(built / "sources.json.tmp", note)
    return bool(after)


def compile_cores(root: Path, built: Path, cores: dict[str, dict[str, Any]]) -> None:
    """Compile each core in each of its forms into `built`."""
    from Cython.Build import cythonize
    from setuptools import Extension

    with tempfile.TemporaryDirectory() as temporary:
        probe = Path(temporary, "probe.c")
        probe.write_text("int probe;\n")
        # Translating all cores takes half a minute, which a machine without a compiler need not wait for.
        if not compiled([Extension("probe", [str(probe)])], temporary):
            raise RuntimeError("no C compiler that works was found")
        wanted = [form for core, how in cores.items() for form in forms(root, Path(temporary), core, how)]
        extensions = cythonize(wanted, language_level=3, quiet=True, build_dir=temporary)
        made = compiled(extensions, temporary)
        if not made:
            raise RuntimeError("the C compiler takes none of the cores")
        for path in made:
            # Renamed into place: a process may be running the one that is replaced.
            (built / f"{path.name}.tmp").write_bytes(path.read_bytes())
            os.replace(built / f"{path.name}.tmp", built / path.name)


def compiled(extensions: list[Any], temporary: str) -> list[Path]:
    """The files of those extensions that this compiler can make; it may lack an instruction set of some."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    for extension in extensions:
        # cythonize drops this mark.
        extension.optional = True
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_lib, command.build_temp, command.parallel = f"{temporary}/lib", temporary, 2
    command.ensure_finalized()
    command.run()
    made = [Path(command.get_ext_fullpath(extension.name)) for extension in extensions]
    return [path for path in made if path.is_file()]


def forms(root: Path, temporary: Path, core: str, how: dict[str, Any]) -> Iterator[Any]:
    """The extensions of a core: one, or on x86-64 one for each of its instruction sets."""
    from setuptools import Extension

    sets = how.get("x86-64", {}) if INTEL and UNIX else {}
    for suffix, flags in sets.items() or [("", "")]:
        name = core.rsplit(".", 1)[1] + (f"__{suffix}" if suffix else "")
        # In packages of the extension's name, where Cython looks for declarations.
        copy = temporary / name / "lineal" / "_built" / f"{name}.py"
        copy.parent.mkdir(parents=True)
        for package in (copy.parent, copy.parent.parent):
            (package / "__init__.py").touch()
        source = root.joinpath(*core.split(".")).with_suffix(".py")
        copy.write_bytes(source.read_bytes())
        if source.with_suffix(".pxd").is_file():
            copy.with_suffix(".pxd").write_bytes(source.with_suffix(".pxd").read_bytes())
        flags = [*FLAGS, *how.get("flags", "").split(), *flags.split()] if UNIX else ["/O2"]
        # The vector forms of exp and tanh are linked through libm.
        libraries = ["m"] if UNIX else []
        yield Extension(f"lineal._built.{name}", [str(copy)], extra_compile_args=flags, libraries=libraries)


if __name__ == "__main__":
    raise SystemExit(not build(Path(__file__).parent, sys.argv[1:]))
