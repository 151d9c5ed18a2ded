"""PPO with clipping (Schulman et al., 2017): several epochs on each rollout, with a critic and generalised advantages."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2017,
    title="Proximal policy optimization algorithms",
    url="https://arxiv.org/abs/1707.06347",
    departures=(
        "The clip is to the policy at the start of the update, as in the paper, not to the base model.",
        "Objective and value loss are means over all counted tokens; the sum over each completion is a named reduction.",
        "Advantages are whitened over the rollout, a choice of common code that the paper does not state; --whiten off removes it.",
    ),
)
SUMMARY = "post-train with PPO"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """PPO on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="ppo")
