"""Word vectors inside models: an embedding layer, or the rows of one that exists, initialised by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lineal.errors import DataError, UsageError
from lineal.representations.vectors import Vectors

if TYPE_CHECKING:
    from torch import nn

MARKS = ("\u2581", "\u0120", " ")
"""What tokenizers put before a word: SentencePiece's, GPT-2's, and a space as it is."""


@dataclass(frozen=True)
class Filled:
    """How many of the tokens got the vector of their word, and those that did not."""

    found: int
    missing: tuple[str, ...]


def embedding_layer(
    vectors: Vectors, tokens: Sequence[str] | None = None, *, seed: int = 0, freeze: bool = False
) -> nn.Embedding:
    """A layer [tokens, D] with the vector of each token's word; by default the words of the vectors themselves, in order.

    Other tokens are drawn from a normal distribution with the mean and variance of each dimension, as a function of the seed.
    freeze: the layer is not trained.
    """
    import torch
    from torch import nn

    names = vectors.words if tokens is None else list(tokens)
    layer = nn.Embedding(len(names), vectors.dimensions)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(_drawn(vectors, len(names), seed)))
    fill_embedding(layer, vectors, names)
    layer.weight.requires_grad_(not freeze)
    return layer


def fill_embedding(layer: nn.Embedding, vectors: Vectors, tokens: Sequence[str]) -> Filled:
    """Write into a model's embedding the vectors of the tokens that are words; other rows stay as they are.

    tokens: row i is of tokens[i]. A token's word is itself, or itself without the mark of a space before it, or that in small letters.
    Raises UsageError where the lengths of the vectors differ, or the layer has fewer rows than there are tokens.
    """
    import torch

    rows, width = layer.weight.shape
    if width != vectors.dimensions:
        raise UsageError(
            f"The model's embedding has {width} dimensions and the vectors {vectors.dimensions}: train or choose vectors of {width}."
        )
    if rows < len(tokens):
        raise UsageError(
            f"The embedding has {rows} rows for {len(tokens)} tokens: give the tokens of its own vocabulary."
        )
    sources = [_row_of(vectors, token) for token in tokens]
    known = [at for at, row in enumerate(sources) if row is not None]
    if not known:
        raise DataError(
            "None of the tokens is a word of the vectors: they are of another language or another spelling."
        )
    chosen = np.array(vectors.matrix[[sources[at] for at in known]], dtype=np.float32)
    with torch.no_grad():
        layer.weight[torch.tensor(known)] = torch.from_numpy(chosen).to(layer.weight)
    return Filled(len(known), tuple(token for token, row in zip(tokens, sources) if row is None))


def _row_of(vectors: Vectors, token: str) -> int | None:
    bare = token[1:] if token[:1] in MARKS and len(token) > 1 else token
    for form in (token, bare, bare.lower()):
        row = vectors.index.get(form)
        if row is not None:
            return row
    return None


def _drawn(vectors: Vectors, count: int, seed: int) -> np.ndarray:
    draws = np.random.Generator(np.random.Philox(key=seed))
    sample = np.asarray(vectors.matrix[:10_000], dtype=np.float64)
    rows = draws.standard_normal((count, vectors.dimensions)) * sample.std(axis=0) + sample.mean(axis=0)
    return rows.astype(np.float32)
