"""Hidden words filled in by an encoder, and what a sentence's pronoun refers to, as a probe of two sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lineal.errors import UsageError
from lineal.generate.prefill import evaluating
from lineal.models.bert import Bert
from lineal.models.multihead import Pass
from lineal.tokenizers.pipeline import Pipeline

MASK = "[MASK]"


@dataclass(frozen=True)
class Filler:
    """An encoder with its tokenizer, as it fills in words."""

    model: Bert
    tokenizer: Pipeline

    def ids(self, text: str) -> list[int]:
        """[CLS] text [SEP], with [MASK] wherever the text says so; UsageError where it does not fit."""
        ids = [*self._named("[CLS]"), *self.tokenizer.encode(text, special=True), *self._named("[SEP]")]
        if len(ids) > self.model.config.context:
            raise UsageError(
                f"the text has {len(ids)} tokens with [CLS] and [SEP], and the model reads {self.model.config.context}: give "
                "a shorter one."
            )
        return ids

    def _named(self, token: str) -> list[int]:
        found = self.tokenizer.id(token)
        if found is None:
            raise UsageError(f"the vocabulary has no {token}: the model is no BERT.")
        return [found]

    @torch.no_grad()
    def probabilities(self, text: str) -> Tensor:
        """p(word) at each [MASK] of a text, [M, V]; UsageError for a text without one."""
        ids = self.ids(text)
        (mask,) = self._named(MASK)
        at_M = torch.tensor([i for i, token in enumerate(ids) if token == mask], device=self.model.device)
        if not len(at_M):
            raise UsageError(f"there is nothing to fill in: write {MASK} where a word is missing.")
        token_BT = torch.tensor([ids], device=self.model.device)
        with evaluating(self.model):
            hidden_TD = self.model(token_BT, torch.zeros_like(token_BT))[0]
            logits_MV = self.model.words(hidden_TD[at_M]).double()
        # What no text contains is no answer.
        hidden_V = torch.ones(logits_MV.shape[1], dtype=torch.bool, device=logits_MV.device)
        hidden_V[self._answers()] = False
        return logits_MV.masked_fill(hidden_V, -torch.inf).softmax(-1)

    def _answers(self) -> list[int]:
        """The tokens that a text can contain."""
        return [i for i in range(self.tokenizer.vocab_size) if i not in self.tokenizer.special_ids]

    def fill(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
        """For each [MASK] of a text its likeliest words, with their probabilities; each mask is filled by itself."""
        found = self.probabilities(text).topk(min(top, len(self._answers())), -1)
        return [
            [(self.word(i), p) for i, p in zip(ids, values, strict=True)]
            for ids, values in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]

    def word(self, token: int) -> str:
        """How a token is written."""
        return self.tokenizer.token(token).decode("utf-8", "replace")

    @torch.no_grad()
    def looks(self, text: str) -> tuple[list[str], Tensor]:
        """The tokens of a text and who looks at whom, [L, H, T, T]."""
        ids = self.ids(text)
        maps: list[Tensor] = []
        token_BT = torch.tensor([ids], device=self.model.device)
        with evaluating(self.model):
            self.model(token_BT, torch.zeros_like(token_BT), None, Pass(maps=maps))
        return [self.word(i) for i in ids], torch.cat(maps)


SENTENCES = (
    "The [MASK] of England lived in London.",
    "She opened the [MASK] and went into the house.",
    "He was a man of [MASK] years.",
    "It was the first [MASK] of the day.",
)
"""What the report shows filled in."""
COREFERENCE = "The animal did not cross the street because {} was too {}."
NOUNS, CAUSES = ("animal", "street"), ("tired", "wide")
"""An animal is tired, a street is wide (Winograd's way of asking)."""


def fillings(filler: Filler, sentences: Sequence[str] = SENTENCES) -> list[dict[str, Any]]:
    """Each sentence with the likeliest words of its gaps, as samples.jsonl takes them."""
    return [
        {
            "kind": "fill",
            "text": text,
            "words": [[[w, round(p, 4)] for w, p in gap] for gap in filler.fill(text)],
        }
        for text in sentences
    ]


def coreference(filler: Filler) -> dict[str, Any]:
    """The probe: what was too tired, what was too wide.

    chosen: p(noun) where the pronoun's place is "the [MASK]", of both nouns together. attention: how much of the pronoun's
    attention goes to each noun, the mean over heads of each layer.
    """
    rows = []
    for cause in CAUSES:
        p_V = filler.probabilities(COREFERENCE.format(f"the {MASK}", cause))[0]
        nouns = [sum(p_V[i].item() for i in filler.tokenizer.encode(noun)[:1]) for noun in NOUNS]
        tokens, map_LHTT = filler.looks(COREFERENCE.format("it", cause))
        rows.append(
            {
                "cause": cause,
                "chosen": [p / max(sum(nouns), 1e-300) for p in nouns],
                "attention": [_seen(filler, tokens, map_LHTT, noun) for noun in NOUNS],
            }
        )
    return {"kind": "coreference", "sentence": COREFERENCE, "nouns": NOUNS, "rows": rows}


def _seen(filler: Filler, tokens: list[str], map_LHTT: Tensor, noun: str) -> list[float]:
    """How much the pronoun looks at a noun, by layer; a noun of several pieces has the sum of theirs."""
    pieces = [filler.word(i) for i in filler.tokenizer.encode(noun)]
    pronoun = [filler.word(i) for i in filler.tokenizer.encode("it")]
    at, it = _find(tokens, pieces), _find(tokens, pronoun)
    return map_LHTT[:, :, it.start, at.start : at.stop].sum(-1).mean(1).tolist()


def _find(tokens: list[str], pieces: list[str]) -> range:
    for start in range(len(tokens)):
        if tokens[start : start + len(pieces)] == pieces:
            return range(start, start + len(pieces))
    return range(1)
