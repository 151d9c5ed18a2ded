"""Write the pages that have one source elsewhere: departures.md from the recipes, benchmarks.md from the results.

python docs/generate.py            (a test fails when either is out of date)
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from lineal.recipes import RECIPES

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"

SEEDS = (
    "PPO at advantage -2 and ratio 0.5 has zero gradient: nothing is reduced further; clipping acts on one side at a time.",
    "A baseline is free because the expectation of b grad log pi is 0, not because a constant drops out.",
    "PPO clips to the policy at the start of the update, not to a base model.",
    "The importance-sampling example with the sample [1, 1, 1, 3] gives 2.34375, self-normalised 2.142857, not 2.0.",
    "Token ratios are not an unbiased correction of a trajectory; the raw product of ratios is logged, never optimised.",
    "The quadratic of minorise-maximise is no general lower bound; the bounds tested here are those of the TRPO paper and of "
    "the expected-KL form of Achiam et al. (2017).",
    "An optimiser batch whose advantages are all zero takes no step: others let Adam's momentum move the weights.",
    "Groups are numbered 1..G, and a group's mean includes the completion itself unless a member says otherwise.",
)
"""Where the two documents that the project follows slip, and what is done instead."""


def departures() -> str:
    """Each recipe's departures from its paper."""
    parts = [
        "# Departures\n\nWhere a default differs from its paper, in a sentence each. Generated from the recipes."
    ]
    for name, where in RECIPES.items():
        paper = getattr(import_module(where), "PAPER", None)
        if paper is not None and paper.departures:
            lines = "\n".join(f"- {sentence}" for sentence in paper.departures)
            parts.append(f"## {name}\n\n[{paper.title}]({paper.url}) ({paper.year})\n\n{lines}")
    corrected = "\n".join(f"- {sentence}" for sentence in SEEDS)
    parts.append(f"## Corrected while following the literature\n\n{corrected}")
    return "\n\n".join(parts) + "\n"


def benchmarks() -> str:
    """Every saved result as a table."""
    parts = [
        "# Benchmarks\n\nEach figure is one command that measures us and the peer in one run. Generated from "
        "`benchmarks/results/`."
    ]
    for path in sorted(RESULTS.glob("*.json")):
        saved = json.loads(path.read_text())
        versions = ", ".join(f"{name} {version}" for name, version in saved["versions"].items())
        machine = saved["machine"]
        parts.append(
            f"## {path.stem}\n\n`python benchmarks/{path.stem}.py --json`, {saved['date'][:10]}, {machine['processor']}, "
            f"{machine['cores']} cores; {versions}\n"
        )
        rows = ["| figure | ours | peer | ratio | unit | bar | met |", "|---|---|---|---|---|---|---|"]
        for line in saved["figures"]:
            cells = [
                line["figure"],
                *(_number(line[key]) for key in ("ours", "peer", "ratio")),
                line["unit"],
                line["bar"],
            ]
            rows.append("| " + " | ".join(cells) + f" | {'yes' if line['ok'] else 'no'} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


PAGES = {"departures.md": departures, "benchmarks.md": benchmarks}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
