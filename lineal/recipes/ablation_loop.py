"""Runs of one algorithm with its code-level choices switched one at a time; each is an ordinary, resumable run."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lineal.errors import UsageError
from lineal.recipes import policy_gradient
from lineal.recipes.ablation import AblationConfig
from lineal.recipes.config import PolicyGradientConfig, to_json, with_options
from lineal.train.console import note
from lineal.train.metrics import read_lines
from lineal.train.run import Run

ALL_ON: dict[str, Any] = {"whiten": "rollout", "value_clip": 0.2, "reward_scaling": True, "orthogonal": True}
ADAM_ON: dict[str, Any] = {"schedule": "linear", "max_grad_norm": 1.0}
OFF: dict[str, dict[str, Any]] = {
    "advantage whitening": {"whiten": "off"},
    "value clipping": {"value_clip": 0.0},
    "reward scaling": {"reward_scaling": False},
    "orthogonal start": {"orthogonal": False},
    "rate annealing": {"schedule": "constant"},
    "gradient clip": {"max_grad_norm": 0.0},
}
"""Each choice and how it is switched off."""
ADAM_ONLY = ("rate annealing", "gradient clip")


def variants(config: AblationConfig) -> dict[str, PolicyGradientConfig]:
    """The run with every choice on, one run for each choice off, and the run with all of them off."""
    if config.ablation.base not in ("ppo", "ppo-kl", "trpo"):
        raise UsageError(f"--base {config.ablation.base}: the choices belong to ppo, ppo-kl and trpo.")
    plain = PolicyGradientConfig(**{f.name: getattr(config, f.name) for f in fields(PolicyGradientConfig)})
    natural = config.ablation.base == "trpo"
    on = ALL_ON if natural else ALL_ON | ADAM_ON
    base = with_options(plain, algorithm=config.ablation.base, **on)
    if natural:
        base = with_options(base, learning_rate=None)
    off = {name: change for name, change in OFF.items() if not (natural and name in ADAM_ONLY)}
    found = {"all on": base}
    found |= {f"without {name}": with_options(base, **change) for name, change in off.items()}
    found["all off"] = with_options(base, **{k: v for change in off.values() for k, v in change.items()})
    return found


def plan(config: AblationConfig) -> list[str]:
    """Which runs there will be."""
    runs = variants(config)
    lines = [f"{name}: {config.ablation.seeds} run(s) of {config.run.steps} steps" for name in runs]
    return [*lines, *policy_gradient.plan(runs["all on"])]


def run(config: AblationConfig, run: Run) -> None:
    """Make the runs that are not finished, then print the table and keep it as metrics."""
    lines = []
    for name, variant in variants(config).items():
        rises = []
        for seed in range(config.run.seed, config.run.seed + config.ablation.seeds):
            note(f"{name}, seed {seed}")
            folder = run.path / f"{name.replace(' ', '-')}-{seed}"
            rises.append(_rise(with_options(variant, out=str(folder), seed=seed, quiet=True), folder))
        lines.append((name, fmean(rises), rises))
    run.log(0, {"ablation": {name: rises for name, _, rises in lines}})
    best = lines[0][1]
    print(f"\n{'':32} gain in held-out accuracy   against all on")
    for name, mean, _ in lines:
        print(f"{name:32} {mean:+25.3f}   {mean - best:+14.3f}")


def _rise(config: PolicyGradientConfig, folder: Path) -> float:
    if not (folder / "final").exists():
        record = {"recipe": config.algorithm.algorithm, "options": to_json(config)}
        fresh = not (folder / "config.json").exists()
        with Run.create(folder, record) if fresh else Run.open(folder) as inner:
            policy_gradient.run(replace(config), inner)
    ends = [line["eval/accuracy"] for line in read_lines(folder / "metrics.jsonl") if line.get("eval/final")]
    return ends[-1] - ends[0]
