"""PPO with an adaptive KL penalty (Schulman et al., 2017, section 4)."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2017,
    title="Proximal policy optimization algorithms",
    url="https://arxiv.org/abs/1707.06347",
    departures=(
        "KL(old || new) is exact over the vocabulary, from a frozen copy of the old policy, not estimated from samples.",
        "beta adapts once per iteration, after the last epoch, from the mean KL of the whole rollout.",
    ),
)
SUMMARY = "post-train with PPO-KL"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """PPO-KL on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="ppo-kl")
