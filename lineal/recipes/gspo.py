"""GSPO (Zheng et al., 2025): one ratio per completion, the geometric mean of its tokens' ratios."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2025,
    title="Group sequence policy optimization",
    url="https://arxiv.org/abs/2507.18071",
    departures=("The advantage is GRPO's, with 1e-4 added to the standard deviation.",),
)
SUMMARY = "post-train with GSPO"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """GSPO on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="gspo")
