"""Answers as stretches of a context: which tokens they are, the best stretch, and how well answers are found."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.train.finetune.inputs import Framed

LONGEST = 30
"""Most pieces of an answer, as in BERT's code."""


def span_targets(
    row: Sequence[Framed], places: Sequence[tuple[int, int]], answer: tuple[int, ...]
) -> list[int]:
    """Where the answer begins and ends in each window of a context: positions there, 0 twice where it is not inside.

    places: the characters of each piece of the context. answer: the characters between which it stands.
    """
    begin, end = answer
    inside = [i for i, (start, stop) in enumerate(places) if start < end and stop > begin]
    found = []
    for window in row:
        first = window.read[1] - window.skipped if len(window.read) > 1 else 0
        both = (inside[0] + first, inside[-1] + first) if inside else (0, 0)
        fits = len(window.read) > 1 and all(window.read[1] <= place <= window.read[-1] for place in both)
        found += both if fits else (0, 0)
    return found


def best_span(row: Sequence[Framed], score_MT: Float[Tensor, "M T"]) -> tuple[int, int, float]:
    """The first and last piece of the best answer in the context, and its probability within its window.

    The best: begin <= end < begin + 30 with the largest s_begin + s_end over all windows  (Devlin et al. 2018, section 4.2).
    """
    best = (-float("inf"), 0, 0, 0.0)
    for window, (begin_T, end_T) in zip(row, score_MT.view(-1, 2, score_MT.shape[-1]), strict=True):
        inside = list(window.read[1:])
        if not inside:
            continue
        both = begin_T[inside][:, None] + end_T[inside][None]
        allowed = torch.ones_like(both, dtype=torch.bool).triu() & ~torch.ones_like(
            both, dtype=torch.bool
        ).triu(LONGEST)
        value, place = both.masked_fill(~allowed, -torch.inf).flatten().max(0)
        if value > best[0]:
            first, last = divmod(int(place), len(inside))
            norm = begin_T.double().logsumexp(0) + end_T.double().logsumexp(0)
            sure = float((value.double() - norm).exp())
            best = (float(value), first + window.skipped, last + window.skipped, sure)
    return best[1:]


@dataclass(frozen=True)
class Answers:
    """Of answers: the share that is a right one word for word, and the mean F1 over words, both as SQuAD counts them.

    Lower case, without punctuation and articles (Rajpurkar et al. 2016); of several right answers the best counts.
    """

    exact: float
    f1: float

    def metrics(self) -> dict[str, float]:
        """As they go into metrics.jsonl."""
        return {f"eval/{name}": value for name, value in asdict(self).items()}


def answers(found: Sequence[str], gold: Sequence[Sequence[str]]) -> Answers:
    """How well answers agree with the right ones."""
    exact = sum(any(_plain(f) == _plain(g) for g in right) for f, right in zip(found, gold, strict=True))
    f1 = sum(max(_overlap(f, g) for g in right) for f, right in zip(found, gold, strict=True))
    return Answers(exact / len(found), f1 / len(found))


def _plain(text: str) -> list[str]:
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def _overlap(found: str, gold: str) -> float:
    a, b = _plain(found), _plain(gold)
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))
