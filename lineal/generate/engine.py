"""Completions from a decoder: one shared reading per prompt, then continuous batching over a preallocated cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from lineal.errors import NonFiniteError, UsageError
from lineal.generate.draw import draw, greedy, temper
from lineal.generate.penalties import Memory, shape
from lineal.generate.prefill import Request, Speaker, Waiting, cache_dtype, evaluating, memory_for, room
from lineal.generate.random import row_key
from lineal.generate.routes import RouteLog
from lineal.generate.sampling import Sampling
from lineal.generate.step import one_token_pass
from lineal.generate.stop import Stop
from lineal.generate.timeline import Timeline
from lineal.models.gating import Routes
from lineal.types import Completion

CACHE_CHUNK = 64
"""The cache and the timeline begin with room for this many new tokens, and grow as completions outgrow them."""


class Interrupted(Exception):
    """`should_stop()` said yes; what had been sampled is gone, and the same call samples it again."""


class Options(TypedDict, total=False):
    """What else `generate` can be told.

    samples: completions per prompt.
    seed, step: with the sample's id they determine its randomness; `seed` may be one number per prompt.
    sample_ids: [P][samples] ids; by default completions are numbered in the order they are returned.
    eos_id: the end-of-text token, None for a model without one.
    decode: ids -> text, needed for stop strings.
    progress: called with (completions finished, all completions) whenever some finish.
    should_stop: asked before every step; once it says yes, `Interrupted` is raised.
    routes: each completion of a mixture of experts tells which experts its tokens went to.
    """

    samples: int
    seed: int | Sequence[int]
    step: int
    sample_ids: Sequence[Sequence[int]] | None
    eos_id: int | None
    decode: Callable[[list[int]], str] | None
    progress: Callable[[int, int], None] | None
    should_stop: Callable[[], bool] | None
    routes: bool


def generate(
    model: Speaker, prompts: Sequence[Sequence[int]], settings: Sampling, **options: Unpack[Options]
) -> list[list[Completion]]:
    """`samples` completions of each prompt, sampled from softmax(logits / temperature) after the settings' filters.

    The answer is indexed [prompt][sample]. A completion depends on the model, its prompt, the settings and
    (seed, step, sample id) alone: not on who shares the batch, on `max_batch`, or on the order of prompts.
    `Completion.logp` is log softmax(logits / temperature) of each token before penalties and truncations
    (temperature 0 is scored at 1); where `settings.faithful`, that is the distribution it was drawn from.
    A completion ends with the end token, a stop id or a stop string ("stop", their tokens included), or at
    `max_new_tokens` or the model's context, whichever comes first ("length").
    Runs in eval mode and without gradients. Raises UsageError for prompts that are empty or leave no room in the
    context, NonFiniteError when the model's scores are nan or infinite.
    """
    requests = requests_of(model, prompts, settings, options)
    answers: list[Completion | None] = [None] * len(requests)
    progress, should_stop = options.get("progress"), options.get("should_stop")
    done = 0
    if requests:
        with evaluating(model):
            batch = Batch(model, requests, settings, options)
            while batch.busy:
                if should_stop is not None and should_stop():
                    raise Interrupted(f"stopped after {done} of {len(requests)} completions")
                batch.step()
                finished = batch.leave()
                for number, completion in finished:
                    answers[number] = completion
                done += len(finished)
                if finished and progress is not None:
                    progress(done, len(requests))
    samples = options.get("samples", 1)
    complete = [answer for answer in answers if answer is not None]
    return [complete[i * samples : (i + 1) * samples] for i in range(len(prompts))]


def requests_of(
    model: Speaker, prompts: Sequence[Sequence[int]], settings: Sampling, options: Options
) -> list[Request]:
    """Every completion that is asked for, in the order of the answer."""
    samples, seed, step = options.get("samples", 1), options.get("seed", 0), options.get("step", 0)
    if samples < 1:
        raise UsageError(f"samples is {samples}: ask for at least 1 completion per prompt.")
    sample_ids = options.get("sample_ids")
    if sample_ids is None:
        sample_ids = [range(i * samples, (i + 1) * samples) for i in range(len(prompts))]
    seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
    if (
        len(sample_ids) != len(prompts)
        or len(seeds) != len(prompts)
        or any(len(s) != samples for s in sample_ids)
    ):
        raise UsageError(
            f"{len(prompts)} prompts with {samples} samples each were given {len(seeds)} seeds and sample_ids of "
            f"lengths {[len(s) for s in sample_ids]}: give one seed or one per prompt, and one id per sample."
        )
    found = []
    for i, prompt in enumerate(prompts):
        limit = room(model, i, prompt, settings.max_new_tokens)
        for sample in sample_ids[i]:
            found.append(Request(len(found), tuple(prompt), row_key(seeds[i], step, sample), limit))
    return found


class Batch:
    """The rows being decoded, in slots 0..n-1, and those who wait; every part of a row's state moves with it."""

    def __init__(self, model: Speaker, requests: list[Request], settings: Sampling, options: Options):
        self.model, self.settings, device = model, settings, model.device
        self.slots = min(settings.max_batch, len(requests))
        dtype = cache_dtype(model)
        self.routes = RouteLog(self.slots) if options.get("routes") else None
        self.waiting = Waiting(model, requests, self.slots, dtype, self.routes is not None)
        self.longest = max(len(r.prompt) + r.limit for r in requests)
        limit = max(r.limit for r in requests)
        at_first = max(len(r.prompt) for r in requests) + CACHE_CHUNK
        self.cache = memory_for(model, self.slots, min(self.longest, at_first), dtype)
        # Drawing needs float64, which Apple's GPUs lack.
        self.place = place = torch.device("cpu") if device.type == "mps" else device
        self.timeline = Timeline(self.slots, min(limit, CACHE_CHUNK), place)
        vocabulary = model.config.vocab_size
        self.memory = Memory(settings, self.slots, vocabulary, place) if settings.penalises else None
        self.stop = Stop(settings, vocabulary, options.get("eos_id"), options.get("decode"), place)
        self.read = one_token_pass(model, settings.half)
        self.rows: list[Request] = []
        self.token_N = torch.zeros(0, dtype=torch.int64, device=place)
        self.logp_N = torch.zeros(0, dtype=torch.float64, device=place)
        self.next_cap = 0

    @property
    def busy(self) -> bool:
        """Whether any row is being decoded or waits."""
        return bool(self.rows or self.waiting)

    def step(self) -> None:
        """Every row draws one token, those who find a free slot their first."""
        logits = [self._read_newest()] if self.rows else []
        while self.waiting and len(self.rows) < self.slots:
            logits.append(self._join())
        logits_NV = (logits[0] if len(logits) == 1 else torch.cat(logits)).to(self.place)
        # Joining first: it is then that the uniforms of new rows are laid out.
        token_N, logp_N = self._choose(logits_NV, self.timeline.uniform(len(self.rows)))
        self.timeline.record(token_N, logp_N)
        if self.memory is not None:
            self.memory.push(token_N, max(self.cache.lengths[: len(self.rows)]) + 1)
        self.token_N, self.logp_N = token_N, logp_N

    def leave(self) -> list[tuple[int, Completion]]:
        """Rows that are done leave; the others close ranks. Gives request numbers and completions."""
        ended = set(self.stop(self.token_N, self.timeline.ids))
        slots, now, start = sorted(ended), self.timeline.now, self.timeline.start
        if now >= self.next_cap:
            capped = {slot for slot, row in enumerate(self.rows) if now - start[slot] >= row.limit}
            slots = sorted(ended | capped)
        if not slots:
            return []
        done = []
        for slot, (ids, logp) in zip(slots, self.timeline.take(slots), strict=True):
            # nan is not below infinity either.
            if not all(-value < float("inf") for value in logp):
                raise NonFiniteError(
                    f"sampling gave log-probabilities that are nan or infinite ({min(logp)} among them): the model's "
                    "weights or scores are not finite. Go back to an earlier checkpoint."
                )
            route_NLK = None if self.routes is None else self.routes.take(slot, start[slot], now)
            finish = "stop" if slot in ended else "length"
            done.append((self.rows[slot].number, Completion(ids, logp, finish, route_NLK)))
        self._close_ranks(slots)
        return done

    def _read_newest(self) -> Tensor:
        rows, cache = len(self.rows), self.cache
        needed = max(cache.lengths[:rows]) + 1
        if needed > cache.length:
            cache.grow(min(self.longest, max(needed, cache.length + max(CACHE_CHUNK, cache.length // 2))))
        here = slice(0, rows)
        routes = None if self.routes is None else Routes()
        hidden_ND = self.read(self.token_N.to(self.model.device), cache, cache.plan(here, rows, 1), routes)
        cache.advance(here, rows, 1)
        if self.routes is not None and routes is not None:
            self.routes.record(self.timeline.now, routes, min(self.timeline.start[:rows]))
        return self.model.logits(hidden_ND)

    def _join(self) -> Tensor:
        first = len(self.rows)
        joiners = self.waiting.take(self.slots - first)
        self.cache.adopt(joiners.cache, joiners.sources, first)
        key_N = torch.tensor([r.key for r in joiners.requests], device=self.place)
        self.timeline.join(first, key_N)
        if self.memory is not None:
            self.memory.join(first, [r.prompt for r in joiners.requests])
        if self.routes is not None:
            self.routes.join(first, joiners.routes)
        self.rows += joiners.requests
        self._find_next_cap()
        return joiners.logits_NV

    def _choose(self, logits_NV: Tensor, uniform_N: Tensor) -> tuple[Tensor, Tensor]:
        settings = self.settings
        logp_NV = temper(logits_NV, settings.temperature)
        if settings.faithful:
            token_N = draw(logp_NV, uniform_N)
        else:
            if settings.filters != ("temperature",):
                logits_NV = shape(logits_NV.double(), settings, self.memory)
            if settings.temperature == 0:
                token_N = greedy(logits_NV)
            else:
                token_N = draw(torch.log_softmax(logits_NV, -1), uniform_N)
        return token_N, logp_NV.gather(1, token_N[:, None]).squeeze(1)

    def _close_ranks(self, gone: list[int]) -> None:
        out = set(gone)
        order = self.cache.compact([slot for slot in range(len(self.rows)) if slot not in out])
        targets = [slot for slot, source in enumerate(order) if source != slot]
        if targets:
            sources = [order[slot] for slot in targets]
            self.timeline.move(sources, targets)
            if self.routes is not None:
                self.routes.move(sources, targets)
            if self.memory is not None:
                self.memory.move(torch.tensor(sources), torch.tensor(targets))
            self.token_N[targets] = self.token_N[sources]
        self.token_N = self.token_N[: len(order)]
        self.rows = [self.rows[source] for source in order]
        self._find_next_cap()

    def _find_next_cap(self) -> None:
        start = self.timeline.start
        self.next_cap = min((start[slot] + row.limit for slot, row in enumerate(self.rows)), default=0)
