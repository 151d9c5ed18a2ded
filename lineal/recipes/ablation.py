"""The code-level choices of PPO and TRPO, one switched off at a time (Engstrom et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2020,
    title="Implementation matters in deep policy gradients: a case study on PPO and TRPO",
    url="https://arxiv.org/abs/2005.12729",
    departures=(
        "On text; the choices that belong to environments (observation normalisation) have no place here.",
    ),
)
SUMMARY = "what each code-level choice of PPO or TRPO is worth, as a table"
LOOP = "lineal.recipes.ablation_loop"
ESSENTIAL = ("out", "model", "base", "steps", "prompts", "group_size", "learning_rate", "seeds")


@dataclass(frozen=True)
class AblationOptions:
    """Which algorithm is taken apart, and how often."""

    base: str = "ppo"
    """ppo, ppo-kl or trpo."""
    seeds: int = 1
    """Runs of each variant, with consecutive seeds."""


def _base() -> PolicyGradientConfig:
    return with_options(
        PolicyGradientConfig(), algorithm="ppo", steps=40, prompts=32, group_size=4, learning_rate=3e-4
    )


@dataclass(frozen=True)
class AblationConfig(PolicyGradientConfig):
    """The options of a policy-gradient run, and what is taken out of it."""

    ablation: AblationOptions = field(default_factory=AblationOptions)


def default() -> AblationConfig:
    """PPO on the embedded task."""
    base = _base()
    return AblationConfig(**vars(base))
