"""Pictures of word vectors: a map of words with arrows of analogies, bars of neighbours, as SVG that stands alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lineal.errors import DataError
from lineal.web.page import escape

WIDTH, HEIGHT, MARGIN = 960, 640, 60
INK, SOFT, LINE, GROUND = "#1d1d1b", "#6a6861", "#e2dfd6", "#fbfaf7"
COLOURS = ("#1f5fa8", "#b4541a", "#2f7d4f", "#8a3f8f", "#8a7a1a", "#5c6670")
LEAST_BARS = 120
LETTER = 6.6
"""Width of a letter at 12 pixels, on average."""


@dataclass(frozen=True)
class Spot:
    """A word and its place; group: the number of its colour."""

    word: str
    x: float
    y: float
    group: int = 0


def map_svg(spots: Sequence[Spot], arrows: Sequence[tuple[str, str]] = (), title: str = "") -> str:
    """A map: a dot and a label for each word, and an arrow from the first to the second word of each pair.

    Both axes have one scale, so that parallel arrows look parallel. A label that would cover another one moves to another
    side of its dot. Raises DataError for no word, or an arrow of a word that has no place.
    """
    lost = {word for pair in arrows for word in pair} - {spot.word for spot in spots}
    if not spots or lost:
        raise DataError(
            f"There is no place on the map for {min(lost)!r}: add it." if lost else "A map needs a word."
        )
    at = _placed(spots)
    parts = [_opening(WIDTH, HEIGHT, title or "map of words")]
    parts.append(
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{SOFT}"/></marker></defs>'
    )
    for one, other in arrows:
        (x1, y1), (x2, y2) = at[one], at[other]
        length = math.hypot(x2 - x1, y2 - y1) or 1.0
        # It ends before the dot.
        x2, y2 = x2 - 6 * (x2 - x1) / length, y2 - 6 * (y2 - y1) / length
        parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{SOFT}" stroke-dasharray="5 4" '
            'marker-end="url(#tip)"/>'
        )
    boxes: list[tuple[float, float, float, float]] = [(x - 4, y - 4, x + 4, y + 4) for x, y in at.values()]
    for spot in spots:
        x, y = at[spot.word]
        colour = COLOURS[spot.group % len(COLOURS)]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        left, base = _label_place(x, y, LETTER * len(spot.word), boxes)
        parts.append(f'<text x="{left:.1f}" y="{base:.1f}" fill="{colour}">{escape(spot.word)}</text>')
    if title:
        parts.append(
            f'<text x="{MARGIN / 3:.0f}" y="24" fill="{INK}" font-weight="600">{escape(title)}</text>'
        )
    return "".join(parts) + "</svg>\n"


def bars_svg(word: str, neighbours: Sequence[tuple[str, float]]) -> str:
    """The neighbours of a word, a bar as long as each one's cosine."""
    row, left = 24, 20 + LETTER * max((len(name) for name, _ in neighbours), default=0)
    height = 48 + row * len(neighbours)
    # Long names make the picture wider, not the bars shorter.
    width = max(WIDTH // 2, math.ceil(left) + 2 * LEAST_BARS)
    scale = (width - left - 80) / max([1e-9, *(abs(score) for _, score in neighbours)])
    parts = [_opening(width, height, f"neighbours of {word}")]
    parts.append(f'<text x="12" y="24" fill="{INK}" font-weight="600">nearest to {escape(word)}</text>')
    for at, (name, score) in enumerate(neighbours):
        y = 40 + row * at
        wide = max(1.0, abs(score) * scale)
        parts.append(
            f'<text x="{left - 8:.1f}" y="{y + 13}" fill="{INK}" text-anchor="end">{escape(name)}</text>'
        )
        parts.append(
            f'<rect x="{left:.1f}" y="{y}" width="{wide:.1f}" height="{row - 7}" rx="3" '
            f'fill="{COLOURS[0] if score >= 0 else COLOURS[1]}"/>'
        )
        parts.append(f'<text x="{left + wide + 8:.1f}" y="{y + 13}" fill="{SOFT}">{score:.3f}</text>')
    return "".join(parts) + "</svg>\n"


def _opening(width: int, height: int, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="{width}" height="{height}" fill="{GROUND}" '
        f'stroke="{LINE}"/>'
    )


def _placed(spots: Sequence[Spot]) -> dict[str, tuple[float, float]]:
    """Where each word is drawn."""
    low_x, high_x = min(s.x for s in spots), max(s.x for s in spots)
    low_y, high_y = min(s.y for s in spots), max(s.y for s in spots)
    spread = max((high_x - low_x) / (WIDTH - 2 * MARGIN), (high_y - low_y) / (HEIGHT - 2 * MARGIN)) or 1.0
    mid_x, mid_y = (low_x + high_x) / 2, (low_y + high_y) / 2
    return {s.word: (WIDTH / 2 + (s.x - mid_x) / spread, HEIGHT / 2 - (s.y - mid_y) / spread) for s in spots}


def _label_place(
    x: float, y: float, wide: float, boxes: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Left end and base line of a label on that side of a dot where it covers least; its box joins the others."""
    sides = [(x + 7, y + 4), (x - 7 - wide, y + 4), (x - wide / 2, y - 8), (x - wide / 2, y + 16)]

    def covered(place: tuple[float, float]) -> float:
        left, base = place
        total = 0.0
        for west, north, east, south in boxes:
            across = min(left + wide, east) - max(left, west)
            down = min(base + 3, south) - max(base - 10, north)
            total += max(0.0, across) * max(0.0, down)
        outside = max(0.0, -left) + max(0.0, left + wide - WIDTH)
        return total + 100 * outside

    left, base = min(sides, key=covered)
    boxes.append((left, base - 10, left + wide, base + 3))
    return left, base
