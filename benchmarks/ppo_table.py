"""Table 1 of the PPO paper anew: clip, adaptive KL, fixed KL, neither, on MuJoCo's tasks, by the same numbers.

    python benchmarks/ppo_table.py [--json] [--save] [--jobs 2] [--quick]

Numbers of the paper's section 6.1; as in its code, observations are normalised, advantages are whitened over the rollout,
and gradients are not clipped. 5 seeds, 100,000 steps (the paper's million is --env-steps 1000000). A cell's score is the mean return of its last 100 episodes, scaled so that
random play is 0 and the environment's best cell 1; a variant's is the interquartile mean of its cells, with a 95 %
interval from a bootstrap stratified by environment (Agarwal et al. 2021). Cells are ordinary runs: finished ones are
skipped, interrupted ones resumed. --save also draws docs/ppo_table.svg. Needs the extra `mujoco`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import harness

from lineal.train.metrics import read_lines

ENVIRONMENTS = (
    "HalfCheetah-v5",
    "Hopper-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Swimmer-v5",
)
SEEDS = (0, 1, 2, 3, 4)
FILE = Path(__file__).parent / "ppo_variants.py"
NUMBERS = {
    "--preset": "plain", "--envs": "1", "--rollout-steps": "2048", "--epochs": "10", "--minibatches": "32",
    "--learning-rate": "3e-4", "--discount": "0.99", "--trace-decay": "0.95", "--whiten": "rollout",
    "--max-grad-norm": "0",
}  # fmt: skip
NORMALISED = ("--normalise-observations",)
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "clip, 0.2": ("ppo", {"--clip": "0.2"}),
    "adaptive KL, target 0.01": ("ppo-kl", {"--target-kl": "0.01"}),
    "fixed KL, beta 3": ("ppo-kl", {"--algorithm": f"{FILE}:fixed_kl"}),
    "no clip and no penalty": ("ppo-kl", {"--algorithm": f"{FILE}:neither"}),
}
"""The best setting of each kind in the paper's table: 0.82, 0.74, 0.72 and -0.39 there."""
BOOTSTRAPS = 20_000


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Every cell, then one figure per variant."""
    environments = ENVIRONMENTS[2:4] if arguments.quick else ENVIRONMENTS
    seeds = SEEDS[:2] if arguments.quick else SEEDS
    steps = min(arguments.env_steps, 20_000) if arguments.quick else arguments.env_steps
    places = [(v, e, s) for s in seeds for e in environments for v in VARIANTS]
    cells = []
    for variant, environment, seed in places:
        recipe, own = VARIANTS[variant]
        options = NUMBERS | own | {"--env": environment, "--seed": str(seed), "--env-steps": str(steps)}
        folder = (
            arguments.cells / f"{variant.replace(', ', '-').replace(' ', '-')}-{environment}-{steps}-{seed}"
        )
        cells.append(harness.Cell(folder, recipe, options, NORMALISED))
    folders = dict(zip(places, harness.run_cells(cells, arguments.jobs), strict=True))
    ends = {place: scores(folder) for place, folder in folders.items()}
    scaled = {
        variant: np.array([scaled_scores(ends, variant, e, seeds) for e in environments])
        for variant in VARIANTS
    }
    found = {variant: (middle(x_ES), *interval(x_ES)) for variant, x_ES in scaled.items()}
    for variant, (score, low, high) in found.items():
        first = variant == next(iter(VARIANTS))
        details = {"interval": [round(low, 3), round(high, 3)], "env_steps": steps} | {
            e: [round(ends[variant, e, s][1], 1) for s in seeds] for e in environments
        }
        floor = found["no clip and no penalty"][0]
        yield harness.Figure(
            f"{variant}: interquartile mean of scaled returns", score, None, "0 random, 1 best",
            "above no clip and no penalty" if first else "as found", not first or score > floor, None, seeds, details,
        )  # fmt: skip
    if arguments.save:
        picture = Path(__file__).parents[1] / "docs" / "ppo_table.svg"
        picture.write_text(draw(found, f"{len(environments)} tasks, {len(seeds)} seeds, {steps:,} steps"))


def scores(folder: Path) -> tuple[float, float]:
    """Mean return of the first iteration that ended an episode, and of the last 100 episodes."""
    lines = [line for line in read_lines(folder / "metrics.jsonl") if "return_100" in line]
    return lines[0]["return"], lines[-1]["return_100"]


def scaled_scores(
    ends: dict[tuple[str, str, int], tuple[float, float]],
    variant: str,
    environment: str,
    seeds: tuple[int, ...],
) -> list[float]:
    """A variant's scores on one environment: 0 is random play, 1 the best of all cells there."""
    here = [pair for (_, e, _), pair in ends.items() if e == environment]
    random, best = float(np.mean([begun for begun, _ in here])), max(end for _, end in here)
    return [(ends[variant, environment, seed][1] - random) / (best - random) for seed in seeds]


def middle(score_ES: np.ndarray) -> float:
    """The mean of the middle half."""
    ordered = np.sort(score_ES, axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def interval(score_ES: np.ndarray) -> tuple[float, float]:
    """A 95 % interval: seeds drawn anew within each environment."""
    random = np.random.default_rng(0)
    environments, seeds = score_ES.shape
    drawn = random.integers(0, seeds, (BOOTSTRAPS, environments, seeds))
    sampled = np.sort(np.take_along_axis(score_ES[None], drawn, 2).reshape(BOOTSTRAPS, -1), axis=1)
    cut = sampled.shape[1] // 4
    low, high = np.quantile(sampled[:, cut : sampled.shape[1] - cut].mean(1), (0.025, 0.975))
    return float(low), float(high)


def draw(found: dict[str, tuple[float, float, float]], note: str) -> str:
    """Each variant's score as a dot on its interval."""
    low = min(0.0, *(x[1] for x in found.values()))
    place = lambda x: 210 + 330 * (x - low) / (1 - low)  # noqa: E731
    rows = []
    for index, (variant, (score, left, right)) in enumerate(found.items()):
        y = 34 + 30 * index
        rows.append(
            f'<text x="200" y="{y + 4}" text-anchor="end">{variant}</text>'
            f'<line x1="{place(left):.1f}" x2="{place(right):.1f}" y1="{y}" y2="{y}" stroke="#36c" stroke-width="6" '
            f'stroke-opacity=".35"/><circle cx="{place(score):.1f}" cy="{y}" r="5" fill="#36c"/>'
            f'<text x="{place(right) + 8:.1f}" y="{y + 4}" fill="#666">{score:.2f}</text>'
        )
    bottom = 34 + 30 * len(found)
    axis = "".join(
        f'<line x1="{place(x):.1f}" x2="{place(x):.1f}" y1="18" y2="{bottom}" stroke="#999" stroke-dasharray="2 3"/>'
        f'<text x="{place(x):.1f}" y="{bottom + 14}" text-anchor="middle" fill="#666">{label}</text>'
        for x, label in ((0.0, "random play"), (1.0, "best run"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 {bottom + 40}" font-family="sans-serif" '
        f'font-size="13" fill="#222"><rect width="100%" height="100%" fill="white"/>{axis}{"".join(rows)}'
        f'<text x="10" y="{bottom + 34}" fill="#666" font-size="11">Interquartile mean and 95 % interval; {note}</text></svg>\n'
    )


def options(parser: argparse.ArgumentParser) -> None:
    """This benchmark's own arguments."""
    parser.add_argument("--quick", action="store_true", help="2 tasks, 2 seeds, 20,000 steps")
    parser.add_argument("--env-steps", type=int, default=100_000, help="steps of each cell")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument(
        "--cells", type=Path, default=Path("benchmarks/cells/ppo_table"), help="where the runs go"
    )


if __name__ == "__main__":
    raise SystemExit(harness.main("ppo_table", measure, options))
