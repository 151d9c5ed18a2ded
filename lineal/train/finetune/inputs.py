"""GPT-1's task-aware inputs: every task as sequences of one text's form  (Radford et al. 2018, section 3.3).

classification  <start> text <extract>
pair            <start> first <delimiter> second <extract>
similarity      both orders of a pair, whose last hidden states are added
choice          <start> context <delimiter> choice <extract>, one sequence per choice
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lineal.tokenizers import Tokenizer
from lineal.tokenizers.added import AddedToken
from lineal.tokenizers.lengths import truncate_pair
from lineal.tokenizers.pipeline import Pipeline

NAMES = ("<start>", "<delimiter>", "<extract>")
"""How the three tokens are written in the tokenizer's file."""


@dataclass(frozen=True)
class Marks:
    """The ids of the three tokens that fine-tuning adds to a vocabulary."""

    start: int
    delimiter: int
    extract: int


def extended(tokenizer: Tokenizer) -> tuple[Tokenizer, Marks]:
    """The tokenizer with the three tokens, which are never made from a text, and their ids.

    A tokenizer whose files cannot hold more tokens stays as it is; the ids follow its last one all the same.
    """
    if isinstance(tokenizer, Pipeline):
        known = {token.content: token.id for token in tokenizer.added}
        if all(name in known for name in NAMES):
            return tokenizer, Marks(*(known[name] for name in NAMES))
    first = tokenizer.vocab_size
    marks = Marks(first, first + 1, first + 2)
    if not isinstance(tokenizer, Pipeline):
        return tokenizer, marks
    added = [AddedToken(name, first + i) for i, name in enumerate(NAMES)]
    wider = Pipeline(
        tokenizer.model, normaliser=tokenizer.normaliser, splitter=tokenizer.splitter, decoder=tokenizer.decoder,
        template=tokenizer.template, added=(*tokenizer.added, *added), settings=tokenizer.settings,
        lengths=tokenizer.lengths,
    )  # fmt: skip
    return wider, marks


def sequences_per_row(kind: str, texts: int) -> int:
    """How many sequences a row of so many texts becomes."""
    return {"similarity": 2, "choice": texts - 1}.get(kind, 1)


def sequences(kind: str, texts: Sequence[list[int]], marks: Marks, context: int) -> list[list[int]]:
    """The sequences of one row's texts (as ids), none longer than `context`.

    What does not fit is cut: the end of a text, of a pair the longer one's first, and of what choices continue the
    beginning.
    """
    if kind == "classification":
        return [[marks.start, *texts[0][: context - 2], marks.extract]]
    if kind == "choice":
        room = context - 3
        found = []
        for choice in texts[1:]:
            kept = choice[: room // 2] if len(texts[0]) > room // 2 else choice[: room - len(texts[0])]
            before = texts[0][max(0, len(texts[0]) - (room - len(kept))) :]
            found.append([marks.start, *before, marks.delimiter, *kept, marks.extract])
        return found
    first, second = truncate_pair(texts[0], texts[1], context - 3)
    orders = [(first, second)] if kind == "pair" else [(first, second), (second, first)]
    return [[marks.start, *a, marks.delimiter, *b, marks.extract] for a, b in orders]


@dataclass(frozen=True)
class Inputs:
    """Sequences of several rows, padded on the right with 0; row i has sequences i * each .. (i + 1) * each - 1.

    last_N: where each sequence's extract token stands. mask_NT: False in the padding.
    """

    token_NT: Int[Tensor, "N T"]
    mask_NT: Bool[Tensor, "N T"]
    last_N: Int[Tensor, " N"]
    each: int


def lay_out(rows: Sequence[Sequence[Sequence[int]]], device: torch.device | str = "cpu") -> Inputs:
    """Rows of sequences as one rectangle."""
    flat = [sequence for row in rows for sequence in row]
    lengths = torch.tensor([len(sequence) for sequence in flat])
    width = int(lengths.max())
    token_NT = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence in flat])
    mask_NT = torch.arange(width) < lengths[:, None]
    return Inputs(token_NT.to(device), mask_NT.to(device), (lengths - 1).to(device), len(rows[0]))


def micro_batches(rows: Sequence[Sequence[Sequence[int]]], budget: int) -> list[list[int]]:
    """Indices of rows in groups of like length, each of at most `budget` tokens with its padding (or one row)."""
    size = [max(map(len, row)) for row in rows]
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: size[i]):
        # Sorted: the newest row is the longest of its group.
        if groups and (len(groups[-1]) + 1) * len(rows[i]) * size[i] <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
