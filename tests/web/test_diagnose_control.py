"""The diagnosis of a run on an environment speaks of returns and episodes, and its report shows a recorded one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lineal.recipes.config import EnvironmentConfig, to_json, with_options
from lineal.web.diagnose import Finding, diagnose
from lineal.web.film import MOST_BYTES, film_section
from lineal.web.read import read_run
from lineal.web.report import headline, render

MakeRun = Callable[..., Path]
GOOD: dict[str, Any] = {
    "env_steps": lambda step: 2000 * step,
    "return_100": lambda step: 20.0 + 10 * step,
    "episode_length": lambda step: 20.0 + 10 * step,
    "episodes": lambda step: step,
    "entropy": 0.5,
    "kl": 0.004,
    "grad_norm": 0.4,
    "clip_ratio/region_mean": 0.05,
    "explained_variance": 0.7,
}


def made(make_run: MakeRun, changes: dict[str, Any], steps: int = 40, *, recipe: str = "ppo") -> Path:
    log = []
    for step in range(1, steps + 1):
        line = {k: v(step) if callable(v) else v for k, v in {**GOOD, **changes}.items()}
        log.append({k: v for k, v in line.items() if v is not None} | {"step": step})
    path = make_run(log=log, said=[], recipe=recipe)
    record = json.loads((path / "config.json").read_text())
    record["config"]["options"] = to_json(with_options(EnvironmentConfig(), algorithm=recipe))
    (path / "config.json").write_text(json.dumps(record))
    timing = [{"step": r["step"], "step_time": 0.5, "env_steps_per_second": 4000.0} for r in log]
    (path / "timing.jsonl").write_text("".join(json.dumps(t) + "\n" for t in timing))
    return path


def findings(make_run: MakeRun, changes: dict[str, Any], **more: Any) -> list[Finding]:
    return diagnose(read_run(made(make_run, changes, **more)))


def test_a_healthy_run_gets_one_good_finding_about_returns(make_run: MakeRun) -> None:
    (found,) = findings(make_run, {})
    assert found.level == "good" and "returns vary" in found.text and "group" not in found.text


CASES = [
    ({"return_100": 1.0}, "bad", "Every episode returned 1", "--entropy"),
    ({"return_100": None, "episode_length": None}, "warn", "No episode ended in 80,000 steps", "--env-steps"),
    (
        {"return_100": lambda step: 50.0 - step},
        "warn",
        "did not rise: 47.5 at first",
        "--normalise-observations",
    ),
    ({"return_100": lambda step: 100.0 - abs(step - 25) * 4.0}, "warn", "fell back", "--schedule linear"),
    ({"explained_variance": -0.2}, "warn", "The critic explains -20%", "--value-coefficient"),
    (
        {"entropy": lambda step: 1.0 / step**2, "return_100": lambda step: 20.0 + (step % 7)},
        "warn",
        "Entropy fell from 1 to",
        "--learning-rate",
    ),
    (
        {"entropy": lambda step: 1.0 - step / 5, "return_100": lambda step: 20.0 + (step % 7)},
        "warn",
        "varies its actions",
        "--log-std",
    ),
    ({"kl": 0.3}, "warn", "mean KL(old || new) 0.3", "ppo-kl"),
    ({"clip_ratio/region_mean": 0.5}, "warn", "50% of the terms were clipped", "--epochs"),
    (
        {"trust_region/accepted": lambda step: float(step % 4 == 0)},
        "warn",
        "kept 25% of its steps",
        "--max-kl",
    ),
    ({"trust_region/cg_residual": 0.8, "trust_region/accepted": 1.0}, "warn", "left 80%", "--cg-iterations"),
    (
        {"episode_length": lambda step: 200.0 / step, "return_100": lambda step: -step - 50.0},
        "warn",
        "Episodes became shorter",
        "ending",
    ),
    ({"grad_norm": 0.0}, "bad", "Every gradient was exactly zero", "rewards ever vary"),
    ({"reward_model/pearson": 0.1}, "warn", "correlation 0.1", "--labels"),
    ({"reward_model/validation_accuracy": 0.5}, "warn", "predicts 50%", "contradict"),
    ({"grad_norm": lambda step: float("nan") if step == 3 else 1.0}, "bad", "steps 3", "refused/"),
]


@pytest.mark.parametrize(("changes", "level", "text", "remedy"), CASES)
def test_each_finding_has_its_numbers(
    changes: dict[str, Any], level: str, text: str, remedy: str, make_run: MakeRun
) -> None:
    found = findings(make_run, changes)
    fitting = [f for f in found if text in f.text]
    assert fitting and fitting[0].level == level and remedy in fitting[0].remedy, found
    assert not any("group" in f.text + f.remedy or "completion" in f.text + f.remedy for f in found)


def test_a_policy_that_has_settled_may_be_narrow(make_run: MakeRun) -> None:
    assert [f.level for f in findings(make_run, {"entropy": lambda step: 1.0 / step**2})] == ["good"]


def test_the_report_leads_with_the_return(make_run: MakeRun) -> None:
    run = read_run(made(make_run, {}))
    first = next(judged for judged in headline(run) if judged.start is not None)
    assert first.label.startswith("return") and (first.start, first.end) == (30.0, 420.0)
    page = render(run)
    assert page.index("Return") < page.index("Episode length") < page.index("What is optimised")
    assert "4,000" in page and "steps of the environment" in page and "Why is nothing learning?" not in page


def test_a_recorded_episode_is_part_of_the_page(make_run: MakeRun) -> None:
    path = made(make_run, {})
    assert film_section(path) == "" and "img-src" not in render(read_run(path))
    (path / "episode.gif").write_bytes(b"GIF89a")
    page = render(read_run(path))
    assert 'src="data:image/gif;base64,R0lGODlh"' in page and "img-src data:" in page
    (path / "episode.gif").write_bytes(b"x" * (MOST_BYTES + 1))
    assert "episode.gif, beside this page" in film_section(path)
