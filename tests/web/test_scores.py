"""The pictures of scores: every count and bin is there, names are harmless, and runs without scores have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from lineal.train.finetune.scores import scores
from lineal.web.read import RunView
from lineal.web.scores import confusion, reliability, scores_section


def view(*samples: dict[str, Any]) -> RunView:
    """A run that logged these samples."""
    return RunView(Path("r"), "finetune", {}, {}, samples=list(samples))


def record(labels: tuple[str, ...] = ("no", "yes")) -> dict[str, Any]:
    """What fine-tuning logs of four predictions."""
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], dtype=torch.float64)
    return {"step": 5, **scores(p, torch.tensor([0, 1, 1, 1]), labels).record()}


def test_every_class_has_its_scores() -> None:
    page = scores_section(view(record()))
    for part in ("<td>0.500</td><td>1.000</td><td>0.667</td><td>1</td>", "Calibration", "0.300", "Brier"):
        assert part in page


def test_a_run_that_told_no_classes_has_no_section() -> None:
    assert scores_section(view({"step": 1, "kind": "eval"})) == ""


def test_the_last_evaluation_is_shown() -> None:
    early = {**record(), "step": 1, "calibration_error": 0.777}
    assert "0.777" not in scores_section(view(early, record()))


def test_names_of_classes_are_harmless() -> None:
    page = scores_section(view(record(("<script>", 'a"b'))))
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_square_per_pair_is_as_dark_as_its_share() -> None:
    tree = ElementTree.fromstring(confusion(["a", "b"], [[3, 1], [0, 4]]))
    opacity = [float(r.get("fill-opacity", "")) for r in tree.iter("rect")]
    assert opacity == [pytest.approx(0.06 + 0.7 * share, abs=0.01) for share in (0.75, 0.25, 0, 1)]
    said = [title.text for title in tree.iter("title")]
    assert said[:2] == ["a taken for a: 3 of 4", "a taken for b: 1 of 4"]


def test_many_classes_are_cut_to_what_can_be_read() -> None:
    many = [f"class {i}" for i in range(40)]
    tree = ElementTree.fromstring(confusion(many, [[1] * 40 for _ in many]))
    assert len(list(tree.iter("rect"))) == 24 * 24


def test_a_class_without_rows_is_drawn() -> None:
    tree = ElementTree.fromstring(confusion(["a", "b"], [[0, 0], [1, 2]]))
    assert len(list(tree.iter("rect"))) == 4


def test_what_is_calibrated_lies_on_the_line() -> None:
    tree = ElementTree.fromstring(reliability([(0.25, 0.25, 10), (0.75, 0.75, 40), (0.95, 0.5, 10)]))
    dots = [
        (float(c.get("cx", "")), float(c.get("cy", "")), float(c.get("r", ""))) for c in tree.iter("circle")
    ]
    (line,) = [element for element in tree.iter("line") if element.get("class") == "grid"]
    x1, y1, x2, y2 = (float(line.get(name, "")) for name in ("x1", "y1", "x2", "y2"))

    def height(x: float) -> float:
        return y1 + (y2 - y1) * (x - x1) / (x2 - x1)

    assert dots[0][1] == pytest.approx(height(dots[0][0]), abs=0.2)
    assert dots[1][1] == pytest.approx(height(dots[1][0]), abs=0.2)
    # Less often right than sure: below the line, and y grows downwards.
    assert dots[2][1] > height(dots[2][0]) + 20
    assert dots[1][2] > dots[0][2]
