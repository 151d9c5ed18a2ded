"""The budgets of the house: sizes at which code can still be read, and a docstring on every public name."""

from __future__ import annotations

import ast
import dataclasses
import statistics
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent / "lineal"
FILES = sorted(ROOT.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def length(file: Path) -> int:
    """Lines of a file."""
    return len(file.read_text().splitlines())


def functions() -> Iterator[tuple[Path, Function]]:
    """Every function and method of the package."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, Function):
                yield file, node


def test_files_are_short() -> None:
    sizes = {str(file.relative_to(ROOT)): length(file) for file in FILES}
    over = {name: size for name, size in sizes.items() if size > 500}
    assert not over, f"over 500 lines: {over}"
    real = [size for name, size in sizes.items() if not name.endswith("__init__.py")]
    assert statistics.median(real) <= 200


def test_functions_are_short() -> None:
    sizes = []
    for file, node in functions():
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        sizes.append((lines, f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"))
    long = sorted((size, name) for size, name in sizes if size > 50)
    assert len(long) <= 0.05 * len(sizes), f"more than 5 % over 50 lines: {long}"
    longish = sorted((size, name) for size, name in sizes if size > 40)
    assert len(longish) <= 0.10 * len(sizes), f"more than 10 % over 40 lines: {longish}"


def test_public_functions_take_few_arguments() -> None:
    wrong = []
    for file, node in functions():
        arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        arguments = [name for name in arguments if name not in ("self", "cls")]
        if not node.name.startswith("_") and len(arguments) > 8:
            wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name} takes {len(arguments)}")
    assert not wrong, "\n".join(wrong)


def test_config_groups_are_small() -> None:
    config = import_module("lineal.recipes.config")
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            assert len(dataclasses.fields(value)) <= 25, f"{name} has more than 25 fields"


@pytest.mark.parametrize("name", ["PolicyGradientConfig", "LanguageConfig"])
def test_option_names_are_unique_over_at_most_five_groups(name: str) -> None:
    groups = vars(getattr(import_module("lineal.recipes.config"), name)())
    names = [field.name for group in groups.values() for field in dataclasses.fields(group)]
    assert len(groups) <= 5
    assert len(names) == len(set(names))


def test_every_option_says_what_it_does() -> None:
    from lineal.cli_options import options_of
    from lineal.recipes import RECIPES

    for recipe, module in RECIPES.items():
        for option in options_of(import_module(module).default()):
            assert option.help.endswith("."), f"{recipe} --{option.name}: {option.help!r}"


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions and classes of a module, and the public methods of those classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (n for n in node.body if isinstance(n, Function) and not n.name.startswith("_"))


def test_every_public_name_has_a_docstring() -> None:
    wrong = []
    for file in FILES:
        tree = ast.parse(file.read_text())
        if tree.body and not ast.get_docstring(tree):
            wrong.append(f"{file.relative_to(ROOT)} has no docstring")
        for node in public(tree):
            overload = any(
                "overload" in ast.unparse(d) or ".setter" in ast.unparse(d) for d in node.decorator_list
            )
            if not ast.get_docstring(node) and not overload:
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name} has no docstring")
    assert not wrong, "\n".join(wrong)


def test_there_are_enough_tests() -> None:
    source = sum(map(length, FILES))
    tests = sum(map(length, HERE.rglob("*.py")))
    assert tests >= 0.8 * source, f"{tests} lines of tests for {source} of source"


def test_no_drawer_for_everything() -> None:
    assert not [file for file in FILES if file.stem in ("utils", "util", "helpers", "misc", "common")]


def test_no_hidden_globals() -> None:
    wrong = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Global):
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} global {', '.join(node.names)}")
    assert not wrong, "\n".join(wrong)


def test_recipes_are_one_readable_file() -> None:
    long = {file.name: length(file) for file in (ROOT / "recipes").glob("*.py") if length(file) > 300}
    # The options of all recipes stand in one file; it is read as help, not as a recipe.
    long.pop("config.py", None)
    assert not long, f"over 300 lines: {long}"
