from __future__ import annotations

import math
from itertools import pairwise

import pytest

from lineal.errors import UsageError
from lineal.train.preferences.schedule import LabelSchedule


def test_a_quarter_before_training_and_all_at_the_end():
    schedule = LabelSchedule(700, 100_000)
    assert schedule.first == schedule.due(0) == 175
    assert schedule.due(100_000) == schedule.due(10**9) == 700
    due = [schedule.due(step) for step in range(0, 100_001, 1000)]
    assert due == sorted(due)


def test_it_is_the_integral_of_the_rate():
    """n(t) - n_0 is proportional to ∫ c / (s + c) ds, here summed step by step."""
    schedule = LabelSchedule(2000, 10_000, before=0.1)
    rates = [(schedule.rate(step) + schedule.rate(step + 1)) / 2 for step in range(10_000)]
    total = math.fsum(rates)
    for step in (100, 1000, 5000, 9999):
        assert schedule.due(step) - 200 == pytest.approx(1800 * math.fsum(rates[:step]) / total, abs=1)


def test_the_rate_is_the_paper_s_where_the_constant_is():
    schedule = LabelSchedule(100, 10_000_000)
    assert [schedule.rate(t) for t in (0, 2_000_000, 6_000_000)] == pytest.approx([1.0, 0.5, 0.25])


def test_a_constant_rate():
    schedule = LabelSchedule(100, 1000, before=0.2, decay=math.inf)
    assert [schedule.due(t) for t in (0, 500, 1000)] == [20, 60, 100] and schedule.rate(900) == 1


@pytest.mark.parametrize("rounds", [1, 7, 50, 1000])
def test_rounds_are_whole_and_never_early(rounds):
    plain, whole = LabelSchedule(700, 10_000), LabelSchedule(700, 10_000, rounds=rounds)
    due = [whole.due(step) for step in range(0, 10_001, 10)]
    assert due[0] == 175 and due[-1] == 700 and due == sorted(due)
    assert len(set(due)) <= rounds + 1
    assert all(late <= plain.due(10 * i) for i, late in enumerate(due))
    assert max(b - a for a, b in pairwise(due)) >= 525 // rounds


@pytest.mark.parametrize(
    "wrong", [{"rounds": -1}, {"labels": 0}, {"steps": 0}, {"before": 0.0}, {"before": 1.5}, {"decay": 0.0}]
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        LabelSchedule(**{"labels": 10, "steps": 10, **wrong})
