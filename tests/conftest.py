"""Shapes and types of annotated functions are checked under pytest, and only there."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from beartype import BeartypeConf, beartype
from hypothesis import settings
from jaxtyping import install_import_hook

# An int is welcome where a float is asked for, as PEP 484 says; the hook wants the checker's import path.
checker = types.ModuleType("lineal_checker")
vars(checker)["check"] = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[checker.__name__] = checker
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
