"""What penalties remember of each row, and the one place where all filters are put in order."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lineal.generate.sampling import Sampling
from lineal.ops import filters


class Memory:
    """Per slot: how often each token was generated, which tokens occurred at all, and the tokens in order.

    Each of the three is kept only if a penalty of `settings` reads it.
    """

    def __init__(self, settings: Sampling, slots: int, vocabulary: int, device: torch.device | str = "cpu"):
        self.settings = settings
        by_sign = settings.repetition_penalty != 1 and settings.repetition_mode == "huggingface"
        by_count = settings.repetition_penalty != 1 and not by_sign
        counts = by_count or settings.frequency_penalty != 0 or settings.presence_penalty != 0
        self.count_BV = torch.zeros(slots, vocabulary, dtype=torch.int32, device=device) if counts else None
        self.seen_BV = torch.zeros(slots, vocabulary, dtype=torch.bool, device=device) if by_sign else None
        self.token_BT = (
            torch.zeros(slots, 0, dtype=torch.int64, device=device) if settings.no_repeat_ngram else None
        )
        self.length_B = torch.zeros(slots, dtype=torch.int64, device=device)

    def join(self, first: int, prompts: list[tuple[int, ...]]) -> None:
        """Rows with these prompts take the slots from `first` on."""
        for slot, prompt in enumerate(prompts, first):
            if self.count_BV is not None:
                self.count_BV[slot] = 0
            if self.seen_BV is not None:
                self.seen_BV[slot] = False
                self.seen_BV[slot, list(prompt)] = True
            if self.token_BT is not None:
                self._widen(len(prompt))
                self.token_BT[slot, : len(prompt)] = torch.tensor(prompt, device=self.token_BT.device)
            self.length_B[slot] = len(prompt)

    def move(self, source: Int[Tensor, " N"], target: Int[Tensor, " N"]) -> None:
        """The rows in slots `source` move to slots `target`."""
        for kept in (self.count_BV, self.seen_BV, self.token_BT, self.length_B):
            if kept is not None:
                kept[target] = kept[source]

    def push(self, token_N: Int[Tensor, " N"], longest: int) -> None:
        """Each of the first N slots generated a token; `longest` is the most tokens any of them now has."""
        rows = len(token_N)
        if self.count_BV is not None:
            self.count_BV[:rows].scatter_add_(
                1, token_N[:, None], torch.ones_like(token_N[:, None], dtype=torch.int32)
            )
        if self.seen_BV is not None:
            self.seen_BV[:rows].scatter_(1, token_N[:, None], True)
        if self.token_BT is not None:
            self._widen(longest)
            self.token_BT[:rows].scatter_(1, self.length_B[:rows, None], token_N[:, None])
        self.length_B[:rows] += 1

    def penalise(self, logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """The logits of the first N slots under this memory: repetition, frequency, presence, n-grams."""
        s, rows = self.settings, len(logits_NV)
        if self.seen_BV is not None:
            logits_NV = filters.repetition_huggingface(logits_NV, self.seen_BV[:rows], s.repetition_penalty)
        if self.count_BV is not None:
            count_NV = self.count_BV[:rows]
            if s.repetition_penalty != 1 and self.seen_BV is None:
                logits_NV = filters.repetition(logits_NV, count_NV, s.repetition_penalty)
            if s.frequency_penalty:
                logits_NV = filters.frequency(logits_NV, count_NV, s.frequency_penalty)
            if s.presence_penalty:
                logits_NV = filters.presence(logits_NV, count_NV, s.presence_penalty)
        if self.token_BT is not None:
            length_N = self.length_B[:rows]
            logits_NV = filters.no_repeat_ngram(logits_NV, self.token_BT[:rows], length_N, s.no_repeat_ngram)
        return logits_NV

    def _widen(self, needed: int) -> None:
        assert self.token_BT is not None
        have = self.token_BT.shape[1]
        if needed > have:
            self.token_BT = torch.nn.functional.pad(self.token_BT, (0, max(needed, 2 * have) - have))


def truncate(logits_NV: Float[Tensor, "N V"], settings: Sampling) -> Float[Tensor, "N V"]:
    """Top-k, then top-p, then min-p, on logits that the temperature has already divided."""
    if settings.top_k:
        logits_NV = filters.top_k(logits_NV, settings.top_k)
    if settings.top_p < 1:
        logits_NV = filters.top_p(logits_NV, settings.top_p)
    if settings.min_p:
        logits_NV = filters.min_p(logits_NV, settings.min_p)
    return logits_NV
