"""The data of benchmarks/bert.py: documents with their sentences, and rows with their labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    """benchmarks/bert.py."""
    return benchmark("bert")


def test_novels_become_stretches_and_wikis_articles(bench: ModuleType) -> None:
    novel = "\n\n".join(f"Paragraph {i}\nof words {'w ' * 96}" for i in range(25))
    found = list(bench.chapters(novel))
    assert [len(part.splitlines()) for part in found] == [10, 10]
    (run_on,) = bench.chapters("One two three. " * 340)
    assert run_on.splitlines() == ["One two three."] * 334
    wiki = " \n = One = \n \n A b @-@ c . \n \n = = Part = = \n \n <unk> d . \n \n = Two = \n \n E . \n F 3 @.@ 5 . \n"
    assert list(bench.articles(wiki)) == ["A b-c .\nd .", "E .\nF 3.5 ."]
    assert bench.splits("one and two .\tOne . <::::> Two .\n") == ["One .\nTwo ."]


@pytest.mark.skipif(
    "LINEAL_TEST_DATA" not in os.environ, reason="LINEAL_TEST_DATA names the folder of data sets"
)
def test_rows_are_those_of_the_data_sets(bench: ModuleType) -> None:
    counts = {task.name: tuple(map(len, bench.rows_of(task))) for task in bench.TASKS}
    assert counts == {"MRPC": (3000, 1076), "SICK": (4500, 4927), "SST-2": (6920, 1821)}
    for task in bench.TASKS:
        train, judged = bench.rows_of(task)
        assert len({row["label"] for row in train}) == (3 if task.name == "SICK" else 2)
        assert {row["label"] for row in judged} == {row["label"] for row in train}
