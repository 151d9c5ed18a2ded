"""Dr. GRPO (Liu et al., 2025): GRPO without the standard deviation and without the division by length."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2025,
    title="Understanding R1-Zero-like training: a critical perspective",
    url="https://arxiv.org/abs/2503.20783",
    departures=(
        "Sums over tokens are divided by a constant fixed for the run, max_new_tokens, as the authors' code does; 1 gives the formula.",
    ),
)
SUMMARY = "post-train with Dr. GRPO"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """Dr. GRPO on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="dr-grpo")
