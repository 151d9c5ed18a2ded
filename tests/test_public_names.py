"""`import lineal` offers what it says it offers: lazily, all of it, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import lineal

HOME = [(module, name) for module, names in lineal._HOME.items() for name in names]


@pytest.mark.parametrize(("module", "name"), HOME, ids=[name for _, name in HOME])
def test_each_name_is_what_its_module_holds(module: str, name: str) -> None:
    assert getattr(lineal, name) is getattr(import_module(module), name)


def test_all_lists_every_name_once() -> None:
    names = [name for _, name in HOME]
    assert len(names) == len(set(names))
    assert lineal.__all__ == sorted(names)
    assert set(dir(lineal)) == {*names, "__version__"}


def test_type_checkers_see_the_same_names_in_the_same_places() -> None:
    tree = ast.parse(Path(str(lineal.__file__)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (n.module, a.asname or a.name)
        for n in ast.walk(block)
        if isinstance(n, ast.ImportFrom)
        for a in n.names
    }
    assert seen == set(HOME)


def test_the_surface_is_small() -> None:
    assert len(lineal.__all__) <= 65


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Trainer'.*Rollout"):
        _ = lineal.Trainer  # type: ignore[attr-defined]


def test_star_import_gives_the_names() -> None:
    code = "from lineal import *; print(LinealError.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "LinealError", done.stderr


def test_the_version_is_the_package_s() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert lineal.__version__ == project["version"]


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(str(lineal.__file__)).parent / "py.typed").is_file()
