"""Shapes and types of annotated functions are checked under pytest, and only there."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

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

torch.set_num_threads(1)
settings.register_profile("lineal", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
settings.load_profile("lineal")


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
