"""The glossary names functions that exist, and leaves out none of the algebra's parts."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from lineal.objectives.record import PARTS

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
NAMES = sorted(set(re.findall(r"`(lineal\.[a-zA-Z_.]+)`", GLOSSARY.read_text(encoding="utf-8"))))


def resolve(name: str) -> object:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_the_glossary_names_many_functions():
    assert len(NAMES) > 50


@pytest.mark.parametrize("name", NAMES)
def test_what_it_names_exists_and_is_documented(name):
    assert (resolve(name).__doc__ or "").strip()


def test_every_part_of_the_algebra_is_in_it():
    named = {name.rsplit(".", 1)[1] for name in NAMES}
    assert set(PARTS) <= named
