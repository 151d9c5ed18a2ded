"""What the numbers of a run on an environment say: returns, episodes, the critic, and how far each update went."""

from __future__ import annotations

import math
from collections.abc import Callable

from lineal.web.findings import Finding, clipping, damaged, late_mean, refused
from lineal.web.page import show
from lineal.web.read import RunView


def _returns(run: RunView) -> list[float]:
    """What the run is judged by: the true return where the reward was learned."""
    return run.values("true_return") or run.values("return_100")


def _no_episode(run: RunView) -> list[Finding]:
    if _returns(run) or not run.metrics:
        return []
    text = f"No episode ended in {int(run.last('env_steps') or 0):,} steps, so there is no return of training yet."
    return [Finding("warn", text, "More --env-steps, or an environment whose episodes are shorter.")]


def _same_return(run: RunView) -> list[Finding]:
    values = _returns(run)
    if len(values) < 3 or max(values) - min(values) > 1e-9:
        return []
    remedy = "A sparse reward needs exploration: an --entropy bonus, a larger --log-std, more --env-steps."
    return [
        Finding(
            "bad",
            f"Every episode returned {show(values[-1])}: there is nothing to tell good from bad.",
            remedy,
        )
    ]


def _fallen(run: RunView) -> list[Finding]:
    values = _returns(run)
    if len(values) < 10:
        return []
    late, spread = math.fsum(values[-3:]) / 3, max(values) - min(values)
    if spread <= 1e-9 or max(values) - late < 0.3 * spread or late <= values[0]:
        return []
    text = f"The return reached {show(max(values))} and fell back to {show(late)}: late updates undid what was learned."
    return [Finding("warn", text, "--schedule linear, a lower --learning-rate, fewer --epochs, or trpo.")]


def _no_rise(run: RunView) -> list[Finding]:
    values = _returns(run)
    if len(values) < 10 or max(values) - min(values) <= 1e-9:
        return []
    few = max(1, len(values) // 10)
    first, late = (math.fsum(part) / few for part in (values[:few], values[-few:]))
    if late > first + 0.02 * abs(first):
        return []
    text = f"The return did not rise: {show(first)} at first, {show(late)} at the end."
    return [
        Finding(
            "warn", text, "More --env-steps, --normalise-observations, or the tuned numbers of --preset zoo."
        )
    ]


def _critic(run: RunView) -> list[Finding]:
    explained = late_mean(run, "explained_variance")
    if explained is None or explained > 0.05:
        return []
    text = f"The critic explains {explained:.0%} of the returns' variance: advantages are little more than returns."
    remedy = "--normalise-rewards, a larger --value-coefficient (--critic-epochs with trpo), or a higher --learning-rate."
    return [Finding("warn", text, remedy)]


def _entropy(run: RunView) -> list[Finding]:
    first, last, values = run.first("entropy"), late_mean(run, "entropy"), _returns(run)
    if first is None or last is None or not values:
        return []
    # That of real-valued actions may be negative, and falls by 1 when a deviation is divided by e.
    narrow = last < 0.05 * first if min(run.values("entropy")) >= 0 else first - last > 3
    settled = values[-1] >= max(values) - 0.05 * (max(values) - min(values))
    if not narrow or settled:
        return []
    text = f"Entropy fell from {show(first)} to {show(last)}: the policy hardly varies its actions any more."
    return [Finding("warn", text, "An --entropy bonus, a lower --learning-rate, or a larger --log-std.")]


def _kl(run: RunView) -> list[Finding]:
    kl = late_mean(run, "kl")
    if kl is None or kl < 0.1 or run.values("trust_region/accepted"):
        return []
    text = f"Each update moves the policy far: mean KL(old || new) {show(kl)} per step."
    return [Finding("warn", text, "A lower --learning-rate, fewer --epochs, a smaller --clip, or ppo-kl.")]


def _line_search(run: RunView) -> list[Finding]:
    accepted, residual = run.values("trust_region/accepted"), late_mean(run, "trust_region/cg_residual")
    found = []
    if accepted and math.fsum(accepted) <= 0.5 * len(accepted):
        share = math.fsum(accepted) / len(accepted)
        text = f"The line search kept {share:.0%} of its steps; after the others the policy was what it had been."
        found.append(
            Finding("warn", text, "A smaller --max-kl, more --rollout-steps, or a larger --damping.")
        )
    if residual is not None and residual > 0.5:
        text = f"Conjugate gradient left {residual:.0%} of the gradient unexplained."
        found.append(Finding("warn", text, "More --cg-iterations, or a larger --damping."))
    return found


def _shorter(run: RunView) -> list[Finding]:
    first, late, values = run.first("episode_length"), late_mean(run, "episode_length"), _returns(run)
    if first is None or late is None or late > 0.5 * first or not values or values[-1] >= values[0]:
        return []
    text = f"Episodes became shorter, from {show(first)} to {show(late)} steps, and returned less: ending early has become the habit."
    return [
        Finding(
            "warn",
            text,
            "Watch one (lineal record); a lower --learning-rate, or a reward that does not pay for ending.",
        )
    ]


def _still(run: RunView) -> list[Finding]:
    norms = run.values("grad_norm")
    if not norms or max(norms) > 0:
        return []
    return [
        Finding(
            "bad",
            "Every gradient was exactly zero.",
            "Every advantage was 0: look whether rewards ever vary.",
        )
    ]


def _learned_reward(run: RunView) -> list[Finding]:
    found = []
    pearson, accuracy = (
        late_mean(run, "reward_model/pearson"),
        late_mean(run, "reward_model/validation_accuracy"),
    )
    if pearson is not None and pearson < 0.3:
        text = f"The learned reward hardly follows the true one: correlation {show(pearson)} on new steps."
        found.append(Finding("warn", text, "More --labels, a longer --segment, or --pairs uniform."))
    if accuracy is not None and accuracy < 0.6:
        text = f"Of labels that were held out the reward predicts {accuracy:.0%}, hardly more than chance."
        found.append(
            Finding("warn", text, "More --labels, or look whether the answers contradict each other.")
        )
    return found


CONTROL_CHECKS: tuple[Callable[[RunView], list[Finding]], ...] = (
    _same_return,
    _still,
    refused,
    _no_episode,
    _no_rise,
    _fallen,
    _critic,
    _entropy,
    _kl,
    clipping,
    _line_search,
    _shorter,
    _learned_reward,
    damaged,
)
