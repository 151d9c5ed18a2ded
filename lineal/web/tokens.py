"""A page that shows how a tokenizer cuts texts: each token in its colour, its id and bytes on hovering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lineal.tokenizers.inspecting import Cell, visible
from lineal.web.page import escape, page, show, table

RULES = """
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; font: .95rem/1.9 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.tokens span { border-radius: 4px; padding: .15rem 0; color: var(--ink); }
.tokens .k0 { background: color-mix(in srgb, var(--c0) 28%, transparent); }
.tokens .k1 { background: color-mix(in srgb, var(--c1) 28%, transparent); }
.tokens .k2 { background: color-mix(in srgb, var(--c2) 28%, transparent); }
.tokens .k3 { background: color-mix(in srgb, var(--c3) 28%, transparent); }
.tokens .k4 { background: color-mix(in srgb, var(--c4) 28%, transparent); }
.tokens .none { text-decoration: line-through; color: var(--soft); }
"""
COLOURS = 5


@dataclass(frozen=True)
class Shown:
    """A text cut into cells."""

    name: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """A title, a head and rows."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tokens_page(name: str, texts: Sequence[Shown], tables: Sequence[Table]) -> str:
    """The page: no script, nothing loaded, all of it escaped."""
    body = [f"<header><h1>{escape(name)}</h1></header>"]
    for text in texts:
        count = sum(len(cell.ids) for cell in text.cells)
        size = sum(len(cell.text.encode("utf-8", "replace")) for cell in text.cells)
        figure = f"{show(count)} tokens, {show(size)} bytes: {show(size / max(1, count))} bytes per token"
        body.append(
            f'<h2>{escape(text.name)}</h2><p class="soft">{figure}</p><p class="tokens">{_spans(text.cells)}</p>'
        )
        ids = " ".join(str(index) for cell in text.cells for index in cell.ids)
        body.append(f'<p class="mono soft">{ids}</p>')
    body += [
        f"<h2>{escape(part.title)}</h2>{table(list(part.head), [list(row) for row in part.rows], 'numbers')}"
        for part in tables
        if part.rows
    ]
    return page(f"Tokens of {name}", "\n".join(body), RULES)


def _spans(cells: Sequence[Cell]) -> str:
    parts = []
    at = 0
    for cell in cells:
        shown = escape(readable(cell.text))
        if not cell.ids:
            parts.append(f'<span class="none" title="no token">{shown}</span>')
            continue
        told = " + ".join(f"{index} {visible(token)}" for index, token in zip(cell.ids, cell.tokens))
        parts.append(f'<span class="k{at % COLOURS}" title="{escape(told)}">{shown}</span>')
        at += 1
    return "".join(parts)


def readable(text: str) -> str:
    """A stretch of a text to be shown in its place: spaces stay, a line break is marked and kept, controls are pictures."""
    lines = text.split("\n")
    return "⏎\n".join(visible(line.encode("utf-8", "surrogatepass"), " ") for line in lines)
