"""Shapes and types of annotated functions are checked under pytest, and only there."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args, get_type_hints

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from hypothesis import settings
from jaxtyping import AbstractArray, install_import_hook, jaxtyped

# An int is welcome where a float is asked for, as PEP 484 says; the hook wants the checker's import path.
checker = types.ModuleType("lineal_checker")
vars(checker)["check"] = check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
sys.modules[checker.__name__] = checker


def hint(annotation: Any, names: dict[str, Any]) -> Any:
    """What an annotation means; Any where that is not known yet, as of a class inside itself."""
    if annotation is None:
        return None
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(holder, names, include_extras=True)["it"]
    except Exception:
        return Any


def has_shape(found: Any) -> bool:
    """Whether an array's shape is part of it."""
    if inspect.isclass(found) and issubclass(found, AbstractArray):
        return True
    return any(has_shape(part) for part in get_args(found))


def checked(function: Any = None, **how: Any) -> Any:
    """What the hook decorates with: jaxtyping's checks where a shape is named. Elsewhere beartype alone, which costs a
    thirtieth of them, since jaxtyping binds every call's arguments anew and checks them twice."""
    if function is None:
        return functools.partial(checked, **how)
    if dataclasses.is_dataclass(function) and "__init__" in vars(function):
        function.__init__ = checked(function.__init__, **how)
        return function
    if isinstance(function, types.FunctionType):
        hints = {name: hint(a, function.__globals__) for name, a in function.__annotations__.items()}
        if not any(map(has_shape, hints.values())):
            function.__annotations__ = hints
            return check(function)
    return cast(Any, jaxtyped)(function, **how)


jaxtyping.jaxtyped = checked
install_import_hook("lineal", "lineal_checker.check")

import torch  # noqa: E402

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

torch.set_num_threads(1)
settings.register_profile("lineal", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
settings.load_profile("lineal")


@pytest.fixture(scope="session")
def benchmark() -> Callable[[str], ModuleType]:
    """`benchmark("bert")`: benchmarks/bert.py as a module, beside its harness."""

    def load(name: str) -> ModuleType:
        before = list(sys.path)
        for part in ("harness", name):
            spec = importlib.util.spec_from_file_location(part, BENCHMARKS / f"{part}.py")
            assert spec and spec.loader
            sys.modules[part] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[part])
        sys.path[:] = before
        return sys.modules[name]

    return load


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data sets that LINEAL_TEST_DATA names."""
    folder = os.environ.get("LINEAL_TEST_DATA")
    if not folder:
        pytest.skip("LINEAL_TEST_DATA is not set: it names the folder of public data sets")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"LINEAL_TEST_DATA={folder} is not a folder")
    return path
