"""A dictionary of byte strings for compiled cores: a trie in flat arrays, where each byte costs one look."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from types import ModuleType

TRIE = "lineal.tokenizers.core.double_array"


def build_trie(keys: Sequence[tuple[bytes, int]], core: ModuleType) -> array[int]:
    """A trie of byte strings and their values (not negative), built by `lineal.tokenizers.core.double_array`.

    Four numbers for each node: base, check, leaf, 0. From node n byte c leads to m = base[n] + c if check[m] == n;
    leaf[n] is the value of the key that ends there, or -1. The root is 0. No string comes twice and none is empty.
    """
    ordered = sorted(keys)
    data = b"".join(key for key, _ in ordered)
    ends = array("q", accumulate(len(key) for key, _ in ordered))
    longest = max((len(key) for key, _ in ordered), default=0)
    stack = array("q", bytes(32 * 256 * (longest + 1)))
    room = len(data) + 2048
    while True:
        base = array("i", bytes(4 * room))
        check, leaf = (array("i", b"\xff" * (4 * room)) for _ in range(2))
        used = core.build(data, ends, base, check, leaf, stack)
        if used >= 0:
            break
        room *= 2
    values = [value for _, value in ordered]
    nodes = array("i", bytes(16 * used))
    nodes[0::4], nodes[1::4] = base[:used], check[:used]
    nodes[2::4] = array("i", [values[key] if key >= 0 else -1 for key in leaf[:used]])
    return nodes
