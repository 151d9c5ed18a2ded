"""The draws of word2vec: their distributions, and that each is a function of its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.representations.draws import (
    ALWAYS,
    GOLDEN,
    WORD,
    alias,
    epoch_key,
    keep_probability,
    mix,
    negatives,
    place_key,
    thresholds,
)
from lineal.representations.word2vec import start_rows


def test_mix_is_splitmix64() -> None:
    # The first two numbers of the published generator at seed 0.
    assert mix(GOLDEN) == 0xE220A8397B1DCDAF
    assert mix(2 * GOLDEN & WORD) == 0x6E789E6AA1B965F4


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60))
def test_an_alias_table_holds_its_distribution(weights: list[float]) -> None:
    table = alias(np.array(weights))
    held = np.zeros(len(weights))
    for slot, (head, other) in enumerate(zip(table.head, table.other)):
        held[slot] += head
        held[other] += ALWAYS - head
    np.testing.assert_allclose(held / held.sum(), np.array(weights) / sum(weights), atol=1e-8)


def test_drawing_looks_at_the_slot_and_then_at_its_head() -> None:
    table = alias(np.array([3.0, 1.0]))
    assert [table.draw(slot << 63 | low) for slot in (0, 1) for low in (0, ALWAYS // 2 - 1, ALWAYS // 2, ALWAYS - 1)] == [
        0, 0, 0, 0, 1, 1, 0, 0,
    ]  # fmt: skip


def test_negatives_follow_the_three_quarter_power() -> None:
    counts = np.array([1000, 100, 10, 1])
    table, key = negatives(counts), epoch_key(7, 0)
    drawn = np.bincount([table.draw(place_key(key, i)) for i in range(40_000)], minlength=4) / 40_000
    expected = counts**0.75 / (counts**0.75).sum()
    # Five standard errors of a share of 40,000 draws.
    assert np.all(np.abs(drawn - expected) < 5 * np.sqrt(expected * (1 - expected) / 40_000) + 1e-9)


def test_both_forms_of_subsampling() -> None:
    counts, t = np.array([900, 90, 10]), 0.01
    share = counts / 1000
    np.testing.assert_allclose(
        1 - keep_probability(counts, t, "paper"), np.maximum(0, 1 - np.sqrt(t / share))
    )
    np.testing.assert_allclose(
        keep_probability(counts, t), np.minimum(1, (np.sqrt(share / t) + 1) * t / share)
    )
    assert keep_probability(counts, 0).tolist() == [1, 1, 1]
    with pytest.raises(UsageError, match="neither"):
        keep_probability(counts, t, "gensim")


def test_a_word_that_is_always_kept_is_never_dropped() -> None:
    (limit,) = thresholds(np.array([1.0]))
    assert limit > WORD >> 32


@given(st.integers(0, 1 << 40), st.integers(0, 50), st.integers(0, 1 << 40))
def test_draws_differ_by_seed_epoch_and_place(seed: int, epoch: int, place: int) -> None:
    key = epoch_key(seed, epoch)
    assert place_key(key, place) != place_key(key, place + 1)
    assert key not in (epoch_key(seed + 1, epoch), epoch_key(seed, epoch + 1))


def test_vectors_start_uniform_and_small() -> None:
    rows = start_rows(20_000, 10, seed=3)
    used, rest = rows[:, :10], rows[:, 10:]
    assert np.abs(used).max() <= 0.05 and not rest.any()
    assert abs(used.mean()) < 2e-4 and used.std() == pytest.approx(0.1 / np.sqrt(12), rel=0.01)
    assert np.array_equal(rows, start_rows(20_000, 10, seed=3))
    assert not np.array_equal(rows, start_rows(20_000, 10, seed=4))
    assert rows.ctypes.data % 64 == 0
