"""Versions are told without importing what they belong to."""

from __future__ import annotations

import platform

import torch

from lineal.train.versions import changed_versions, package_version, versions


def test_what_is_there_and_what_is_not():
    assert package_version("torch") == torch.__version__
    assert package_version("no-such-package-here") is None
    found = versions()
    assert found["python"] == platform.python_version() and found["torch"] == torch.__version__
    assert set(found) >= {"lineal", "numpy", "safetensors", "transformers", "datasets", "platform"}


def test_only_decisive_changes_are_told():
    recorded = versions()
    assert changed_versions(recorded) == []
    assert changed_versions({**recorded, "numpy": "0", "transformers": None}) == []
    assert changed_versions({**recorded, "python": "3.0"}) == [f"python 3.0, now {platform.python_version()}"]
    assert changed_versions({}) == []
