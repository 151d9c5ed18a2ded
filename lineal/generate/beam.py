"""Beam search: the most probable completions, as far as a beam of hypotheses finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lineal.errors import UsageError
from lineal.generate.prefill import cache_dtype, evaluating, read_prompts, room
from lineal.generate.step import one_token_pass
from lineal.models.cache import KeyValueCache
from lineal.models.decoder import Decoder
from lineal.types import Completion


@dataclass(frozen=True)
class Hypothesis:
    """A completion and its score, sum of logp / length^length_penalty; the length counts the end token."""

    completion: Completion
    score: float


@dataclass(frozen=True)
class BeamSearch:
    """How wide and how long to search, and how length counts.

    beams: hypotheses kept per prompt, and answers given.
    length_penalty: alpha in sum_t logp(y_t) / |y|^alpha; 0 compares plain sums (which favours short completions),
    1 compares means.
    max_batch: most hypotheses decoded at once; prompts beyond it are searched afterwards.
    """

    beams: int = 4
    max_new_tokens: int = 256
    length_penalty: float = 1.0
    max_batch: int = 512

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name, least in (("beams", 1), ("max_new_tokens", 1), ("length_penalty", 0), ("max_batch", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at least {least}.")

    def score(self, logp: float, length: int) -> float:
        """sum of logp / length^length_penalty."""
        return logp / length**self.length_penalty

    def __call__(
        self, model: Decoder, prompts: Sequence[Sequence[int]], eos_id: int | None = None
    ) -> list[list[Hypothesis]]:
        """The best `beams` completions of each prompt, best first.

        A prompt's search ends when no unfinished hypothesis can still beat the worst of `beams` finished ones: the
        sum of logp only falls, so its best score to come is that sum over the longest length allowed.
        Completions that reach `max_new_tokens` or the context finish there, with finish "length".
        """
        limits = [room(model, i, prompt, self.max_new_tokens) for i, prompt in enumerate(prompts)]
        at_once = max(1, self.max_batch // self.beams)
        found: list[list[Hypothesis]] = []
        with evaluating(model):
            for first in range(0, len(prompts), at_once):
                part = slice(first, first + at_once)
                searches = [_Search(self, limit, eos_id) for limit in limits[part]]
                _run(model, [tuple(prompt) for prompt in prompts[part]], searches)
                found += [search.answer() for search in searches]
        return found


@dataclass
class _Search:
    """One prompt's beam: unfinished hypotheses as (sum of logp, ids, logp of each), and the finished ones."""

    settings: BeamSearch
    limit: int
    eos_id: int | None
    live: list[tuple[float, tuple[int, ...], tuple[float, ...]]] = field(
        default_factory=lambda: [(0.0, (), ())]
    )
    done: list[Hypothesis] = field(default_factory=list)

    def extend(self, candidates: list[tuple[int, int, float]]) -> list[int]:
        """Take the best continuations (hypothesis, token, logp), best first; gives the parents of the new beam."""
        live, parents = [], []
        for parent, token, logp in candidates:
            total, ids, logps = self.live[parent]
            grown = (total + logp, (*ids, token), (*logps, logp))
            if token == self.eos_id:
                self._finish(grown, "stop")
            elif len(live) < self.settings.beams:
                live.append(grown)
                parents.append(parent)
        self.live = live
        if live and len(live[0][1]) == self.limit:
            for hypothesis in live:
                self._finish(hypothesis, "length")
            self.live = []
        full = len(self.done) == self.settings.beams
        if full and live and self.settings.score(live[0][0], self.limit) <= self.done[-1].score:
            self.live = []
        return parents if self.live else []

    def answer(self) -> list[Hypothesis]:
        """The finished hypotheses, best first."""
        return self.done

    def _finish(self, grown: tuple[float, tuple[int, ...], tuple[float, ...]], finish: str) -> None:
        total, ids, logps = grown
        score = self.settings.score(total, len(ids))
        self.done.append(Hypothesis(Completion(ids, logps, finish), score))
        self.done.sort(key=lambda hypothesis: -hypothesis.score)
        del self.done[self.settings.beams :]


def _run(model: Decoder, prompts: list[tuple[int, ...]], searches: list[_Search]) -> None:
    """Search all prompts together; their hypotheses lie in the cache one prompt after the other."""
    prompt_cache, logits_NV = read_prompts(model, prompts, cache_dtype(model))
    beams = searches[0].settings.beams
    longest = max(len(p) + s.limit for p, s in zip(prompts, searches, strict=True))
    cache = KeyValueCache(model.config, len(prompts) * beams, longest, prompt_cache.store.dtype, model.device)
    cache.adopt(prompt_cache, range(len(prompts)), 0)
    read = one_token_pass(model)
    while True:
        order = _extend(searches, logits_NV)
        if not order:
            return
        cache.reorder(order)
        tokens = [hypothesis[1][-1] for search in searches for hypothesis in search.live]
        token_N, here = torch.tensor(tokens, device=model.device), slice(0, len(tokens))
        hidden_ND = read(token_N, cache, cache.plan(here, len(tokens), 1))
        cache.advance(here, len(tokens), 1)
        logits_NV = model.logits(hidden_ND)


def _extend(searches: list[_Search], logits_NV: Tensor) -> list[int]:
    """Let every search take its best continuations; gives, for each row of the next step, its row in this one."""
    logp_NV = torch.log_softmax(logits_NV, -1, dtype=torch.float64)
    vocabulary, order, row = logits_NV.shape[1], [], 0
    for search in searches:
        rows = len(search.live)
        if not rows:
            continue
        total_N1 = torch.tensor([[h[0]] for h in search.live], dtype=torch.float64, device=logits_NV.device)
        own_NV = logp_NV[row : row + rows]
        # At most one continuation of each hypothesis ends it: twice the beam leaves enough that do not.
        best = (total_N1 + own_NV).flatten().topk(min(2 * search.settings.beams, rows * vocabulary))
        flat = best.indices
        picked = [*zip((flat // vocabulary).tolist(), (flat % vocabulary).tolist(), strict=True)]
        logp = own_NV.flatten()[flat].tolist()
        order += [
            row + p for p in search.extend([(p, t, lp) for (p, t), lp in zip(picked, logp, strict=True)])
        ]
        row += rows
    return order
