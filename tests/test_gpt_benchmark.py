"""What the benchmark of GPT-1 makes of the data: its multiple choice, and how it compares seed by seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def gpt(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    """benchmarks/gpt.py."""
    return benchmark("gpt")


needs_data = pytest.mark.skipif("LINEAL_TEST_DATA" not in os.environ, reason="LINEAL_TEST_DATA is not set")


@needs_data
def test_one_of_four_continues_each_passage(gpt: ModuleType) -> None:
    rows, judged = gpt.continuations("train"), gpt.continuations("judged")
    book = " ".join(gpt.text("novels_en/valid.txt.gz").split())
    for row in rows[:50]:
        assert len(set(row["choices"])) == 4
        assert f"{row['text']} {row['choices'][row['label']]}" in book
    labels = [row["label"] for row in rows]
    assert all(0.2 < labels.count(i) / len(labels) < 0.3 for i in range(4))
    assert not {row["text"] for row in rows} & {row["text"] for row in judged}


@needs_data
def test_the_other_tasks_are_read_whole(gpt: ModuleType) -> None:
    assert len(gpt.sentiment("train")) == 6920 and len(gpt.sentiment("judged")) == 1821
    found = gpt.entailment("judged")
    assert len(found) == 4927
    assert {row["label"] for row in found} == {"ENTAILMENT", "NEUTRAL", "CONTRADICTION"}
