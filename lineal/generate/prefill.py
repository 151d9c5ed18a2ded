"""Prompts waiting for their turn: each distinct one is read once, and its rows join from what was read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.generate.recurrent import Recurrent, States, read_all
from lineal.generate.routes import chosen
from lineal.models.cache import KeyValueCache, Slots
from lineal.models.decoder import Decoder
from lineal.models.gating import Routes

Speaker = Decoder | Recurrent
"""A language model that can be sampled from."""
CHUNK_PROMPTS, CHUNK_TOKENS = 64, 16_384
"""Most prompts, and most tokens (padding included), that are read in one pass."""


@dataclass(frozen=True)
class Request:
    """One completion that was asked for: its number in the answer, its prompt, its random key, its cap."""

    number: int
    prompt: tuple[int, ...]
    key: int
    limit: int


@dataclass(frozen=True)
class Joiners:
    """Rows about to join: what they ask for, where their prompts lie in `cache`, and their first logits.

    routes: of a mixture of experts, what each row's prompt went to, when asked for.
    """

    requests: list[Request]
    cache: Slots
    sources: list[int]
    logits_NV: Tensor
    routes: list[Tensor]


class Waiting:
    """The queue of requests; `take` hands out the next ones, reading the next prompts when it has to.

    Equal prompts share one reading. Longer prompts come first, so that a chunk holds little padding and the
    decoding cache gets its size early; the order changes no completion.
    """

    def __init__(
        self, model: Speaker, requests: list[Request], most: int, dtype: torch.dtype, routed: bool = False
    ):
        self._model, self._dtype, self._routed = model, dtype, routed
        self._routes: list[Tensor] = []
        groups: dict[tuple[int, ...], list[Request]] = {}
        for request in requests:
            groups.setdefault(request.prompt, []).append(request)
        self._prompts = deque(sorted(groups.items(), key=lambda group: -len(group[0])))
        self._ready: deque[tuple[int, Request]] = deque()
        self._most = most
        self._cache: Slots | None = None
        self._logits_PV: Tensor | None = None

    def __bool__(self) -> bool:
        """Whether anyone waits."""
        return bool(self._prompts or self._ready)

    def take(self, free: int) -> Joiners:
        """At least one and at most `free` of those who wait."""
        if not self._ready:
            self._read()
        assert self._cache is not None and self._logits_PV is not None
        taken = [self._ready.popleft() for _ in range(min(free, len(self._ready)))]
        sources = [source for source, _ in taken]
        routes = [self._routes[source] for source in sources] if self._routed else []
        joiners = Joiners([r for _, r in taken], self._cache, sources, self._logits_PV[sources], routes)
        if not self._ready:
            self._cache = self._logits_PV = None
        return joiners

    def _read(self) -> None:
        prompts, rows = [], 0
        width = len(self._prompts[0][0])
        # No more prompts than can start at once: reading further ahead would hold memory for nothing.
        most = min(CHUNK_PROMPTS, max(1, CHUNK_TOKENS // width))
        while self._prompts and len(prompts) < most and (not prompts or rows < self._most):
            prompt, requests = self._prompts.popleft()
            self._ready.extend((len(prompts), request) for request in requests)
            prompts.append(prompt)
            rows += len(requests)
        routes = Routes() if self._routed else None
        self._cache, self._logits_PV = read_prompts(self._model, prompts, self._dtype, routes)
        if routes is not None:
            route_PTLK = chosen(routes).unflatten(0, (len(prompts), -1))
            self._routes = [route_TLK[: len(prompt)] for route_TLK, prompt in zip(route_PTLK, prompts)]


def read_prompts(
    model: Speaker, prompts: Sequence[tuple[int, ...]], dtype: torch.dtype, routes: Routes | None = None
) -> tuple[Slots, Tensor]:
    """All prompts in one right-padded pass: a cache with one slot each, and the logits of their next tokens [P, V]."""
    if isinstance(model, Recurrent):
        if routes is not None:
            raise UsageError(
                "which experts its tokens went to is told by decoders only: ask an LSTM without routes."
            )
        return read_all(model, prompts)
    lengths = [len(prompt) for prompt in prompts]
    padded = [[*prompt, *[0] * (max(lengths) - len(prompt))] for prompt in prompts]
    token_PT = torch.tensor(padded, device=model.device)
    cache = KeyValueCache(model.config, len(prompts), max(lengths), dtype, model.device)
    hidden_PTD = model(token_PT, cache=cache, routes=routes)
    cache.cut(range(len(prompts)), lengths)
    last_P = torch.tensor(lengths, device=model.device) - 1
    return cache, model.logits(hidden_PTD[torch.arange(len(prompts), device=model.device), last_P])


def memory_for(model: Speaker, slots: int, length: int, dtype: torch.dtype) -> Slots:
    """Room for `slots` rows of at most `length` tokens."""
    if isinstance(model, Recurrent):
        return States(slots)
    return KeyValueCache(model.config, slots, length, dtype, model.device)


def cache_dtype(model: Speaker) -> torch.dtype:
    """What keys and values come out as: autocast's type where it is on, else the weights'."""
    kind = model.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype


def room(model: Speaker, index: int, prompt: Sequence[int], max_new_tokens: int) -> int:
    """How many tokens may follow a prompt; raises UsageError where that is none, or where the prompt is not one."""
    config = model.config
    if not prompt:
        raise UsageError(f"prompt {index} is empty: a completion needs at least one token to follow.")
    if len(prompt) >= config.context:
        raise UsageError(
            f"prompt {index} has {len(prompt)} tokens, but the model's context is {config.context}, which must hold "
            "the prompt and at least one new token: shorten the prompt."
        )
    if min(prompt) < 0 or max(prompt) >= config.vocab_size:
        raise UsageError(
            f"prompt {index} has token ids from {min(prompt)} to {max(prompt)}, but the model knows "
            f"0..{config.vocab_size - 1}: encode it with the model's own tokenizer."
        )
    return min(max_new_tokens, config.context - len(prompt))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; every module's own mode comes back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
