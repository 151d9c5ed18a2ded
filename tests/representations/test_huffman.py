"""Huffman's tree: least mean depth, and a distribution over the words whatever the vectors are."""

from __future__ import annotations

import heapq
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.representations.huffman import huffman

counts = st.lists(st.integers(1, 50), min_size=2, max_size=40).map(
    lambda c: np.array(sorted(c)[::-1], np.int64)
)


def least_cost(counts_V: np.ndarray) -> int:
    """The least sum of count x depth: each joining puts all that it joins one deeper."""
    heap, cost = counts_V.tolist(), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        cost += joined
        heapq.heappush(heap, joined)
    return cost


@given(counts)
def test_no_tree_is_less_deep_in_the_mean(counts_V: np.ndarray) -> None:
    tree = huffman(counts_V)
    depth = np.diff(tree.ends, prepend=0)
    assert int((depth * counts_V).sum()) == least_cost(counts_V)


@given(counts)
def test_ways_are_those_of_one_binary_tree(counts_V: np.ndarray) -> None:
    tree, size = huffman(counts_V), len(counts_V)
    below: dict[tuple[int, int], int] = {}
    for word in range(size):
        nodes, codes = tree.way(word)
        assert nodes[0] == size - 2
        steps = [*nodes[1:].tolist(), size - 1 + word]
        for node, code, next_one in zip(nodes.tolist(), codes.tolist(), steps):
            assert below.setdefault((node, code), next_one) == next_one
    assert len(below) == 2 * (size - 1) and len(set(below.values())) == 2 * (size - 1)
    assert sum(Fraction(1, 2 ** len(tree.way(word)[0])) for word in range(size)) == 1


@given(counts, st.integers(0, 10))
def test_probabilities_sum_to_one(counts_V: np.ndarray, seed: int) -> None:
    tree, draw = huffman(counts_V), np.random.default_rng(seed)
    x_D, node_ND = draw.normal(size=4), draw.normal(size=(len(counts_V) - 1, 4))
    total = 0.0
    for word in range(len(counts_V)):
        nodes, codes = tree.way(word)
        total += np.prod(1 / (1 + np.exp(-(1 - 2.0 * codes) * (node_ND[nodes] @ x_D))))
    assert total == pytest.approx(1, abs=1e-12)


def test_a_tree_by_hand() -> None:
    tree = huffman(np.array([5, 2, 1, 1]))
    assert [len(tree.way(word)[0]) for word in range(4)] == [1, 2, 3, 3]


def test_one_word_has_no_choice() -> None:
    with pytest.raises(UsageError, match="at least two"):
        huffman(np.array([3]))
