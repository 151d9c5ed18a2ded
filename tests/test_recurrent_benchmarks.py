"""What the benchmarks of ULMFiT and ELMo make of the data, which cells they run, and how they compare seed by seed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

needs_data = pytest.mark.skipif("LINEAL_TEST_DATA" not in os.environ, reason="LINEAL_TEST_DATA is not set")


@pytest.fixture(scope="module")
def ulmfit(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    """benchmarks/ulmfit.py."""
    return benchmark("ulmfit")


@pytest.fixture(scope="module")
def elmo(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    """benchmarks/elmo.py."""
    return benchmark("elmo")


@needs_data
def test_the_tasks_are_read_whole(ulmfit: ModuleType) -> None:
    questions, sentences, reviews = (
        ulmfit.questions("train"),
        ulmfit.sentences("train"),
        ulmfit.reviews("train"),
    )
    assert (len(questions), len(sentences), len(reviews)) == (5452, 6920, 4000)
    assert {row["label"] for row in questions} == {"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"}
    assert {row["label"] for row in sentences} == {"0", "1"} and all(row["text"].strip() for row in sentences)
    assert len({row["label"] for row in reviews}) == 2 and set(ulmfit.reviews("unsup")[0]) == {"text"}


@needs_data
def test_a_seed_chooses_the_rows(ulmfit: ModuleType, tmp_path: Path) -> None:
    grid = ulmfit.Grid(tmp_path, ulmfit.QUICK)
    files = [grid.labelled(100, seed) for seed in (0, 1)]
    first, second = ([json.loads(line)["text"] for line in path.read_text().splitlines()] for path in files)
    assert len(first) == 100 and first != second
    assert grid.labelled(100, 0).read_text() == files[0].read_text()


@needs_data
def test_every_cell_has_a_folder_of_its_own(ulmfit: ModuleType, tmp_path: Path) -> None:
    grid = ulmfit.Grid(tmp_path, ulmfit.QUICK)
    for name in ("reviews.jsonl", "reviews-held.jsonl", "judged.jsonl"):
        grid.data(name, [])
    cells = {}
    for direction in ("forward", "backward"):
        for name, cell in grid.models(direction).items():
            cells[direction, name] = cell
    for name, (start, options, switches) in ulmfit.ABLATION.items():
        assert start in grid.models()
        short = "".join(c for c in name if c.isalnum() or c == " ")
        cells[name] = grid.classifier(f"ablation {short}", 60, 0, tmp_path, options, switches)
    folders = [cell.folder for cell in cells.values()]
    assert len(folders) == len(set(folders))
    assert {"--unfreeze", "--discriminative", "--schedule", "--pooling"} <= {
        option for _, options, _ in ulmfit.ABLATION.values() for option in options
    }


def test_wikipedia_is_written_as_other_texts(elmo: ModuleType) -> None:
    assert elmo.plain("a 3 @,@ 000 @-@ tonne <unk> ship") == "a 3,000-tonne ship"


def test_each_sentence_of_the_probe_has_its_word_once(elmo: ModuleType) -> None:
    for word, senses in elmo.SENSES.items():
        assert len(senses) == 2
        for sentence in (s for group in senses for s in group):
            assert sentence.split().count(word) == 1, sentence
