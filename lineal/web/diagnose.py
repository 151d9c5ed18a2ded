"""Why is nothing learning? What a run's own numbers say, each finding with the thing to try."""

from __future__ import annotations

import math
from collections.abc import Callable

from lineal.web.diagnose_control import CONTROL_CHECKS
from lineal.web.findings import Finding, clipping, damaged, late_mean, refused
from lineal.web.page import show
from lineal.web.read import RunView


def diagnose(run: RunView) -> list[Finding]:
    """Everything that stands out in a run, worst first; a run in which nothing does gets one good finding."""
    control = "environment" in run.options
    found = [finding for check in (CONTROL_CHECKS if control else CHECKS) for finding in check(run)]
    if not found:
        what = "returns vary, the critic follows them" if control else "rewards vary within groups"
        return [Finding("good", f"Nothing stands out: {what} and every step was finite.")]
    return sorted(found, key=lambda finding: ("bad", "warn", "good").index(finding.level))


def _equal_groups(run: RunView) -> list[Finding]:
    share = late_mean(run, "frac_reward_zero_std")
    reward = late_mean(run, "reward")
    if share is None or share < 0.5:
        return []
    level = "bad" if share > 0.95 else "warn"
    text = f"In the last quarter {share:.0%} of the groups got the same reward for every sample: they teach nothing."
    if reward is not None and reward > 0.8 * max(run.values("reward")):
        first = run.first("reward")
        if first is not None and reward > first:
            return [
                Finding(
                    "good",
                    text + " The reward is near its best, so the prompts have become easy.",
                    "Harder prompts, or stop here.",
                )
            ]
    remedy = "More samples per prompt (--group-size), easier prompts, a finer reward, or --algorithm dapo."
    return [Finding(level, text, remedy)]


def _flat_reward(run: RunView) -> list[Finding]:
    spread = run.values("reward_std")
    if not spread or max(spread) > 1e-9:
        return []
    value = show(run.last("reward"))
    return [
        Finding(
            "bad",
            f"Every completion of every step got the reward {value}.",
            "Look at the samples: is the answer's form what the reward expects? Try sft first, or another --reward.",
        )
    ]


def _truncated(run: RunView) -> list[Finding]:
    share = late_mean(run, "completions/clipped_ratio")
    if share is None or share < 0.2:
        return []
    return [
        Finding(
            "warn",
            f"{share:.0%} of the completions were cut at the length limit and could not finish.",
            "Raise --max-new-tokens, or add --overlong-buffer so that long answers cost something.",
        )
    ]


def _mismatch(run: RunView) -> list[Finding]:
    worst = max(run.values("sampling/sampling_logp_difference/max"), default=0.0)
    mean = late_mean(run, "sampling/sampling_logp_difference/mean") or 0.0
    if mean < 0.01 and worst < 1.0:
        return []
    return [
        Finding(
            "warn",
            f"Sampler and trainer disagree on log-probabilities: mean {show(mean)}, at most {show(worst)}.",
            "--dtype float32 removes rounding; a filter or penalty during sampling would do this too.",
        )
    ]


def _entropy(run: RunView) -> list[Finding]:
    first, last = run.first("entropy"), late_mean(run, "entropy")
    accuracy = late_mean(run, "reward")
    if first is None or last is None or first <= 0 or last > 0.05 * first:
        return []
    if accuracy is not None and accuracy > 0.9:
        return []
    return [
        Finding(
            "warn",
            f"Entropy fell from {show(first)} to {show(last)}: the policy hardly varies any more.",
            "A lower --learning-rate, an --entropy bonus, or a larger --clip-high keeps it exploring.",
        )
    ]


def _still(run: RunView) -> list[Finding]:
    norms = run.values("grad_norm")
    if norms and max(norms) == 0.0:
        return [
            Finding(
                "bad",
                "Every gradient was exactly zero.",
                "All groups were equal, or every ratio was clipped: see the shares above.",
            )
        ]
    return []


def _rejected(run: RunView) -> list[Finding]:
    accepted = run.values("trust_region/accepted")
    if not accepted or math.fsum(accepted) > 0.5 * len(accepted):
        return []
    return [
        Finding(
            "warn",
            f"The line search accepted {math.fsum(accepted) / len(accepted):.0%} of its steps.",
            "A smaller --max-kl or more prompts per step gives the quadratic model a better chance.",
        )
    ]


def _failures(run: RunView) -> list[Finding]:
    found = []
    for name in run.names():
        failed = math.fsum(run.values(name))
        if name.startswith("rewards/") and name.endswith("/failed") and failed:
            reward = name.split("/")[1]
            found.append(
                Finding(
                    "warn",
                    f"Reward {reward} failed on {failed:,.0f} completions.",
                    "The terminal named the first; on that sample it raised, hung or returned no number.",
                )
            )
    return found


CHECKS: tuple[Callable[[RunView], list[Finding]], ...] = (
    _flat_reward,
    _still,
    refused,
    _equal_groups,
    _truncated,
    _mismatch,
    _entropy,
    clipping,
    _rejected,
    _failures,
    damaged,
)
