"""The order of data is a function of (seed, epoch, position) and of nothing else."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lineal.errors import DataError
from lineal.train.order import FEW, Order, choose, hash64

SEED = st.integers(-(2**70), 2**70)
PINNED_TEN = [3, 2, 9, 1, 6, 4, 7, 5, 0, 8, 1, 7, 9, 3, 2, 6, 4, 0, 5, 8]
PINNED_MILLION = [751591, 660563, 270334]
PINNED_HASH = [14976374281827229026]
PINNED_CHOICE = [744, 655, 808, 26]


@given(count=st.integers(1, 3000), seed=SEED, epoch=st.integers(0, 2**40))
@example(count=FEW, seed=0, epoch=0)
@example(count=FEW + 1, seed=0, epoch=0)
def test_every_epoch_is_a_permutation(count, seed, epoch):
    order = Order(count, seed)
    items = order._permute(epoch, np.arange(count, dtype=np.uint64)).tolist()
    assert sorted(items) == list(range(count))


@given(count=st.integers(1, 2**40), seed=SEED, epoch=st.integers(0, 99), data=st.data())
def test_any_position_is_found_without_the_ones_before(count, seed, epoch, data):
    position = data.draw(st.integers(0, count - 1))
    assert 0 <= Order(count, seed).item(epoch, position) < count


@given(count=st.integers(1, 50), size=st.integers(1, 120), steps=st.integers(1, 6), seed=SEED)
def test_batches_walk_through_epoch_after_epoch(count, size, steps, seed):
    order = Order(count, seed)
    walked = list(itertools.chain.from_iterable(order.batch(step, size) for step in range(steps)))
    wanted = [order.item(*divmod(place, count)) for place in range(steps * size)]
    assert walked == wanted
    for start in range(0, len(walked) - count + 1, count):
        assert sorted(walked[start : start + count]) == list(range(count))


@given(count=st.integers(1, 40), size=st.integers(1, 60), step=st.integers(0, 9), world=st.integers(1, 5))
def test_the_number_of_processes_changes_nothing(count, size, step, world):
    order = Order(count, 7)
    shares = [order.share(step, size, rank, world) for rank in range(world)]
    joined = [shares[place % world][place // world] for place in range(size)]
    assert joined == order.batch(step, size)


def test_the_order_is_this_one_on_every_machine():
    # Written down so that no change of numpy, platform or code goes unnoticed: a resumed run depends on it.
    assert Order(10, 0).batch(0, 20) == PINNED_TEN
    assert [Order(1_000_003, 42).item(3, p) for p in (0, 1, 1_000_002)] == PINNED_MILLION
    assert hash64(1, 2, 3).tolist() == PINNED_HASH
    assert choose(1000, 1, 2, range(4)) == PINNED_CHOICE


def test_seeds_and_epochs_differ():
    orders = {tuple(Order(50, seed).batch(epoch, 50)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


@pytest.mark.parametrize("count", [2, 3, 5, 8, 17, 33])
def test_every_item_comes_equally_often_at_every_position(count):
    draws = 3000
    table = np.zeros((count, count))
    for seed in range(draws):
        table[np.arange(count), Order(count, seed).batch(0, count)] += 1
    expected = draws / count
    chi2 = ((table - expected) ** 2 / expected).sum()
    freedom = (count - 1) ** 2
    # Mean and standard deviation of chi-squared: 5 deviations leave no room for chance, much for a biased network.
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom) + 5


@pytest.mark.parametrize("count", [3, 4])
def test_every_permutation_of_a_few_items_is_equally_likely(count):
    draws = 6000
    seen = Counter(tuple(Order(count, 1).batch(epoch, count)) for epoch in range(draws))
    kinds = len(list(itertools.permutations(range(count))))
    assert len(seen) == kinds
    chi2 = sum((n - draws / kinds) ** 2 / (draws / kinds) for n in seen.values())
    assert chi2 < kinds - 1 + 5 * np.sqrt(2 * (kinds - 1))


@pytest.mark.parametrize("count", [1000, 100_000])
def test_neighbours_are_not_kept_together(count):
    items = Order(count, 3).batch(0, count)
    kept = sum(abs(a - b) == 1 for a, b in itertools.pairwise(items))
    assert kept < 12, "two are expected"
    epochs = [Order(count, 3).batch(epoch, count) for epoch in range(2)]
    assert sum(a == b for a, b in zip(*epochs)) < 8, "one is expected"


def test_the_network_is_as_uniform_as_chance():
    # 16 parts of the items against 16 parts of the positions, over epochs.
    count, draws = 1040, 40
    table = np.zeros((16, 16))
    for epoch in range(draws):
        items = np.array(Order(count, 3).batch(epoch, count))
        np.add.at(table, (np.arange(count) // 65, items // 65), 1)
    expected = draws * count / 256
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert abs(chi2 - 225) < 5 * np.sqrt(450)


def test_one_item_and_none():
    assert Order(1, 5).batch(9, 3) == [0, 0, 0]
    with pytest.raises(DataError, match="no rows to train on"):
        Order(0, 5)


def test_epochs_done():
    assert Order(10, 0).epoch(5, 4) == 2.0


@given(count=st.integers(1, 2**50), seed=SEED, step=st.integers(0, 2**40), rows=st.integers(1, 9))
def test_choices_are_in_range_and_depend_on_their_row_only(count, seed, step, rows):
    chosen = choose(count, seed, step, range(rows))
    assert all(0 <= number < count for number in chosen)
    assert chosen[-1:] == choose(count, seed, step, [rows - 1])


def test_choices_are_uniform():
    numbers = [n for step in range(200) for n in choose(10, 0, step, range(50))]
    chi2 = sum((c - 1000) ** 2 / 1000 for c in Counter(numbers).values())
    assert chi2 < 9 + 5 * np.sqrt(18)


def test_hashing_an_array_hashes_each_element():
    together = hash64(5, np.arange(4, dtype=np.uint64))
    assert together.tolist() == [hash64(5, n)[0] for n in range(4)]
