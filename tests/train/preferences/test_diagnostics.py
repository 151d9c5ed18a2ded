from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.train.preferences.diagnostics import brier, calibration_error, drift, pearson, spearman

numbers = st.lists(st.integers(-50, 50), min_size=3, max_size=30)


def test_worked_values():
    assert pearson([1, 2, 3], [2, 4, 6.5]) == pytest.approx(np.corrcoef([1, 2, 3], [2, 4, 6.5])[0, 1])
    assert spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(pearson([1, 2.5, 2.5, 4], [1, 2, 3, 4]))
    assert math.isnan(pearson([1, 1], [1, 2])) and math.isnan(spearman([1], [1]))


@given(numbers)
def test_ranks_do_not_feel_a_rising_map(values):
    other = list(reversed(values))
    assert spearman(values, other) == pytest.approx(spearman([v**3 + v for v in values], other), nan_ok=True)


@given(numbers, st.floats(0.1, 10), st.floats(-5, 5))
def test_moving_and_scaling_is_no_drift(values, scale, shift):
    moved = [scale * v + shift for v in values]
    if len(set(values)) > 1:
        assert drift(values, moved) == pytest.approx(0, abs=1e-6)
        assert drift(values, [-v for v in moved]) == pytest.approx(2, abs=1e-6)


def test_calibration():
    """Ten times 80 %, right eight times: calibrated. Ten times 100 %, right eight times: off by .2."""
    right = [1.0] * 8 + [0.0] * 2
    assert calibration_error([0.8] * 10, right) == pytest.approx(0)
    assert calibration_error([1.0] * 10, right) == pytest.approx(0.2)
    assert brier([1.0] * 10, right) == pytest.approx(0.2)
    assert brier([0.5] * 4, [1, 0, 1, 0]) == pytest.approx(0.25)


def test_unknown_predictions_are_left_out():
    assert brier([math.nan, 1.0], [0.0, 1.0]) == 0
    assert math.isnan(brier([math.nan], [1.0])) and math.isnan(calibration_error([], []))
