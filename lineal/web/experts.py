"""The picture of a mixture of experts: how much each expert takes, and which tokens it takes above its share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lineal.web.page import escape
from lineal.web.read import RunView

MOST = 64
"""Experts that are drawn of one layer; the busiest ones where there are more."""
ROW, BAR, LEFT, WIDE = 22, 130, 52, 1000
"""Pixels: height of a row, length of a bar of four fair shares, where bars begin, and width of the picture."""


def experts_section(run: RunView) -> str:
    """A picture for each mixture layer of the model as it ended; "" for a model without any."""
    records = [record for record in run.samples if record.get("kind") == "experts"]
    last = max((record["step"] for record in records), default=0)
    drawn = [_layer(record) for record in records if record["step"] == last]
    if not drawn:
        return ""
    note = (
        "One row for each expert. The bar is its share of all choices, the line the fair share. The words are the tokens "
        "that it takes most above its share; darker ones go to it more often than chance by a larger factor (·, ⏎: a "
        "blank, a line's end)."
    )
    return f'<h2>Which tokens each expert takes</h2><p class="soft">{note}</p>{"".join(drawn)}'


def _layer(record: Mapping[str, Any]) -> str:
    experts = list(enumerate(record["experts"]))
    fair = 1 / max(1, len(experts))
    busiest = sorted(experts, key=lambda pair: -pair[1]["share"])[:MOST]
    rows = "".join(_row(place, number, expert, fair) for place, (number, expert) in enumerate(busiest))
    height = ROW * len(busiest) + 8
    fair_x = LEFT + BAR / 4
    line = (
        f'<line x1="{fair_x}" y1="0" x2="{fair_x}" y2="{height}" stroke="currentColor" stroke-opacity="0.5" '
        'stroke-dasharray="3 3"/>'
    )
    more = f", the busiest {MOST} of {len(experts)}" if len(experts) > MOST else ""
    label = f"layer {record['layer']}{more}"
    return (
        f'<figure><figcaption>{escape(label)}</figcaption><svg viewBox="0 0 {WIDE} {height}" role="img" '
        f'aria-label="{escape(label)}" font-size="12" fill="currentColor">{line}{rows}</svg></figure>'
    )


def _row(place: int, number: int, expert: Mapping[str, Any], fair: float) -> str:
    y = ROW * place + 4
    length = min(4.0, expert["share"] / fair) * BAR / 4
    words = []
    for token, count, lift in expert["tokens"]:
        strength = min(1.0, 0.35 + 0.65 * min(1.0, lift * fair))
        title = f"{token!r}: {count} times, {lift:.1f} times chance"
        words.append(
            f'<tspan fill-opacity="{strength:.2f}" dx="10">{escape(_visible(token))}<title>{escape(title)}</title></tspan>'
        )
    return (
        f'<text x="0" y="{y + 13}">{number}</text>'
        f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="{ROW - 9}" fill-opacity="0.35">'
        f"<title>{expert['share']:.2%} of all choices</title></rect>"
        f'<text x="{LEFT + BAR + 4}" y="{y + 13}" font-family="monospace">{"".join(words)}</text>'
    )


def _visible(token: str) -> str:
    return token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥") or "∅"
