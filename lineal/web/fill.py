"""What an encoder fills in, and what its pronoun refers to, as tables and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lineal.web.page import escape, table
from lineal.web.read import RunView

CELL, LEFT, TOP = 46, 150, 34
"""Side of a square, room for the words beside the rows, and above them."""


def fill_section(run: RunView) -> str:
    """The filled gaps and the probe of coreference of a run's end; "" where it has none."""
    filled = [record for record in run.samples if record.get("kind") == "fill"]
    probes = [record for record in run.samples if record.get("kind") == "coreference"]
    if not filled:
        return ""
    rows = [
        [
            str(record["text"]),
            "; ".join(", ".join(f"{word} {p:.2f}" for word, p in gap) for gap in record["words"]),
        ]
        for record in filled
    ]
    parts = ["<h2>Filled in</h2>", table(["text", "likeliest words"], rows, "pairs")]
    return "".join([*parts, *(_probe(record) for record in probes[-1:])])


def _probe(record: Mapping[str, Any]) -> str:
    """p(noun) in the pronoun's place for each cause; and how the pronoun's attention moves with the cause."""
    nouns, rows = [str(noun) for noun in record["nouns"]], record["rows"]
    head = ["too …", *(f"the {noun}" for noun in nouns)]
    cells = [[str(row["cause"]), *(f"{p:.2f}" for p in row["chosen"])] for row in rows]
    right = sum(row["chosen"][i] == max(row["chosen"]) for i, row in enumerate(rows))
    sentence = str(record["sentence"]).format("it", "…")
    return (
        f"<h3>What was too tired, what was too wide?</h3><p class='soft'>{escape(sentence)} The share of each noun in "
        f"place of <i>it</i>; {right} of {len(rows)} rows have the noun that makes sense (the diagonal).</p>"
        f"{table(head, cells, 'numbers')}"
        "<figure><figcaption><b>Where the pronoun looks</b>Share of the attention of <i>it</i> on each noun, the mean over a "
        f"layer's heads, for each of the causes.</figcaption>{_attention(nouns, rows)}</figure>"
    )


def _attention(nouns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        (f"{noun}, too {row['cause']}", row["attention"][i]) for i, noun in enumerate(nouns) for row in rows
    ]
    layers = len(lines[0][1])
    most = max((share for _, shares in lines for share in shares), default=1.0) or 1.0
    parts = [
        f'<text x="{LEFT + CELL * layer + CELL / 2}" y="{TOP - 8}" text-anchor="middle">{layer + 1}</text>'
        for layer in range(layers)
    ]
    for place, (name, shares) in enumerate(lines):
        y = TOP + CELL * place
        parts.append(f'<text x="{LEFT - 8}" y="{y + 27}" text-anchor="end">{escape(name)}</text>')
        for layer, share in enumerate(shares):
            x = LEFT + CELL * layer
            parts.append(
                f'<rect class="f0" x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" '
                f'fill-opacity="{0.06 + 0.7 * share / most:.2f}"><title>{escape(name)}, layer {layer + 1}</title></rect>'
                f'<text x="{x + CELL / 2 - 1}" y="{y + 27}" text-anchor="middle">{100 * share:.0f}%</text>'
            )
    size = f"0 0 {LEFT + CELL * layers + 8} {TOP + CELL * len(lines) + 8}"
    return f'<svg viewBox="{size}" role="img" aria-label="attention of the pronoun by layer">{"".join(parts)}</svg>'
