"""REINFORCE with a running-mean baseline (Williams, 1992): the log-likelihood of what was sampled, times how good it was."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=1992,
    title="Simple statistical gradient-following algorithms for connectionist reinforcement learning",
    url="https://doi.org/10.1007/BF00992696",
    departures=(
        "The baseline is the running mean of past rewards; a learned critic is one `replace` away.",
        "AdamW carries out the step, where the paper takes plain gradient ascent.",
    ),
)
SUMMARY = "post-train with REINFORCE"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """REINFORCE on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="reinforce")
