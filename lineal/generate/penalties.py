"""What penalties remember of each row, and the one place where all filters are put in order."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lineal.generate.sampling import Sampling
from lineal.ops import filters

PENALTIES = ("repetition", "frequency", "presence", "no_repeat_ngram")
"""The filters that depend on what came before."""


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

    def penalise(self, name: str, logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """The logits of the first N slots after one penalty: repetition, frequency, presence or no_repeat_ngram."""
        rows, value = len(logits_NV), self.settings.value(name)
        if name == "no_repeat_ngram":
            assert self.token_BT is not None
            return filters.no_repeat_ngram(logits_NV, self.token_BT[:rows], self.length_B[:rows], int(value))
        if name == "repetition" and self.seen_BV is not None:
            return filters.repetition_huggingface(logits_NV, self.seen_BV[:rows], value)
        assert self.count_BV is not None
        return COUNTING[name](logits_NV, self.count_BV[:rows], value)

    def _widen(self, needed: int) -> None:
        assert self.token_BT is not None
        have = self.token_BT.shape[1]
        if needed > have:
            self.token_BT = torch.nn.functional.pad(self.token_BT, (0, max(needed, 2 * have) - have))


COUNTING = {
    "repetition": filters.repetition,
    "frequency": filters.frequency,
    "presence": filters.presence,
}
"""The penalties that ask how often a token was generated."""


def act(
    name: str, logits_NV: Float[Tensor, "N V"], settings: Sampling, memory: Memory | None
) -> Float[Tensor, "N V"]:
    """The logits after the filter of that name.

    memory: what the rows have generated, where a penalty is on. Temperature 0 passes logits on as they are: greedy
    decoding takes the most probable of what is left at the end.
    """
    if name in PENALTIES:
        assert memory is not None
        return memory.penalise(name, logits_NV)
    if name == "temperature":
        return logits_NV / (settings.temperature or 1.0)
    if name == "top_k":
        return filters.top_k(logits_NV, settings.top_k)
    if name == "top_p":
        return filters.top_p(logits_NV, settings.top_p)
    return filters.min_p(logits_NV, settings.min_p)


def shape(logits_NV: Float[Tensor, "N V"], settings: Sampling, memory: Memory | None) -> Float[Tensor, "N V"]:
    """The logits after all filters that are on, in the order of `settings.filter_order`."""
    for name in settings.filters:
        logits_NV = act(name, logits_NV, settings, memory)
    return logits_NV
