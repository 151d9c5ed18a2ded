"""Runs side by side: what came out, and only the options that differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lineal.web.compare import comparison_rows, labels_of, write_comparison
from lineal.web.read import read_run

MakeRun = Callable[..., Path]


def test_results_and_differing_options(make_run: MakeRun) -> None:
    runs = [read_run(make_run("a")), read_run(make_run("b", recipe="dapo", clip_high=0.3))]
    rows = {row[0]: row[1:] for row in comparison_rows(runs)}
    assert rows["recipe"] == ["grpo", "dapo"]
    assert rows["held-out accuracy"] == ["0.45 → 0.93", "0.45 → 0.93"]
    assert rows["± standard error"] == ["0.01", "0.01"]
    assert rows["--clip-high"] == ["–", "0.3"]
    assert rows["--algorithm"] == ["grpo", "dapo"]
    assert "--temperature" not in rows and "--out" not in rows


def test_a_run_without_a_number_has_a_dash(make_run: MakeRun) -> None:
    runs = [
        read_run(make_run("a")),
        read_run(make_run("b", log=[{"step": 1, "loss": 1.5}, {"step": 2, "loss": 1.0}])),
    ]
    rows = {row[0]: row[1:] for row in comparison_rows(runs)}
    assert rows["held-out accuracy"][1] == "–"
    assert rows["training loss"] == ["–", "1.5 → 1"]
    assert rows["tokens sampled"] == ["210,000", "–"]


def test_labels_are_names_unless_they_clash(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [read_run(make_run(name)) for name in ("x/same", "y/same", "z")]
    assert labels_of(runs) == [str(tmp_path / "x/same"), str(tmp_path / "y/same"), "z"]


def test_the_page_shows_all_runs_in_each_figure(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [read_run(make_run(name)) for name in ("first", "second", "third")]
    text = write_comparison(runs, tmp_path / "c.html").read_text()
    assert "<script" not in text
    reward = next(part for part in text.split("<figure") if "<b>Reward</b>" in part)
    assert all(f"{name}</li>" in reward for name in ("first", "second", "third"))
    assert "two standard errors" in text.replace("\n", " ")
