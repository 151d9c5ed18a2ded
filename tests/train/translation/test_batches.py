"""Batches: every pair once an epoch, few wasted places, and the same for a run that was resumed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lineal.errors import UsageError
from lineal.generate.translate import Ids
from lineal.tokenizers import CharTokenizer
from lineal.train.translation.batches import Encoded, Order, encode, make_batch, micro_batches
from lineal.train.translation.pairs import Pairs

IDS = Ids(start=1, end=2, pad=0)
LETTERS = CharTokenizer.train("abcdefgh ")


def lengths(sources: list[int], targets: list[int]) -> Encoded:
    """Pairs of these lengths."""
    at = [np.cumsum([0, *side], dtype=np.int64) for side in (sources, targets)]
    ids = [np.arange(3, 3 + a[-1], dtype=np.int32) for a in at]
    return Encoded(ids[0], ids[1], at[0], at[1], sum(targets), {}, list(range(len(sources))))


def sentences(count: int, seed: int = 0) -> Encoded:
    """Pairs of the lengths of short sentences, correlated as translations are."""
    made = np.random.default_rng(seed)
    source = made.gamma(9, 1.5, count).astype(int) + 2
    target = np.maximum(2, source + made.normal(0, 2.5, count).astype(int))
    return lengths(source.tolist(), target.tolist())


def test_an_epoch_holds_every_pair_once_within_the_budget() -> None:
    data = sentences(3000)
    order = Order(data, 400, seed=1)
    for epoch in (0, 1, 5):
        batches = order.epoch(epoch)
        assert sorted(row for rows in batches for row in rows.tolist()) == list(range(3000))
        for rows in batches:
            assert len(rows) * max(order.source_N[rows].max(), order.target_N[rows].max()) <= 400


def test_padding_is_below_a_tenth() -> None:
    order = Order(sentences(20_000), 2048, seed=0)
    area = sum(len(b) * int(n[b].max()) for b in order.epoch(0) for n in (order.source_N, order.target_N))
    assert 1 - int(order.source_N.sum() + order.target_N.sum()) / area < 0.10


def test_neighbours_change_between_epochs() -> None:
    order = Order(sentences(5000), 1000, seed=0)
    first, second = ({frozenset(b.tolist()) for b in order.epoch(e)} for e in (0, 1))
    assert not first & second


def test_a_step_is_a_function_of_the_seed() -> None:
    data = sentences(500)
    straight, jumped, other = Order(data, 300, 7), Order(data, 300, 7), Order(data, 300, 8)
    steps = [straight.batch(step).tolist() for step in range(120)]
    assert jumped.batch(119).tolist() == steps[119] and jumped.batch(3).tolist() == steps[3]
    assert other.batch(3).tolist() != steps[3]
    count = len(straight.epoch(0))
    assert straight.place(count - 1) == (0, count - 1) and straight.place(count) == (1, 0)


def test_a_pair_larger_than_a_batch_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--batch-tokens 10: a training pair has a side of 11 tokens"):
        Order(lengths([3, 11], [3, 4]), 10, 0)


def test_micro_batches_are_the_batch() -> None:
    order = Order(sentences(300), 500, 0)
    rows = order.batch(0)
    parts = list(micro_batches(rows, order, 100))
    assert np.concatenate(parts).tolist() == rows.tolist() and len(parts) > 3
    assert all(len(p) * int(order.target_N[rows].max()) <= 100 for p in parts)


def test_rectangles() -> None:
    data = lengths([3, 2], [1, 2])
    batch = make_batch(data, np.array([1, 0]), IDS, torch.device("cpu"))
    assert batch.source_BS.tolist() == [[6, 7, 0], [3, 4, 5]]
    assert batch.source_mask is not None
    assert batch.source_mask[:, 0, 0].tolist() == [[0, 0, -math.inf], [0, 0, 0]]
    assert batch.target_BT.tolist() == [[4, 5], [3, 0]] and batch.mask_BT.tolist() == [
        [True, True],
        [True, False],
    ]
    assert batch.input_BT.tolist() == [[1, 4], [1, 3]]
    assert make_batch(data, np.array([0]), IDS, torch.device("cpu")).source_mask is None


def test_encoding_ends_each_side_and_counts_what_it_leaves_out() -> None:
    pairs = Pairs(["ab", "a" * 50, "a", "abcd"], ["ba", "b" * 50, "h" * 30, "dcba"], "here", {"empty": 2})
    data = encode(pairs, LETTERS, 99, longest=40, ratio=3.0)
    assert len(data) == 2 and data.dropped == {"empty": 2, "too long": 1, "ratio": 1}
    assert data.source(0) == [*LETTERS.encode("ab"), 99] and data.target(1) == [*LETTERS.encode("dcba"), 99]
    assert data.bytes == 6 and data.rows == [0, 3]


def test_a_line_of_a_hundred_thousand_tokens_is_left_out_and_named() -> None:
    data = encode(Pairs(["a " * 100_000, "b"], ["b", "a"], "here"), LETTERS, 99, longest=256)
    assert len(data) == 1 and data.dropped["too long"] == 1
    with pytest.raises(UsageError, match=r"here: of 1 pairs none is left.*1 too long.*--max-tokens"):
        encode(Pairs(["a " * 100_000], ["b"], "here"), LETTERS, 99, longest=256)
