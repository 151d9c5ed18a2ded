"""Translating with an encoder-decoder: the source is read once, and its hypotheses share what was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lineal.errors import UsageError
from lineal.generate.beam import BeamSearch, Hypothesis
from lineal.generate.prefill import evaluating
from lineal.models.cache import KeyValueCache
from lineal.models.transformer import Transformer


@dataclass(frozen=True)
class Ids:
    """The ids that mean something of their own: what a target starts with, ends with, and what fills short rows."""

    start: int
    end: int
    pad: int


def padded(rows: Sequence[Sequence[int]], pad: int) -> Int[Tensor, "B S"]:
    """Rows of ids as a rectangle, filled on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])


def padding_mask(rows: Sequence[Sequence[int]], dtype: torch.dtype = torch.float32) -> Tensor | None:
    """[B, 1, 1, S]: 0 where a row has a token, -inf where it has none; None when all rows are equally long."""
    lengths = [len(row) for row in rows]
    width = max(lengths)
    if min(lengths) == width:
        return None
    beyond_BS = torch.arange(width) >= torch.tensor(lengths)[:, None]
    return torch.zeros(len(rows), 1, 1, width, dtype=dtype).masked_fill_(
        beyond_BS[:, None, None], float("-inf")
    )


def translate(
    model: Transformer, sources: Sequence[Sequence[int]], search: BeamSearch, ids: Ids, *, cached: bool = True
) -> list[list[Hypothesis]]:
    """The best hypotheses of each source (ids with the end token), best first; in the order of the sources.

    A target may be 50 tokens longer than its source (section 6.1 of the paper), as far as `search.max_new_tokens` and
    the model's context go. cached: False reads all of each hypothesis again at every step: the obvious form, which the
    fast one is tested against.
    """
    limits = []
    for number, source in enumerate(sources):
        if not 1 <= len(source) <= model.config.context:
            raise UsageError(
                f"source {number} has {len(source)} tokens; it must have 1 to {model.config.context}: split the sentence."
            )
        limits.append(min(len(source) + 50, search.max_new_tokens, model.config.context))
    found: list[list[Hypothesis]] = [[] for _ in sources]
    # Alike in length: little padding, and all end at about the same step.
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    at_once = max(1, search.max_batch // search.beams)
    kind = _Cached if cached else _Uncached
    with evaluating(model):
        for first in range(0, len(order), at_once):
            part = order[first : first + at_once]
            reader = kind(model, [sources[i] for i in part], ids)
            answers = search.search(reader, [limits[i] for i in part], ids.end, _banned(ids))
            for i, answer in zip(part, answers, strict=True):
                found[i] = answer
    return found


def best_texts(found: Sequence[Sequence[Hypothesis]], end: int) -> Iterator[list[int]]:
    """The ids of each best hypothesis without the end token."""
    for hypotheses in found:
        ids = hypotheses[0].completion.ids
        yield list(ids[:-1] if ids and ids[-1] == end else ids)


def _banned(ids: Ids) -> list[int]:
    return sorted({ids.start, ids.pad} - {ids.end})


class _Sources:
    """Sources as the encoder gives them, and which source each hypothesis belongs to."""

    def __init__(self, model: Transformer, sources: Sequence[Sequence[int]], ids: Ids):
        self.model, self.ids, self.count = model, ids, len(sources)
        mask = padding_mask(sources, model.embedding.weight.dtype)
        self.mask = None if mask is None else mask.to(model.device)
        self.memory_PSD = model.encode(padded(sources, ids.pad).to(model.device), self.mask)
        self.owner_N = list(range(self.count))

    def start(self) -> Tensor:
        """Logits of every first token."""
        return self.read(range(self.count), [self.ids.start] * self.count)

    def read(self, order: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Logits behind the hypotheses."""
        raise NotImplementedError


class _Uncached(_Sources):
    """All of each hypothesis is read again at every step."""

    def __init__(self, model: Transformer, sources: Sequence[Sequence[int]], ids: Ids):
        super().__init__(model, sources, ids)
        self.prefix_N: list[list[int]] = [[] for _ in sources]

    def read(self, order: Sequence[int], tokens: Sequence[int]) -> Tensor:
        self.prefix_N = [[*self.prefix_N[i], token] for i, token in zip(order, tokens, strict=True)]
        self.owner_N = [self.owner_N[i] for i in order]
        owner_N = torch.tensor(self.owner_N, device=self.model.device)
        prefix_NT = torch.tensor(self.prefix_N, device=self.model.device)
        mask = None if self.mask is None else self.mask[owner_N]
        return self.model.logits(self.model.decode(prefix_NT, self.memory_PSD[owner_N], mask)[:, -1])


class _Cached(_Sources):
    """Earlier tokens' keys and values are kept and reordered; the source's are kept once per source."""

    def __init__(self, model: Transformer, sources: Sequence[Sequence[int]], ids: Ids):
        super().__init__(model, sources, ids)
        self.memory = model.remember(self.memory_PSD)
        self.cache: KeyValueCache | None = None

    def read(self, order: Sequence[int], tokens: Sequence[int]) -> Tensor:
        owner_N = [self.owner_N[i] for i in order]
        rows, place = self._rectangle(owner_N)
        self._keep(owner_N)
        cache = self._room(len(rows))
        cache.reorder([order[row] for row in rows])
        token_N = torch.tensor([tokens[row] for row in rows], device=self.model.device)
        here = slice(0, len(rows))
        plan = cache.plan(here, len(rows), 1)
        hidden_ND = self.model.step(token_N, cache, plan, self.memory, self.mask)
        cache.advance(here, len(rows), 1)
        if place is not None:
            # Rows that only fill the rectangle are forgotten again.
            hidden_ND = hidden_ND[torch.tensor(place, device=hidden_ND.device)]
            cache.reorder(place)
        self.owner_N = owner_N
        return self.model.logits(hidden_ND)

    def _rectangle(self, owner_N: list[int]) -> tuple[list[int], list[int] | None]:
        """Rows so that each source has as many, and where each hypothesis stands among them (None: where it was)."""
        groups: dict[int, list[int]] = {}
        for row, owner in enumerate(owner_N):
            groups.setdefault(owner, []).append(row)
        width = max(map(len, groups.values()))
        if all(len(group) == width for group in groups.values()):
            return list(range(len(owner_N))), None
        rows, place = [], []
        for group in groups.values():
            place += range(len(rows), len(rows) + len(group))
            rows += [*group, *[group[0]] * (width - len(group))]
        return rows, place

    def _keep(self, owner_N: list[int]) -> None:
        """Forget sources whose search has ended; owners are numbered anew."""
        kept = sorted(set(owner_N))
        if len(kept) < self.memory.shape[2]:
            index = torch.tensor(kept, device=self.memory.device)
            self.memory = self.memory.index_select(2, index)
            self.mask = None if self.mask is None else self.mask[index]
            number = {owner: i for i, owner in enumerate(kept)}
            owner_N[:] = [number[owner] for owner in owner_N]

    def _room(self, rows: int) -> KeyValueCache:
        """The cache, with room for so many rows and one more token in each."""
        model, cache = self.model, self.cache
        longest = model.config.context
        if cache is None or cache.slots < rows:
            fresh = KeyValueCache(model.config, rows, min(64, longest), self.memory.dtype, model.device)
            if cache is not None:
                fresh.grow(cache.length)
                fresh.adopt(cache, range(cache.slots), 0)
            self.cache = cache = fresh
        used = max(cache.lengths)
        if used == cache.length:
            cache.grow(min(2 * cache.length, longest))
        return cache
