"""Draw docs/demo.svg from a run of the demonstration:    python docs/picture.py runs/demo-1"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 300, 56, 40, 24, 190
STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#444}.axis{stroke:#999;stroke-width:1}.grid{stroke:#ddd}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}.grid{stroke:#444}}</style>"
)


def lines(path: Path) -> list[dict[str, Any]]:
    """The metrics of a run."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def smooth(values: list[float], width: int = 15) -> list[float]:
    """Running mean."""
    return [
        sum(values[max(0, i - width + 1) : i + 1]) / len(values[max(0, i - width + 1) : i + 1])
        for i in range(len(values))
    ]


def draw(run: Path) -> str:
    """Reward of the training samples, held-out accuracy before and after, and the control's."""
    found = lines(run)
    steps = [line for line in found if "reward" in line]
    ends = [line for line in found if line.get("eval/final")]
    control = [line for line in lines(run / "control") if line.get("eval/final")]
    last = steps[-1]["step"]

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value

    parts = [STYLE]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2f}</text>')
    rewards = smooth([line["reward"] for line in steps])
    points = " ".join(f"{x(line['step']):.1f},{y(r):.1f}" for line, r in zip(steps, rewards, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="#2a7ae2" stroke-width="2"/>')
    marks = [(0, ends[0], "before"), (last, ends[-1], "after")]
    for step, line, word in marks:
        value = line["eval/accuracy"]
        parts.append(f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="5" fill="#d2451e"/>')
        side = 'text-anchor="start"'
        parts.append(
            f'<text x="{x(step) + 10:.1f}" y="{y(value) + (18 if step == 0 else 4):.1f}" {side}>{word}: {value:.2f} held out</text>'
        )
    if control:
        value = control[-1]["eval/accuracy"]
        parts.append(
            f'<circle cx="{x(last):.1f}" cy="{y(value):.1f}" r="4" fill="none" stroke="#888" stroke-width="2"/>'
        )
        parts.append(
            f'<text x="{x(last) + 10:.1f}" y="{y(value) + 20:.1f}">control (sft): {value:.2f}</text>'
        )
    parts.append(
        f'<text x="{LEFT}" y="{HEIGHT - 10}">steps of reinforcement learning (0 to {last}); line: reward of training samples</text>'
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>\n'


if __name__ == "__main__":
    (Path(__file__).parent / "demo.svg").write_text(draw(Path(sys.argv[1])), encoding="utf-8")
