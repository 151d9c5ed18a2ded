"""A picture of one distribution on its way through the filters: a column per filter, a bar per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lineal.web.page import escape, page, show, table

COLUMN, ROW, HEAD, GAP, LETTER = 172, 22, 58, 14, 7.2
"""Width of a column and height of a row; of the heading; between columns; about what a letter takes."""
LONGEST = 18
"""Letters of a token that are shown."""
RULES = (
    ".filters text{fill:var(--ink,#1d1d1b)}.filters .soft{fill:var(--soft,#6a6861)}"
    ".filters .now{fill:var(--c0,#1f5fa8)}.filters .before{fill:none;stroke:var(--soft,#6a6861);stroke-dasharray:2 2}"
    ".filters .rule{stroke:var(--line,#e2dfd6)}.filters .cut{fill:var(--bad,#b3261e)}"
    ".filters .drawn{font-weight:600}"
)


@dataclass(frozen=True)
class Column:
    """The distribution after one filter.

    name, what: the filter and its formula. probabilities: of the tokens shown, None where cut. kept: tokens that can
    still be drawn. entropy: in nats.
    """

    name: str
    what: str
    probabilities: Sequence[float | None]
    kept: int
    entropy: float


@dataclass(frozen=True)
class Distribution:
    """Tokens (as shown), the columns from the model's own distribution on, and which token is drawn (its row)."""

    tokens: Sequence[str]
    columns: Sequence[Column]
    drawn: int


def svg(found: Distribution, *, alone: bool = False) -> str:
    """The picture; alone: a file of its own, with its style inside."""
    left = 12 + LETTER * max(min(len(token), LONGEST) for token in found.tokens)
    width = left + len(found.columns) * (COLUMN + GAP)
    height = HEAD + ROW * len(found.tokens) + 24
    scale = max((p or 0.0) for column in found.columns for p in column.probabilities) or 1.0
    parts = []
    for row, token in enumerate(found.tokens):
        kind = ' class="drawn"' if row == found.drawn else ""
        y = HEAD + ROW * row + 15
        parts.append(
            f'<text{kind} x="{left - 8:.0f}" y="{y}" text-anchor="end">{escape(token[:LONGEST])}</text>'
        )
    before: Sequence[float | None] = [None] * len(found.tokens)
    for number, column in enumerate(found.columns):
        parts.append(_column(column, before, left + number * (COLUMN + GAP), scale, height))
        before = column.probabilities
    head = 'xmlns="http://www.w3.org/2000/svg" ' if alone else ""
    label = "probabilities before and after each filter"
    style = f"<style>{RULES}text{{font:12px system-ui,sans-serif}}</style>" if alone else ""
    size = f'width="{width:.0f}" height="{height}" ' if alone else ""
    return (
        f'<svg {head}{size}class="filters" viewBox="0 0 {width:.0f} {height}" role="img" aria-label="{label}">{style}'
        f"{''.join(parts)}</svg>"
    )


def _column(column: Column, before: Sequence[float | None], x: float, scale: float, height: int) -> str:
    room = COLUMN - 58
    parts = [
        f'<text class="drawn" x="{x:.0f}" y="16">{escape(column.name)}</text>',
        f'<text class="soft" x="{x:.0f}" y="32"><title>{escape(column.what)}</title>{escape(column.what[:30])}</text>',
        f'<line class="rule" x1="{x:.0f}" x2="{x:.0f}" y1="{HEAD - 8}" y2="{height - 24}"/>',
        f'<text class="soft" x="{x:.0f}" y="{height - 6}">{column.kept:,} kept, {column.entropy:.2f} nats</text>',
    ]
    for row, (now, was) in enumerate(zip(column.probabilities, before, strict=True)):
        y = HEAD + ROW * row
        if was is not None:
            parts.append(
                f'<rect class="before" x="{x + 1:.1f}" y="{y + 3}" width="{room * was / scale:.1f}" height="{ROW - 7}"/>'
            )
        if now is None:
            parts.append(
                f'<text class="cut" x="{x + 5:.1f}" y="{y + 15}">×</text>' if was is not None else ""
            )
            continue
        wide = room * now / scale
        parts.append(f'<rect class="now" x="{x + 1:.1f}" y="{y + 4}" width="{wide:.1f}" height="{ROW - 9}"/>')
        beside = max(wide, room * (was or 0.0) / scale)
        parts.append(f'<text class="soft" x="{x + beside + 6:.1f}" y="{y + 15}">{now:.3f}</text>')
    return "".join(parts)


def distribution_page(title: str, prompt: str, found: Distribution) -> str:
    """A self-contained page with the picture and the same numbers as a table."""
    head = ["token", *(column.name for column in found.columns)]
    rows = [
        [token, *("×" if (p := column.probabilities[i]) is None else f"{p:.4f}" for column in found.columns)]
        for i, token in enumerate(found.tokens)
    ]
    rows.append(["tokens kept", *(show(column.kept) for column in found.columns)])
    rows.append(["entropy, nats", *(f"{column.entropy:.3f}" for column in found.columns)])
    formulas = [[column.name, column.what] for column in found.columns]
    body = (
        f"<header><h1>{escape(title)}</h1><p>{escape(prompt)}</p>"
        '<p class="soft">Filters from left to right in the order in which they act. Dashed: before the filter. '
        "×: can no longer be drawn. Bold: the token that is drawn.</p></header>"
        f'<div class="wide">{svg(found)}</div><h2>Numbers</h2>{table(head, rows, "numbers")}'
        f"<h2>Formulas</h2>{table([], formulas, 'pairs')}"
    )
    return page(title, body, RULES)
