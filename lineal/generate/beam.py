"""Beam search: the most probable completions, as far as a beam of hypotheses finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lineal.errors import UsageError
from lineal.generate.prefill import Speaker, cache_dtype, evaluating, memory_for, read_prompts, room
from lineal.generate.step import one_token_pass
from lineal.ops.filters import no_repeat_ngram
from lineal.types import Completion


@runtime_checkable
class Reader(Protocol):
    """What beam search asks of a model: the logits behind some hypotheses, which it keeps in mind in their order."""

    def start(self) -> Tensor:
        """Logits [P, V] of the first token of each of P searches."""
        ...

    def read(self, order: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Logits [N, V] behind N hypotheses, each being the one at `order[i]` of the last call and `tokens[i]`."""
        ...


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
    no_repeat_ngram: no sequence of this many tokens occurs twice in prompt and completion; 0 turns it off.
    stop_ids: tokens that end a completion, beside the end-of-text token.
    """

    beams: int = 4
    max_new_tokens: int = 256
    length_penalty: float = 1.0
    max_batch: int = 512
    no_repeat_ngram: int = 0
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        least_of = {
            "beams": 1,
            "max_new_tokens": 1,
            "length_penalty": 0,
            "max_batch": 1,
            "no_repeat_ngram": 0,
        }
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at least {least}.")

    def score(self, logp: float, length: int) -> float:
        """sum of logp / length^length_penalty."""
        return logp / length**self.length_penalty

    def __call__(
        self, model: Speaker, prompts: Sequence[Sequence[int]], eos_id: int | None = None
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
                own = [tuple(prompt) for prompt in prompts[part]]
                reader = _Continuing(model, own, limits[part], self.beams)
                found += self.search(reader, limits[part], eos_id, prompts=own)
        return found

    def search(
        self,
        reader: Reader,
        limits: Sequence[int],
        eos_id: int | None,
        banned: Sequence[int] = (),
        prompts: Sequence[tuple[int, ...]] | None = None,
    ) -> list[list[Hypothesis]]:
        """The best hypotheses of each of P searches that share a reader.

        limits: longest completion of each. banned: ids that no hypothesis takes; the probabilities of the others stay
        what they are, here and where n-grams are blocked. prompts: whose n-grams count too.
        """
        ends = frozenset(self.stop_ids if eos_id is None else (eos_id, *self.stop_ids))
        starts = prompts or [()] * len(limits)
        searches = [_Search(self, limit, ends, prompt) for limit, prompt in zip(limits, starts, strict=True)]
        logits_NV = reader.start()
        while order := _extend(searches, logits_NV, banned):
            logits_NV = reader.read(order, [live[1][-1] for search in searches for live in search.live])
        return [search.done for search in searches]


@dataclass
class _Search:
    """One prompt's beam: unfinished hypotheses as (sum of logp, ids, logp of each), and the finished ones."""

    settings: BeamSearch
    limit: int
    ends: frozenset[int]
    prompt: tuple[int, ...] = ()
    live: list[tuple[float, tuple[int, ...], tuple[float, ...]]] = field(
        default_factory=lambda: [(0.0, (), ())]
    )
    done: list[Hypothesis] = field(default_factory=list)

    def extend(self, candidates: list[tuple[int, int, float]]) -> list[int]:
        """Take the best continuations (hypothesis, token, logp), best first; gives the parents of the new beam.

        One that ends counts only among the best `beams`, as in fairseq and transformers, so that a beam of 1 is greedy.
        """
        live, parents = [], []
        for rank, (parent, token, logp) in enumerate(candidates):
            total, ids, logps = self.live[parent]
            grown = (total + logp, (*ids, token), (*logps, logp))
            if token in self.ends:
                if rank < self.settings.beams:
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

    def _finish(self, grown: tuple[float, tuple[int, ...], tuple[float, ...]], finish: str) -> None:
        total, ids, logps = grown
        score = self.settings.score(total, len(ids))
        self.done.append(Hypothesis(Completion(ids, logps, finish), score))
        self.done.sort(key=lambda hypothesis: -hypothesis.score)
        del self.done[self.settings.beams :]


class _Continuing:
    """A decoder that continues prompts; their hypotheses lie in its cache one prompt after the other."""

    def __init__(self, model: Speaker, prompts: list[tuple[int, ...]], limits: Sequence[int], beams: int):
        self._model, self._prompts, self._beams = model, prompts, beams
        self._longest = max(len(p) + limit for p, limit in zip(prompts, limits, strict=True))
        self._read = one_token_pass(model)

    def start(self) -> Tensor:
        model, count = self._model, len(self._prompts)
        dtype = cache_dtype(model)
        prompt_cache, logits_NV = read_prompts(model, self._prompts, dtype)
        self._cache = memory_for(model, count * self._beams, self._longest, dtype)
        self._cache.adopt(prompt_cache, range(count), 0)
        return logits_NV

    def read(self, order: Sequence[int], tokens: Sequence[int]) -> Tensor:
        cache, here = self._cache, slice(0, len(tokens))
        cache.reorder(order)
        token_N = torch.tensor(tokens, device=self._model.device)
        hidden_ND = self._read(token_N, cache, cache.plan(here, len(tokens), 1))
        cache.advance(here, len(tokens), 1)
        return self._model.logits(hidden_ND)


def _extend(searches: list[_Search], logits_NV: Tensor, banned: Sequence[int] = ()) -> list[int]:
    """Let every search take its best continuations; gives, for each row of the next step, its row in this one."""
    if not any(search.live for search in searches):
        return []
    wide_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    lse_N1 = torch.logsumexp(wide_NV, -1, keepdim=True).double()
    if banned:
        wide_NV = wide_NV.index_fill(1, torch.tensor(banned, device=wide_NV.device), float("-inf"))
    if searches[0].settings.no_repeat_ngram:
        wide_NV = _without_repeats(searches, wide_NV)
    # So many continuations of each hypothesis may end it: the rest of `most` leaves enough that do not.
    most = (1 + max(1, len(searches[0].ends))) * searches[0].settings.beams
    best = wide_NV.topk(min(most, wide_NV.shape[1]))
    logp_NK, token_NK = best.values.double() - lse_N1, best.indices
    live = [search for search in searches if search.live]
    totals = [hypothesis[0] for search in live for hypothesis in search.live]
    total_NK = logp_NK + torch.tensor(totals, dtype=torch.float64, device=logp_NK.device)[:, None]
    # All searches at once, each a row of its own.
    counts, taken = [len(search.live) for search in live], total_NK.shape[1]
    flat_PM = _by_search(total_NK, counts, float("-inf")).topk(min(most, max(counts) * taken)).indices
    logps, tokens = (_by_search(x, counts, 0).gather(1, flat_PM).tolist() for x in (logp_NK, token_NK))
    parents, order, row = (flat_PM // taken).tolist(), [], 0
    for number, search in enumerate(live):
        candidates = zip(parents[number], tokens[number], logps[number], strict=True)
        possible = [c for c in candidates if c[0] < counts[number] and c[2] > float("-inf")]
        order += [row + p for p in search.extend(possible)]
        row += counts[number]
    return order


def _by_search(x_NK: Tensor, counts: list[int], fill: float) -> Tensor:
    """The numbers of each search's hypotheses side by side [P, most * K], filled up where a search has fewer."""
    if min(counts) == max(counts):
        return x_NK.view(len(counts), -1)
    table_PLK = x_NK.new_full((len(counts), max(counts), x_NK.shape[1]), fill)
    there_PL = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    table_PLK[there_PL.to(x_NK.device)] = x_NK
    return table_PLK.flatten(1)


def _without_repeats(searches: list[_Search], logits_NV: Tensor) -> Tensor:
    """The logits without the tokens that would complete an n-gram for the second time."""
    said = [[*search.prompt, *live[1]] for search in searches for live in search.live]
    lengths = [len(ids) for ids in said]
    padded = [[*ids, *[0] * (max(lengths) - len(ids))] for ids in said]
    device = logits_NV.device
    history_NT, length_N = torch.tensor(padded, device=device), torch.tensor(lengths, device=device)
    return no_repeat_ngram(logits_NV, history_NT.long(), length_N, searches[0].settings.no_repeat_ngram)
