"""DAPO (Yu et al., 2025): GRPO with a higher upper clip, dynamic sampling and token weights within each prompt."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2025,
    title="DAPO: an open-source LLM reinforcement learning system at scale",
    url="https://arxiv.org/abs/2503.14476",
    departures=(
        "Weights are the formula's, 1 / sum of lengths within each prompt's group; the authors' code averages tokens over the batch, which is a named reduction.",
        "Dynamic sampling refills at most 8 times, then trains on what it has and says so.",
        "The soft overlong penalty is a reward shaper (--overlong-buffer), off by default.",
    ),
)
SUMMARY = "post-train with DAPO"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """DAPO on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="dapo")
