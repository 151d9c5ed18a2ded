"""Line charts as inline SVG: a faint line of what was measured, a bold one of its trend, ticks that people read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lineal.web.page import escape, show

Point = tuple[float, float]

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 8, 22
SMALL = (330, 180)
LABELLED = 150
"""Most points of a line that say their value when pointed at."""
DRAWN = 600
"""Most points of a line that are drawn; more are averaged."""


@dataclass(frozen=True)
class Line:
    """One line: its label and points (x, y); nan breaks it. smooth: draw its running mean over it in bold."""

    label: str
    points: tuple[Point, ...]
    smooth: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Scale:
    """The range of an axis and its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value stands between two ends."""
        return start + (end - start) * (value - self.low) / (self.high - self.low)


def ticks(low: float, high: float, wanted: int = 4) -> Scale:
    """Round numbers (1, 2 or 5 times a power of ten) that span low to high."""
    # Less than what a float can tell apart at this size would be one and the same tick.
    if not high - low > max(1e-9 * max(abs(low), abs(high)), 1e-300):
        margin = abs(low) * 0.1
        low, high = (low - margin, high + margin) if margin else (0.0, 1.0)
    rough = high / wanted - low / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next((m for m in (1.0, 2.0, 5.0) if m * power >= rough * 0.999), 10.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = tuple(round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1))
    return Scale(values[0], values[-1], values)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    note: str = "",
    hero: bool = False,
    floor: float | None = None,
    ceiling: float | None = None,
) -> str:
    """A figure with a caption, its lines over the training step, and a key when there are several.

    note: one sentence that says what the number means. hero: as wide as the page. floor, ceiling: values that the
    y axis must show.
    """
    finite = [(x, y) for line in lines for x, y in line.points if math.isfinite(y)]
    last = show(finite[-1][1]) if len(lines) == 1 and finite else ""
    caption = f"<figcaption><b>{escape(title)}</b>{escape(note)}</figcaption>"
    if not finite:
        return f'<figure>{caption}<p class="soft">no finite value was recorded</p></figure>'
    values = [y for _, y in finite] + [v for v in (floor, ceiling) if v is not None]
    across = ticks(min(x for x, _ in finite), max(x for x, _ in finite), 8 if hero else 4)
    across = Scale(min(x for x, _ in finite), max(x for x, _ in finite) or 1.0, across.ticks)
    if across.low == across.high:
        across = Scale(across.low - 1, across.high + 1, (across.low,))
    up = ticks(min(values), max(values))
    label = escape(f"{title}: {last}" if last else title)
    # Text in an SVG shrinks with it, so a wide figure is drawn once more for narrow screens.
    sizes = {"only-wide": (960, 290), "only-narrow": SMALL} if hero else {"": SMALL}
    drawings = [_drawing(lines, across, up, size, name, label) for name, size in sizes.items()]
    kind = ' class="hero"' if hero else ""
    return f"<figure{kind}>{caption}{_key(lines)}{''.join(drawings)}</figure>"


def _drawing(
    lines: Sequence[Line], across: Scale, up: Scale, size: tuple[int, int], name: str, label: str
) -> str:
    body = _axes(across, up, *size)
    for index, line in enumerate(lines):
        body += _draw(line, index % 6, across, up, size)
    head = f'class="{name}" viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{label}"'
    return f"<svg {head}>{body}</svg>"


def _axes(across: Scale, up: Scale, width: int, height: int) -> str:
    parts = []
    for tick in up.ticks:
        y = up.place(tick, height - BOTTOM, TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(tick)}</text>')
    for tick in across.ticks:
        if across.low <= tick <= across.high:
            x = across.place(tick, LEFT, width - RIGHT)
            parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{_tick(tick)}</text>')
    return "".join(parts)


def _tick(value: float) -> str:
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if sign == 'k' else size):.4g}{sign}"
    return f"{value:.4g}"


def _draw(line: Line, index: int, across: Scale, up: Scale, size: tuple[int, int]) -> str:
    def at(point: Point) -> Point:
        return across.place(point[0], LEFT, size[0] - RIGHT), up.place(point[1], size[1] - BOTTOM, TOP)

    points = thin(line.points, DRAWN)
    kind = "raw" if line.smooth else "trend"
    parts = [f'<path class="{kind} s{index}" d="{_path([at(p) for p in points])}"/>']
    if line.smooth:
        parts.append(f'<path class="trend s{index}" d="{_path([at(p) for p in running_mean(points)])}"/>')
    finite = [p for p in points if math.isfinite(p[1])]
    shown = finite if line.dots or len(finite) == 1 else finite[-1:]
    parts += [f'<circle class="dot f{index}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in map(at, shown)]
    for point in finite[:: max(1, math.ceil(len(finite) / LABELLED))]:
        x, y = at(point)
        said = escape(f"{line.label}, step {show(point[0])}: {show(point[1])}")
        parts.append(f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="7"><title>{said}</title></circle>')
    return "".join(parts)


def _path(points: Sequence[Point]) -> str:
    parts, pen = [], "M"
    for x, y in points:
        if not math.isfinite(y):
            pen = "M"
            continue
        parts.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(parts)


def _key(lines: Sequence[Line]) -> str:
    if len(lines) < 2:
        return ""
    items = [
        f'<li><svg viewBox="0 0 14 10" aria-hidden="true"><path class="trend s{i % 6}" d="M1 5L13 5"/></svg>'
        f"{escape(line.label)}</li>"
        for i, line in enumerate(lines)
    ]
    return f'<ul class="key">{"".join(items)}</ul>'


def running_mean(points: Sequence[Point], share: float = 0.04) -> list[Point]:
    """Each point averaged with its neighbours, within `share` of the line on either side; nan stays nan."""
    half = max(1, round(len(points) * share))
    result = []
    for i, (x, y) in enumerate(points):
        # As many on the left as on the right: a lopsided window would bend the ends.
        reach = min(half, i, len(points) - 1 - i)
        near = [v for _, v in points[i - reach : i + reach + 1] if math.isfinite(v)]
        result.append((x, math.fsum(near) / len(near) if math.isfinite(y) else math.nan))
    return result


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points, each the mean of a stretch; the last one stays as it is."""
    if len(points) <= most:
        return list(points)
    edges = [round(i * (len(points) - 1) / (most - 1)) for i in range(most)]
    result = []
    for start, end in itertools.pairwise(edges):
        part = points[start:end]
        result.append(tuple(math.fsum(axis) / len(part) for axis in zip(*part)))
    return [*result, points[-1]]
