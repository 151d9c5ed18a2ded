"""Flat arrays for compiled cores."""

from __future__ import annotations

from array import array

import pytest

from lineal.tokenizers.core.arrays import filled, grown, power, untouched


@pytest.mark.parametrize("kind", "Biq")
def test_arrays_of_one_value(kind: str) -> None:
    assert filled(kind, 3, 7).tolist() == [7, 7, 7]
    assert filled(kind, 3).format == kind
    assert filled(kind, 0).tolist() == []


def test_untouched_arrays_are_zero_and_can_be_written() -> None:
    view = untouched("Q", 1 << 16)
    assert len(view) == 1 << 13
    assert not any(view)
    view[-1] = (1 << 64) - 1
    assert view[-1] == (1 << 64) - 1


def test_grown_arrays_begin_like_the_old_ones() -> None:
    assert grown("i", array("i", [1, 2]), 4).tolist() == [1, 2, 0, 0]
    assert grown("B", b"ab", 3).tolist() == [97, 98, 0]
    assert grown("B", b"", 0).tolist() == []


@pytest.mark.parametrize("least", [0, 1, 2, 3, 4, 5, 1000, 1 << 20, (1 << 20) + 1])
def test_powers_of_two(least: int) -> None:
    found = power(least)
    assert found & (found - 1) == 0
    assert found >= max(least, 2)
    assert found < 2 * max(least, 2)
