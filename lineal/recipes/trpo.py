"""TRPO (Schulman et al., 2015): the best step inside a ball of mean KL, by conjugate gradient and a line search."""

from lineal.recipes.config import Paper, PolicyGradientConfig, with_options

PAPER = Paper(
    year=2015,
    title="Trust region policy optimization",
    url="https://arxiv.org/abs/1502.05477",
    departures=(
        "The advantage is generalised advantage estimation with a critic, whitened over the rollout; the paper estimates Q by Monte Carlo.",
        "The critic is fitted after the step, on its own parameters only, so that it cannot move the policy.",
        "A step whose backtracking finds nothing acceptable leaves the parameters bitwise unchanged.",
        "The mean KL runs over all counted tokens of the rollout; the paper also discusses the maximum over states.",
    ),
)
SUMMARY = "post-train with TRPO"
LOOP = "lineal.recipes.policy_gradient"


def default() -> PolicyGradientConfig:
    """TRPO on the embedded task."""
    return with_options(PolicyGradientConfig(), algorithm="trpo")
