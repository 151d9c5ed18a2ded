"""A module imports only from entries above its own; nothing that help needs loads torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "lineal"
ORDER = [
    "errors",
    "native",
    "types",
    "ops",
    "tokenizers",
    "representations",
    "models",
    "objectives",
    "optim",
    "environments",
    "generate",
    "train",
    "recipes",
    "web",
    "cli",
    "__init__",
]
FILES = sorted(ROOT.rglob("*.py"))


def layer(parts: list[str]) -> int:
    """The place in ORDER of a module given as its names below `lineal`; the command has several files."""
    name = parts[0] if parts else "__init__"
    name = "cli" if name.startswith("cli") else "__init__" if name == "__main__" else name
    assert name in ORDER, f"lineal/{name} is in no layer: add it to DESIGN's list and to ORDER"
    return ORDER.index(name)


def imports(tree: ast.AST, file: Path) -> Iterator[tuple[int, list[str]]]:
    """Every import of a lineal module: its line, and the module's names below `lineal`."""
    package = ["lineal", *file.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "lineal":
                    yield node.lineno, alias.name.split(".")[1:]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module or "").split(".")] if node.module else base
            if full and full[0] == "lineal":
                # `from lineal import ops` names the module in the imported name.
                for alias in node.names:
                    yield node.lineno, full[1:] if len(full) > 1 else [alias.name]


def test_imports_point_downward() -> None:
    wrong = []
    for file in FILES:
        own = layer(list(file.relative_to(ROOT).with_suffix("").parts))
        for line, parts in imports(ast.parse(file.read_text()), file):
            target = (ROOT / parts[0]).is_dir() or (ROOT / f"{parts[0]}.py").is_file()
            if target and layer(parts) > own:
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports upward into {'.'.join(parts)}")
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_every_form_of_import(tmp_path: Path) -> None:
    source = "import lineal.web.page\nfrom lineal.train import run\nfrom lineal import cli\nfrom . import x\nfrom ..web import y"
    found = list(imports(ast.parse(source), ROOT / "ops" / "masked.py"))
    assert [parts for _, parts in found] == [["web", "page"], ["train"], ["cli"], ["ops"], ["web"]]


def test_there_are_no_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for file in FILES:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set()
        tree = ast.parse(file.read_text())
        late = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        late |= {id(n) for test in ast.walk(tree) if is_type_checking(test) for n in ast.walk(test)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in late and node.module:
                module = node.module.removeprefix("lineal.")
                if node.module.startswith("lineal."):
                    inner = {f"{module}.{alias.name}" for alias in node.names}
                    graph[name] |= {i for i in inner if is_module(i)} or {module}
    assert not (cycle := find_cycle(graph)), " -> ".join(cycle)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Some cycle of a graph, or []."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


def test_a_cycle_would_be_found() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    "modules",
    [
        "lineal",
        "lineal.errors",
        "lineal.cli",
        "lineal.tokenizers",
        "lineal.recipes.config",
        "lineal.cli_options",
    ],
)
def test_help_needs_neither_torch_nor_numpy(modules: str) -> None:
    code = (
        f"import sys, {modules}; print([m for m in ('torch', 'numpy', 'tyro', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recipes_say_what_they_are_without_torch() -> None:
    code = (
        "import sys, importlib; from lineal.recipes import RECIPES\n"
        "for m in RECIPES.values(): module = importlib.import_module(m); module.default(); assert module.SUMMARY\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_logged_or_configured_on_import() -> None:
    wrong = []
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                call = ast.unparse(node.value.func)
                if file.name != "__main__.py":
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} calls {call} on import")
    assert not wrong, "\n".join(wrong)
