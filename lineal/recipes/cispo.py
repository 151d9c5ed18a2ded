"""CISPO (MiniMax, 2025): clip the importance weight, stop its gradient, keep every token's log-likelihood gradient."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2025,
    title="MiniMax-M1: scaling test-time compute efficiently with lightning attention",
    url="https://arxiv.org/abs/2506.13585",
    departures=(
        "Written with the log-ratio in place of the log-likelihood: the value differs by a constant, the gradient does not.",
        "Both bounds are kept; the paper leaves the lower one open in its experiments.",
    ),
)
SUMMARY = "post-train with CISPO"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """CISPO on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="cispo")
