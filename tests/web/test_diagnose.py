"""Each finding appears when its numbers say so, with something to try, and stays away otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lineal.web.diagnose import Finding, diagnose, late_mean
from lineal.web.read import read_run

MakeRun = Callable[..., Path]
GOOD: dict[str, Any] = {
    "reward": 0.5,
    "reward_std": 0.4,
    "frac_reward_zero_std": 0.1,
    "completions/clipped_ratio": 0.0,
    "entropy": 0.5,
    "grad_norm": 1.0,
    "clip_ratio/region_mean": 0.01,
    "sampling/sampling_logp_difference/mean": 1e-7,
    "sampling/sampling_logp_difference/max": 1e-6,
}


def findings(make_run: MakeRun, changes: dict[str, Any], steps: int = 40) -> list[Finding]:
    log = []
    for step in range(1, steps + 1):
        line = {**GOOD, **{k: v(step) if callable(v) else v for k, v in changes.items()}, "step": step}
        log.append(line)
    return diagnose(read_run(make_run(log=log)))


def test_a_healthy_run_gets_one_good_finding(make_run: MakeRun) -> None:
    found = findings(make_run, {})
    assert [f.level for f in found] == ["good"]


@pytest.mark.parametrize(
    ("changes", "level", "text", "remedy"),
    [
        ({"reward_std": 0.0, "reward": 0.0}, "bad", "every step got the reward 0", "sft"),
        ({"frac_reward_zero_std": 0.97}, "bad", "97% of the groups got the same reward", "--group-size"),
        ({"frac_reward_zero_std": 0.6}, "warn", "60% of the groups", "dapo"),
        (
            {"frac_reward_zero_std": 0.9, "reward": lambda step: step / 40},
            "good",
            "near its best",
            "stop here",
        ),
        ({"completions/clipped_ratio": 0.4}, "warn", "40% of the completions were cut", "--max-new-tokens"),
        ({"sampling/sampling_logp_difference/mean": 0.05}, "warn", "disagree", "--dtype float32"),
        ({"sampling/sampling_logp_difference/max": 3.0}, "warn", "at most 3", "--dtype float32"),
        ({"entropy": lambda step: 1.0 / step**2}, "warn", "Entropy fell from 1 to", "--learning-rate"),
        ({"clip_ratio/region_mean": 0.5}, "warn", "50% of the terms were clipped", "--epochs"),
        ({"grad_norm": 0.0}, "bad", "Every gradient was exactly zero", "equal"),
        ({"trust_region/accepted": lambda step: float(step % 4 == 0)}, "warn", "accepted 25%", "--max-kl"),
        ({"rewards/mine.py:f/failed": 2.0}, "warn", "Reward mine.py:f failed on 80 completions", "terminal"),
    ],
)
def test_each_trouble_is_found(
    make_run: MakeRun, changes: dict[str, Any], level: str, text: str, remedy: str
) -> None:
    found = [f for f in findings(make_run, changes) if text in f.text]
    assert [f.level for f in found] == [level]
    assert remedy in found[0].remedy


def test_refused_steps_are_counted_and_named(make_run: MakeRun) -> None:
    log = [{**GOOD, "step": step} for step in range(1, 11)]
    for step in (3, 7):
        log[step - 1] |= {"grad_norm": None, "non_finite": True}
    found = diagnose(read_run(make_run(log=log)))
    assert found[0].level == "bad"
    assert "2 steps were refused" in found[0].text and "3, 7" in found[0].text


def test_a_number_left_out_on_purpose_is_no_refusal(make_run: MakeRun) -> None:
    log = [{**GOOD, "step": 1, "eval/greedy": None, "non_finite": True}, {**GOOD, "step": 2}]
    assert [f.level for f in diagnose(read_run(make_run(log=log)))] == ["good"]


def test_low_entropy_is_fine_once_the_task_is_solved(make_run: MakeRun) -> None:
    solved = {"entropy": lambda step: 1.0 / step**2, "reward": lambda step: min(1.0, step / 20)}
    assert not [f for f in findings(make_run, solved) if "Entropy" in f.text]


def test_damaged_lines_are_mentioned(make_run: MakeRun) -> None:
    folder = make_run(log=[{**GOOD, "step": 1}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("{broken\n")
    assert any("1 lines of the logs" in f.text for f in diagnose(read_run(folder)))


def test_worst_comes_first(make_run: MakeRun) -> None:
    found = findings(make_run, {"completions/clipped_ratio": 0.5, "grad_norm": 0.0})
    assert [f.level for f in found] == ["bad", "warn"]


def test_runs_of_other_recipes_have_nothing_to_find(make_run: MakeRun) -> None:
    log = [{"step": step, "loss": 1.0 / step, "grad_norm": 0.5} for step in range(1, 20)]
    assert [f.level for f in diagnose(read_run(make_run(recipe="sft", log=log)))] == ["good"]


def test_late_mean_is_the_last_quarter(make_run: MakeRun) -> None:
    run = read_run(make_run(log=[{"step": s, "x": float(s)} for s in range(1, 9)]))
    assert late_mean(run, "x") == 7.5
    assert late_mean(run, "y") is None
