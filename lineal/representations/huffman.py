"""Huffman's tree over words, for the hierarchical softmax of Morin and Bengio (2005) as Mikolov et al. (2013) use it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineal.errors import UsageError


@dataclass(frozen=True)
class Tree:
    """The way from the root to each word: inner nodes, and at each whether it goes to the right (code 1).

    ends [V]: where each word's way ends in nodes and codes; nodes: which of the V - 1 inner nodes (the root is V - 2);
    codes: 0 or 1. A word of probability p is at depth -log2 p or so; frequent words are near the root.
    """

    ends: NDArray[np.int64]
    nodes: NDArray[np.int32]
    codes: NDArray[np.int8]

    def way(self, word: int) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Nodes and codes of one word."""
        start, end = (int(self.ends[word - 1]) if word else 0), int(self.ends[word])
        return self.nodes[start:end], self.codes[start:end]


def huffman(counts: NDArray[np.int64]) -> Tree:
    """The tree of least mean depth, sum of count x depth: the two rarest are joined until one is left (Huffman, 1952).

    Of equally rare ones words are taken before inner nodes, later words first, older inner nodes first. Raises UsageError for
    fewer than two words.
    """
    size = len(counts)
    if size < 2:
        raise UsageError(f"a tree over {size} words has no way to choose: give at least two.")
    heap = [(int(count), 0, -word, word) for word, count in enumerate(counts)]
    heapq.heapify(heap)
    parent, code = np.zeros(2 * size - 1, np.int64), np.zeros(2 * size - 1, np.int8)
    for inner in range(size - 1):
        one, other = heapq.heappop(heap), heapq.heappop(heap)
        parent[one[3]] = parent[other[3]] = size + inner
        code[other[3]] = 1
        heapq.heappush(heap, (one[0] + other[0], 1, inner, size + inner))
    depth = np.zeros(2 * size - 1, np.int64)
    for node in range(2 * size - 3, -1, -1):
        depth[node] = depth[parent[node]] + 1
    return _ways(size, parent, code, depth[:size])


def _ways(size: int, parent: NDArray[np.int64], code: NDArray[np.int8], depth_V: NDArray[np.int64]) -> Tree:
    """All ways at once, from the words up: step d writes the d-th place from the end of each way that is so long."""
    ends = np.cumsum(depth_V)
    nodes, codes = np.zeros(ends[-1], np.int32), np.zeros(ends[-1], np.int8)
    at, place = np.arange(size), ends - 1
    words = np.arange(size)
    while len(words):
        codes[place[words]] = code[at[words]]
        at[words] = parent[at[words]]
        nodes[place[words]] = at[words] - size
        place[words] -= 1
        words = words[at[words] != 2 * size - 2]
    return Tree(ends, nodes, codes)
