"""What the benchmark of GPT-1 makes of the data: its multiple choice, and how it compares seed by seed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def gpt() -> ModuleType:
    """The benchmark as a module, beside its harness."""
    found = {}
    before = list(sys.path)
    for name in ("harness", "gpt"):
        spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = found[name] = module
        spec.loader.exec_module(module)
    sys.path[:] = before
    return found["gpt"]


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


def test_the_gain_is_of_pairs_and_has_its_error(gpt: ModuleType) -> None:
    reached = {
        "tuned": [70.0, 71.0, 72.0],
        "from scratch": [60.0, 60.0, 63.0],
        "no auxiliary loss": [70.0, 70.0, 70.0],
    }
    found = gpt.compared("task", reached, (0, 1, 2), quick=False)
    assert (found.ours, found.peer, found.ok) == (71.0, 61.0, True)
    assert found.details["gain over from scratch"] == "+10.00 ± 0.58"
    assert found.details["gain of the auxiliary loss"] == "+1.00 ± 0.58"
    worse = reached | {"from scratch": [71.0, 70.0, 72.0]}
    assert not gpt.compared("task", worse, (0, 1, 2), quick=False).ok
    assert gpt.compared("task", worse, (0, 1, 2), quick=True).ok
