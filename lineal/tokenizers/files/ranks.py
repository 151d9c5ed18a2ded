"""Between merges and ranks: the two ways in which a BPE is written down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def merges_of(tokens: Sequence[bytes]) -> list[tuple[int, int]]:
    """The merges that tiktoken's ranks amount to: for each token the two that lower ranks make of it.

    A token that lower ranks do not bring down to two has none; a piece of text that equals it is still that token.
    """
    ids = {token: i for i, token in enumerate(tokens) if token}
    merges: list[tuple[int, int]] = []
    for rank, token in enumerate(tokens):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best, at = min((ids.get(a + b, rank), i) for i, (a, b) in enumerate(pairwise(parts)))
            if best >= rank:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append((ids[parts[0]], ids[parts[1]]))
    return merges
