"""Scores against their definitions, on worked numbers and against counting one row at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.train.finetune.scores import agreement, scores


def test_worked_numbers() -> None:
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], dtype=torch.float64)
    found = scores(p, torch.tensor([0, 1, 1, 1]), ("a", "b"))
    assert found.accuracy == 0.75
    assert found.confusion_CC == ((1, 0), (1, 2))
    a, b = found.classes
    assert (a.precision, a.recall, a.f1, a.support) == (0.5, 1.0, pytest.approx(2 / 3), 1)
    assert (b.precision, b.recall, b.f1, b.support) == (1.0, pytest.approx(2 / 3), pytest.approx(0.8), 3)
    assert found.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)
    assert found.loss == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.7) + math.log(0.8)) / 4)
    assert found.brier == pytest.approx(2 * (0.01 + 0.36 + 0.09 + 0.04) / 4)
    # Each confidence has a bin of its own: .9 right, .6 wrong, .7 right, .8 right.
    assert found.calibration_error == pytest.approx((0.1 + 0.6 + 0.3 + 0.2) / 4)


def test_certainty_that_is_right_is_calibrated() -> None:
    found = scores(torch.eye(3, dtype=torch.float64), torch.arange(3), ("a", "b", "c"))
    assert (found.accuracy, found.brier, found.calibration_error, found.loss) == (1.0, 0.0, 0.0, 0.0)


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 40))
def test_they_are_what_counting_gives(seed: int, classes: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(rows, classes, generator=generator, dtype=torch.float64).softmax(-1)
    target = torch.randint(classes, (rows,), generator=generator)
    found = scores(p, target, [str(i) for i in range(classes)])
    said = p.argmax(-1).tolist()
    for i, each in enumerate(found.classes):
        hits = sum(s == t == i for s, t in zip(said, target.tolist(), strict=True))
        assert each.support == target.tolist().count(i)
        assert each.recall == pytest.approx(hits / each.support if each.support else 0)
        assert each.precision == pytest.approx(hits / said.count(i) if said.count(i) else 0)
    assert sum(map(sum, found.confusion_CC)) == sum(n for _, _, n in found.bins) == rows


def test_agreement_is_invariant_to_what_it_should_be() -> None:
    t = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert agreement(2 * t + 1, t).pearson == pytest.approx(1)
    bent = agreement(t.exp(), t)
    assert bent.spearman == pytest.approx(1) and bent.pearson < 0.95
    assert agreement(t, t).squared_error == 0
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert agreement(torch.tensor([1.0, 2.0, 2.0, 9.0]), t).spearman == pytest.approx(
        4.5 / math.sqrt(4.5 * 5)
    )
    assert math.isnan(agreement(torch.ones(4), t).pearson)
