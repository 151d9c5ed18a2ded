"""Spans of tagged words, and how well whole spans are found, as conlleval counts (Tjong Kim Sang and De Meulder 2003)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[str, int, int]
"""(name, first word, one past the last)."""


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans of a sentence's tags, in IOB1 or IOB2: B begins one, and so does I where no span of its name goes on."""
    found: list[Span] = []
    name, start = "", 0
    for place, tag in enumerate((*tags, "O")):
        kind, _, own = tag.partition("-")
        if name and (kind != "I" or own != name):
            found.append((name, start, place))
            name = ""
        if kind in ("B", "I") and not name:
            name, start = own, place
    return found


@dataclass(frozen=True)
class SpanScores:
    """Precision, recall and F1 = 2PR/(P+R) of whole spans, 0 where undefined, and how many there are."""

    precision: float
    recall: float
    f1: float
    support: int


def span_scores(told: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> SpanScores:
    """The scores over all sentences: a span counts when its name and both its ends are right."""
    hits = said = there = 0
    for told_tags, right_tags in zip(told, right, strict=True):
        found, wanted = set(spans_of(told_tags)), set(spans_of(right_tags))
        hits, said, there = hits + len(found & wanted), said + len(found), there + len(wanted)
    precision, recall = hits / said if said else 0.0, hits / there if there else 0.0
    return SpanScores(precision, recall, 2 * hits / (said + there) if said + there else 0.0, there)
