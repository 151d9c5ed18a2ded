"""The statistics of the comparison of PPO's variants: scaled scores, interquartile mean, stratified bootstrap, picture."""

from __future__ import annotations

import importlib.util
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from lineal.objectives.penalty import OldKL
from lineal.objectives.policy import ppo_kl
from lineal.train.parts import open_algorithm

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def table(monkeypatch):
    """benchmarks/ppo_table.py."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("ppo_table_under_test", FOLDER / "ppo_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end(table) -> None:
    assert table.middle(np.array([[1.0, 2.0, 3.0, 100.0]])) == 2.5
    assert table.middle(np.arange(8.0).reshape(2, 4)[:, ::-1]) == np.mean([2, 3, 4, 5])
    assert table.middle(np.array([[7.0]])) == 7.0


def test_the_interval_holds_the_mean_and_vanishes_without_spread(table) -> None:
    random = np.random.default_rng(1)
    score_ES = random.normal(0.5, 0.2, (4, 5))
    low, high = table.interval(score_ES)
    assert low < table.middle(score_ES) < high
    assert 0.02 < high - low < 0.5
    assert table.interval(np.full((3, 5), 0.25)) == (0.25, 0.25)


def test_seeds_are_drawn_within_their_environment(table) -> None:
    """Environments that differ, seeds that do not: nothing varies, which a bootstrap over all cells would not say."""
    assert table.interval(np.repeat([[0.0], [0.4], [0.8], [1.0]], 5, axis=1)) == pytest.approx((0.6, 0.6))


def test_random_play_is_0_and_the_best_cell_1(table) -> None:
    ends = {
        ("a", "E", 0): (10.0, 110.0), ("a", "E", 1): (20.0, 15.0), ("b", "E", 0): (10.0, 65.0), ("b", "E", 1): (20.0, 5.0),
        ("a", "other", 0): (0.0, 1e6),
    }  # fmt: skip
    assert table.scaled_scores(ends, "a", "E", (0, 1)) == pytest.approx([1.0, 0.0])
    assert table.scaled_scores(ends, "b", "E", (0, 1)) == pytest.approx([50 / 95, -10 / 95])


def test_scores_come_from_the_first_and_last_iterations_that_know_them(table, tmp_path: Path) -> None:
    lines = [
        {"step": 1, "env_steps": 10},
        {"step": 2, "return": 3.0, "return_100": 3.0},
        {"step": 3, "return_100": 4.5},
        {"step": 3, "eval/final": True, "eval/return": 99.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert table.scores(tmp_path) == (3.0, 4.5)


def test_the_picture_is_xml_and_says_every_variant(table) -> None:
    found = {"clip, 0.2": (0.8, 0.7, 0.9), "no clip and no penalty": (-0.2, -0.4, 0.1)}
    text = table.draw(found, "2 tasks")
    root = ElementTree.fromstring(text)
    words = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"clip, 0.2", "no clip and no penalty", "0.80", "-0.20", "random play", "best run"} <= set(words)
    dots = [float(node.attrib["cx"]) for node in root.iter() if node.tag.endswith("circle")]
    assert dots[0] > dots[1] >= 210


def test_the_variants_differ_from_ppo_kl_in_their_penalty_alone() -> None:
    fixed = open_algorithm(f"{FOLDER / 'ppo_variants.py'}:fixed_kl")
    neither = open_algorithm(f"{FOLDER / 'ppo_variants.py'}:neither")
    assert fixed.penalty == (OldKL(3.0),) and neither.penalty == ()
    for algorithm in (fixed, neither):
        assert (algorithm.advantage, algorithm.ratio, algorithm.surrogate, algorithm.step) == (
            ppo_kl.advantage, ppo_kl.ratio, ppo_kl.surrogate, ppo_kl.step,
        )  # fmt: skip
