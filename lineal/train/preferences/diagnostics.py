"""Is the learned reward right, does it know how sure it may be, and does it stand still? Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating] | Sequence[float]


def pearson(x_N: Numbers, y_N: Numbers) -> float:
    """Linear correlation cov(x, y) / (std(x) std(y)); nan where one of them is constant or there are fewer than 2."""
    x, y = np.asarray(x_N, np.float64), np.asarray(y_N, np.float64)
    if len(x) < 2:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else math.nan


def spearman(x_N: Numbers, y_N: Numbers) -> float:
    """Correlation of ranks, equal values sharing their mean rank: 1 for every rising relation."""
    return pearson(_ranks(x_N), _ranks(y_N))


def _ranks(x_N: Numbers) -> NDArray[np.float64]:
    value, inverse_N, count = np.unique(np.asarray(x_N, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[inverse_N].astype(np.float64) if len(value) else np.zeros(0)


def brier(probability_N: Numbers, preference_N: Numbers) -> float:
    """Mean (p - μ)²: 0 for certainty that is always right, .25 for always saying one half of decided pairs."""
    p, mu = _finite(probability_N, preference_N)
    return float(np.mean((p - mu) ** 2)) if len(p) else math.nan


def calibration_error(probability_N: Numbers, preference_N: Numbers, bins: int = 10) -> float:
    """Expected calibration error: Σ_b n_b/N |mean μ - mean p| over bins of equal width in p (Naeini et al. 2015)."""
    p, mu = _finite(probability_N, preference_N)
    if not len(p):
        return math.nan
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    size = np.bincount(place, minlength=bins)
    gap = np.abs(np.bincount(place, mu, bins) - np.bincount(place, p, bins))
    return float(gap[size > 0].sum() / len(p))


def drift(before_N: Numbers, after_N: Numbers) -> float:
    """1 - Pearson correlation of the reward of the same steps before and after a fit: 0 when it only moved or scaled."""
    return 1 - pearson(before_N, after_N)


def _finite(probability_N: Numbers, preference_N: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, mu = np.asarray(probability_N, np.float64), np.asarray(preference_N, np.float64)
    known = np.isfinite(p) & np.isfinite(mu)
    return p[known], mu[known]
