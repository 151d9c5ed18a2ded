"""Pictures of how well classes are told: who is taken for whom, scores per class, and calibration."""

from __future__ import annotations

from collections.abc import Sequence

from lineal.web.page import escape, table
from lineal.web.read import RunView

CELL, LETTER, MOST = 46, 7, 24
"""Side of a square; about what a letter takes; classes that are drawn."""
SIDE, LEFT, BOTTOM = 240, 40, 30


def scores_section(run: RunView) -> str:
    """Confusion, scores per class and calibration of a run's last evaluation; "" where it told no classes."""
    records = [record for record in run.samples if record.get("kind") == "scores"]
    if not records:
        return ""
    record = records[-1]
    classes = record["classes"]
    rows = [
        [str(c["label"]), *(f"{c[name]:.3f}" for name in ("precision", "recall", "f1")), f"{c['support']:,}"]
        for c in classes
    ]
    head = ["class", "precision", "recall", "F1", "rows"]
    figures = (
        f"<figure><figcaption><b>Who is taken for whom</b>Rows: the right class. Columns: what was told. Darker: a larger "
        f"share of its row.</figcaption>{confusion([str(c['label']) for c in classes], record['confusion_CC'])}</figure>"
        f"<figure><figcaption><b>Calibration</b>Of rows told with this confidence, how many were right; on the line the "
        f"model means what it says. Expected calibration error {record['calibration_error']:.3f}, Brier "
        f"{record['brier']:.3f}.</figcaption>{reliability(record['bins'])}</figure>"
    )
    return f'<h2>Scores</h2>{table(head, rows, "numbers")}<div class="charts">{figures}</div>'


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A square per pair of classes with its number of rows."""
    shown = min(len(labels), MOST)
    left = 10 + LETTER * max(min(len(label), 14) for label in labels[:shown])
    size = CELL * shown
    parts = []
    for i in range(shown):
        total = max(1, sum(counts[i]))
        y = 20 + CELL * i
        parts.append(f'<text x="{left - 6}" y="{y + 27}" text-anchor="end">{escape(labels[i][:14])}</text>')
        parts.append(
            f'<text x="{left + CELL * i + CELL / 2}" y="14" text-anchor="middle">{escape(labels[i][:6])}</text>'
        )
        for j in range(shown):
            share, x = counts[i][j] / total, left + CELL * j
            said = f"{labels[i]} taken for {labels[j]}: {counts[i][j]} of {total}"
            parts.append(
                f'<rect class="f0" x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" '
                f'fill-opacity="{0.06 + 0.7 * share:.2f}"><title>{escape(said)}</title></rect>'
                f'<text x="{x + CELL / 2 - 1}" y="{y + 27}" text-anchor="middle">{counts[i][j]:,}</text>'
            )
    label = escape(f"confusion of {len(labels)} classes")
    return f'<svg viewBox="0 0 {left + size + 8} {size + 28}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def reliability(bins: Sequence[Sequence[float]]) -> str:
    """Accuracy over confidence, a dot per bin, larger where it has more rows."""
    most = max((rows for _, _, rows in bins), default=1)
    parts = [
        f'<line class="axis" x1="{LEFT}" y1="{SIDE - BOTTOM}" x2="{SIDE}" y2="{SIDE - BOTTOM}"/>',
        f'<line class="axis" x1="{LEFT}" y1="8" x2="{LEFT}" y2="{SIDE - BOTTOM}"/>',
        f'<line class="grid" x1="{LEFT}" y1="{SIDE - BOTTOM}" x2="{SIDE}" y2="8"/>',
    ]
    for tick in (0.0, 0.5, 1.0):
        x, y = _at(tick, tick)
        parts.append(f'<text x="{x:.0f}" y="{SIDE - 12}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>')
    for confidence, accuracy, rows in bins:
        x, y = _at(confidence, accuracy)
        said = f"confidence {confidence:.2f}: {accuracy:.2f} right, {rows} rows"
        size = 3 + 6 * (rows / most) ** 0.5
        parts.append(
            f'<circle class="dot f0" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"><title>{escape(said)}</title></circle>'
        )
    return f'<svg viewBox="0 0 {SIDE + 8} {SIDE}" role="img" aria-label="accuracy by confidence">{"".join(parts)}</svg>'


def _at(confidence: float, accuracy: float) -> tuple[float, float]:
    return LEFT + (SIDE - LEFT) * confidence, (SIDE - BOTTOM) - (SIDE - BOTTOM - 8) * accuracy
