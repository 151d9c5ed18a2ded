"""Learning-rate schedules: the papers' worked numbers, and what every schedule keeps."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.optim.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Linear,
    Noam,
    SlantedTriangular,
    WarmupStableDecay,
    make_schedule,
)

MEMBERS = [
    Constant(3),
    Linear(100, 10, 0.1),
    Cosine(100, 10, 0.1),
    WarmupStableDecay(100, 20, 10, 0.1),
    Noam(64, 10),
    SlantedTriangular(100),
]


# --- worked numbers


def test_noam_peaks_at_its_warmup():
    """d^-½ min(s^-½, s w^-3/2) with d = 512, w = 4000 peaks at 6.9877e-4, at the 4000th step."""
    noam = Noam(512, 4000)
    rates = [noam(step) for step in range(8000)]
    assert max(rates) == pytest.approx(6.9877e-4, rel=1e-5)
    assert rates.index(max(rates)) == 3999
    assert rates[0] == pytest.approx(512**-0.5 * 4000**-1.5, rel=1e-12)
    assert rates[1999] == pytest.approx(rates[3999] / 2, rel=1e-12)
    assert noam(15_999) == pytest.approx(rates[3999] / 2, rel=1e-12)


def test_slanted_triangular_by_hand():
    """T = 100, cut_frac .1, ratio 32, eta_max .01: from .01/32 up to .01 at step 10, and back to .01/32 at step 100."""
    slanted = SlantedTriangular(total=100, cut_fraction=0.1, ratio=32.0)
    rate = [0.01 * slanted(step) for step in range(101)]
    assert rate[0] == pytest.approx(0.0003125)
    assert rate[5] == pytest.approx(0.01 * (1 + 0.5 * 31) / 32)
    assert rate[10] == pytest.approx(0.01)
    assert rate[55] == pytest.approx(0.01 * (1 + 0.5 * 31) / 32)
    assert rate[100] == pytest.approx(0.0003125)
    assert rate.index(max(rate)) == 10
    assert rate[1:11] == sorted(rate[1:11])
    assert rate[10:] == sorted(rate[10:], reverse=True)


def test_slanted_triangular_is_clamped_where_the_floor_cut_something_off():
    """T = 19: cut = floor(1.9) = 1, so the fall ends at step 10 and the formula's p would turn negative after it."""
    slanted = SlantedTriangular(19)
    assert slanted(1) == pytest.approx(1)
    assert slanted(10) == pytest.approx(1 / 32)
    assert [slanted(step) for step in range(10, 25)] == [pytest.approx(1 / 32)] * 15
    # T = 5: floor(0.5) = 0 would divide by zero; the cut is 1.
    assert SlantedTriangular(5)(0) == pytest.approx(1 / 32)
    assert SlantedTriangular(5)(1) == pytest.approx(1)


def test_slanted_triangular_cuts_where_the_fraction_says_in_spite_of_rounding():
    assert math.floor(100 * 0.29) == 28
    slanted = SlantedTriangular(100, 0.29)
    assert max(range(100), key=slanted) == 29


def test_cosine_and_linear_by_hand():
    assert [Cosine(8)(step) for step in (0, 2, 4, 8, 9)] == pytest.approx(
        [1, (1 + 0.5**0.5) / 2, 0.5, 0, 0], abs=1e-15
    )
    assert [Linear(8)(step) for step in (0, 2, 4, 8, 9)] == pytest.approx([1, 0.75, 0.5, 0, 0])
    assert [Linear(8, floor=0.2)(step) for step in (0, 4, 8)] == pytest.approx([1, 0.6, 0.2])
    assert [Cosine(8, floor=0.2)(step) for step in (0, 4, 8)] == pytest.approx([1, 0.6, 0.2])


def test_warmup_stable_decay_by_hand():
    wsd = WarmupStableDecay(total=20, decay=10, warmup=4, floor=0.1)
    assert [wsd(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert [wsd(step) for step in range(4, 11)] == [1] * 7
    assert wsd(15) == pytest.approx(0.55)
    assert wsd(20) == wsd(30) == pytest.approx(0.1)
    root = WarmupStableDecay(total=20, decay=16, power=0.5)
    assert root(8) == pytest.approx(1 - (4 / 16) ** 0.5)


def test_warmup_is_that_of_the_usual_small_trainers():
    """(s + 1) / (w + 1), as in nanoGPT: no step is wasted at rate 0, and the peak comes once, at step w."""
    assert [Constant(3)(step) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert Cosine(10, 3)(3) == 1
    assert Cosine(10, 3)(4) < 1
    assert [Constant()(step) for step in (0, 1000)] == [1, 1]


# --- what each keeps


@pytest.mark.parametrize("schedule", MEMBERS, ids=lambda schedule: type(schedule).__name__)
def test_a_schedule_is_a_value_whose_rates_are_positive_and_finite(schedule):
    assert schedule == type(schedule)(**json.loads(json.dumps(asdict(schedule))))
    with pytest.raises(FrozenInstanceError):
        schedule.warmup = 1
    rates = [schedule(step) for step in range(99)]
    assert all(0 < rate <= 1 for rate in rates)
    assert all(abs(b - a) <= 0.35 for a, b in pairwise(rates))
    assert rates == [schedule(step) for step in range(99)]


@given(
    st.sampled_from([Linear, Cosine]),
    st.integers(1, 300),
    st.integers(0, 300),
    st.floats(0, 1),
    st.integers(0, 400),
)
def test_decays_rise_to_one_then_fall_to_their_floor(kind, total: int, warmup: int, floor: float, step: int):
    warmup = min(warmup, total)
    schedule = kind(total, warmup, floor)
    rate, following = schedule(step), schedule(step + 1)
    if step < warmup:
        assert rate <= following + 1e-12 or step + 1 >= total
    else:
        assert following <= rate + 1e-12
        assert floor - 1e-12 <= rate <= 1
    if step >= total:
        assert rate == pytest.approx(floor)


@given(st.integers(1, 2000), st.floats(0.01, 0.9), st.floats(1, 100), st.integers(0, 3000))
def test_slanted_rates_stay_between_the_lowest_and_the_peak(total: int, cut: float, ratio: float, step: int):
    rate = SlantedTriangular(total, cut, ratio)(step)
    assert 1 / ratio - 1e-12 <= rate <= 1 + 1e-12


def test_names_make_schedules_and_a_mistyped_one_gets_its_neighbour():
    for name in SCHEDULES:
        schedule = make_schedule(name, 50, 5)
        assert schedule(5) == 1
        assert schedule(0) == pytest.approx(1 / 6)
        assert (schedule(50) == pytest.approx(0)) == (name not in ("constant", "inverse_sqrt"))
    with pytest.raises(UsageError, match="did you mean cosine"):
        make_schedule("cosin", 10)
    with pytest.raises(UsageError, match="constant, linear, cosine, wsd"):
        make_schedule("zzz", 10)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Constant(-1),
        lambda: Linear(10, 11),
        lambda: Cosine(0),
        lambda: WarmupStableDecay(10, 8, 3),
        lambda: WarmupStableDecay(10, -1),
        lambda: Noam(0, 10),
        lambda: Noam(10, 0),
        lambda: SlantedTriangular(100, 1.0),
        lambda: SlantedTriangular(100, 0.0),
        lambda: SlantedTriangular(100, 0.1, 0.5),
    ],
)
def test_numbers_that_mean_nothing_are_refused(build):
    with pytest.raises(UsageError, match=r"use|must"):
        build()


def test_schedules_load_neither_torch_nor_numpy():
    code = "import sys, lineal.optim.schedules; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
