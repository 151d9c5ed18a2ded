"""Co-occurrences for GloVe: counted, spilled, merged and shuffled, always the same sums."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.representations import near
from lineal.representations.near import PAIR, count, merged, pairs_of, shuffled, spill
from lineal.representations.words import END, Vocabulary, count_words, encode, letters, sentences

texts = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1, max_size=8)


def ids_of(words: list[list[int]]) -> np.ndarray:
    return np.array([i for sentence in words for i in (*sentence, END)], np.int32)


def by_hand(words: list[list[int]], window: int, symmetric: bool) -> dict[tuple[int, int], Fraction]:
    """The definition, in fractions."""
    found: dict[tuple[int, int], Fraction] = defaultdict(Fraction)
    for sentence in words:
        for i, one in enumerate(sentence):
            for d in range(1, window + 1):
                if i + d < len(sentence):
                    found[one, sentence[i + d]] += Fraction(1, d)
                    if symmetric:
                        found[sentence[i + d], one] += Fraction(1, d)
    return dict(found)


def as_dict(blocks) -> dict[tuple[int, int], float]:
    rows = [row for block in blocks for row in block.tolist()]
    found = {(int(i), int(k)): x for i, k, x in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("compiled", [True, False])
@given(texts, st.integers(1, 6), st.booleans())
def test_sums_are_those_of_the_definition(
    compiled: bool, words: list[list[int]], window: int, symmetric: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(near, "core", lambda: None)
        found = as_dict(pairs_of(merged(list(count(ids_of(words), window, symmetric))), symmetric))
    expected = by_hand(words, window, symmetric)
    assert found.keys() == expected.keys()
    for pair, value in expected.items():
        assert found[pair] == pytest.approx(float(value), rel=1e-6)


def test_windows_stay_in_their_document() -> None:
    """Of "Pizza is the best" and "Margherita is my favorite", within one word: P(pizza | is) = 1 / 4."""
    lines = ["Pizza is the best", "Margherita is my favorite"]
    vocabulary = Vocabulary.of(count_words(sentences([lines], letters)), 1)
    ids = np.concatenate(list(encode(sentences([lines], letters), vocabulary)))
    found = as_dict(pairs_of(merged(list(count(ids, 1)))))
    index = vocabulary.index()
    row = {column: x for (i, column), x in found.items() if i == index["is"]}
    assert row[index["pizza"]] / sum(row.values()) == 0.25
    assert (index["best"], index["margherita"]) not in found


def test_a_small_table_spills_and_the_sum_is_the_same(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 2000, 30_000).astype(np.int32)
    ids[::50] = END
    small = spill(count(ids, 8, memory=1), tmp_path)
    large = list(count(ids, 8, memory=64))
    if near.core() is not None:
        assert len(small) > 2 and len(large) == 1 and any(tmp_path.iterdir())
    (key, total), parts = large[0], list(merged(small, block=1000))
    assert len(parts) > 5
    assert np.array_equal(np.concatenate([k for k, _ in parts]), key)
    assert np.array_equal(np.concatenate([t for _, t in parts]), total)


def test_the_order_is_a_permutation_that_the_seed_decides(tmp_path: Path) -> None:
    pairs = np.zeros(50_000, PAIR)
    pairs["row"], pairs["column"] = np.divmod(np.arange(50_000), 300)
    pairs["count"] = np.arange(50_000)
    blocks = [pairs[:20_000], pairs[20_000:]]

    def order(seed: int, memory: int) -> np.ndarray:
        return np.concatenate(list(shuffled(iter(blocks), seed, tmp_path / "heaps", memory)))

    through_memory, through_files = order(3, 64), order(3, 1)
    for found in (through_memory, through_files):
        assert np.array_equal(np.sort(found["count"]), pairs["count"])
        # No order is left that a correlation would see: its standard error is 1 / sqrt(50,000).
        assert abs(np.corrcoef(found["count"], np.arange(50_000))[0, 1]) < 0.03
    assert np.array_equal(through_files, order(3, 1))
    assert not np.array_equal(through_memory, order(4, 64))
    assert not list((tmp_path / "heaps").iterdir())


def test_nothing_near_gives_nothing() -> None:
    assert list(count(np.array([0, END, 1, END], np.int32), 5)) == []
    assert list(merged([])) == []
    with pytest.raises(UsageError, match="window 0"):
        list(count(np.zeros(1, np.int32), 0))


@pytest.mark.skipif(near.core() is None, reason="the compiled core is not built here")
@pytest.mark.parametrize("slot", [near.SLOT, 1 << 16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_table_that_grows_or_is_spilled_holds_what_the_plain_one_holds(
    monkeypatch: pytest.MonkeyPatch, slot: int, symmetric: bool
) -> None:
    random = np.random.default_rng(0)
    ids = np.where(random.random(4000) < 0.05, END, random.integers(0, 700, 4000)).astype(np.int32)
    monkeypatch.setattr(near, "SLOT", slot)
    monkeypatch.setattr(near, "FIRST_SLOTS", 1)
    parts = list(count(ids, 9, symmetric))
    assert (len(parts) > 1) == (slot != 16)
    assert all((np.diff(keys) > 0).all() for keys, _ in parts)
    monkeypatch.setattr(near, "core", lambda: None)
    ((key, total),) = count(ids, 9, symmetric)
    found = list(merged(parts))
    assert np.array_equal(np.concatenate([keys for keys, _ in found]), key)
    assert np.array_equal(np.concatenate([sums for _, sums in found]), total)
