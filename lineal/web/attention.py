"""Pictures of attention: for each layer and head a square per pair of tokens, darker where more is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lineal.web.page import escape, page

CELL, LETTER = 14, 7
"""Sides of a square, and about what a letter takes, in units of the drawing."""
LONGEST = 16
"""Letters of a token that are shown beside its row."""
FAINT = 0.005
"""Weights below this are not drawn: they could not be told from the paper."""
RULES = (
    ".maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}"
    ".maps figure{margin:0}.maps svg{width:100%;height:auto}.maps text{font-size:11px;fill:currentColor}"
    ".maps rect{fill:currentColor}.maps .frame{fill:none;stroke:currentColor;stroke-opacity:.25}"
)

Weights = Sequence[Sequence[Sequence[float]]]
"""One layer's weights by head, query and key."""


@dataclass(frozen=True)
class Maps:
    """What one attention of each layer looked at, while one sentence was translated.

    title: which of the three attentions. queries, keys: the tokens of the rows and of the columns. layers: weights.
    """

    title: str
    queries: Sequence[str]
    keys: Sequence[str]
    layers: Sequence[Weights]


def attention_page(source: str, target: str, parts: Sequence[Maps]) -> str:
    """One self-contained page with a picture per layer and head."""
    body = [
        f"<header><h1>Attention</h1><p>{escape(source)}</p><p>{escape(target)}</p>"
        '<p class="soft">Each row is a token that looks, each column one that is looked at; a row sums to 1.</p></header>'
    ]
    for maps in parts:
        body.append(f"<h2>{escape(maps.title)}</h2>")
        for number, layer in enumerate(maps.layers, 1):
            figures = "".join(_figure(maps, number, head, weights) for head, weights in enumerate(layer, 1))
            body.append(f'<h3>Layer {number}</h3><div class="maps">{figures}</div>')
    return page("attention", "\n".join(body), RULES)


def _figure(maps: Maps, layer: int, head: int, weights: Sequence[Sequence[float]]) -> str:
    left = 8 + LETTER * max(min(len(token), LONGEST) for token in maps.queries)
    top = 8 + LETTER * max(min(len(token), LONGEST) for token in maps.keys)
    wide, high = CELL * len(maps.keys), CELL * len(maps.queries)
    rows = [
        f'<text x="{left - 4}" y="{top + CELL * i + 11}" text-anchor="end">{escape(token[:LONGEST])}</text>'
        for i, token in enumerate(maps.queries)
    ]
    columns = [
        f'<text transform="translate({left + CELL * j + 11} {top - 4}) rotate(-90)">{escape(token[:LONGEST])}</text>'
        for j, token in enumerate(maps.keys)
    ]
    squares = [
        f'<rect x="{left + CELL * j}" y="{top + CELL * i}" width="{CELL}" height="{CELL}" fill-opacity="{weight:.2f}">'
        f"<title>{escape(query)} → {escape(key)}: {weight:.3f}</title></rect>"
        for i, (query, row) in enumerate(zip(maps.queries, weights, strict=True))
        for j, (key, weight) in enumerate(zip(maps.keys, row, strict=True))
        if weight >= FAINT
    ]
    frame = f'<rect class="frame" x="{left}" y="{top}" width="{wide}" height="{high}"/>'
    label = escape(f"{maps.title}, layer {layer}, head {head}")
    return (
        f'<figure><figcaption>head {head}</figcaption><svg viewBox="0 0 {left + wide + 4} {top + high + 4}" role="img" '
        f'aria-label="{label}">{"".join(rows)}{"".join(columns)}{"".join(squares)}{frame}</svg></figure>'
    )
