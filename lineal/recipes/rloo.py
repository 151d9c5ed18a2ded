"""REINFORCE with a leave-one-out baseline over the samples of each prompt (Ahmadian et al., 2024)."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2024,
    title="Back to basics: revisiting REINFORCE style optimization for learning from human feedback in LLMs",
    url="https://arxiv.org/abs/2402.14740",
    departures=(
        "The paper subtracts KL to the reference from the reward; here that penalty is off unless --reference-kl sets it.",
    ),
)
SUMMARY = "post-train with RLOO"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """RLOO on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="rloo")
