"""GRPO (Shao et al., 2024): the group's mean and standard deviation in place of a critic."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2024,
    title="DeepSeekMath: pushing the limits of mathematical reasoning in open language models",
    url="https://arxiv.org/abs/2402.03300",
    departures=(
        "The paper's KL to the reference policy (k3, in the loss) is off by default; --reference-kl 0.04 is the paper's.",
        "The standard deviation is over G - 1 with 1e-4 added, as common code has it; the paper writes std without saying which.",
    ),
)
SUMMARY = "post-train with GRPO"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """GRPO on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="grpo")
