"""Learning from preferences end to end: it asks, hears, learns; a killed run ends as the uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lineal.environments.preferences.records import Label
from lineal.errors import UsageError
from lineal.models.reward import RewardEnsemble
from lineal.recipes import preferences_loop
from lineal.recipes.config import to_json, with_options
from lineal.recipes.preferences import default, tuned
from lineal.train.metrics import read_lines
from lineal.train.preferences.labels import Answers, LabelStore
from lineal.train.preferences.segments import SegmentStore
from lineal.train.run import Run

SMALL = {
    "algorithm": "ppo",
    "rollout_steps": 128, "envs": 2, "minibatches": 2, "epochs": 2, "env_steps": 2048, "labels": 30, "segment": 20,
    "reward_updates": 10, "save_every": 2, "quiet": True, "eval_episodes": 2, "recent": 40,
}  # fmt: skip


def start(folder: Path, **options) -> Path:
    config = with_options(default(), **{**SMALL, **options, "out": str(folder)})
    with Run.create(folder, {"recipe": "preferences", "options": to_json(config)}) as run:
        preferences_loop.run(config, run)
    return folder


def test_it_asks_hears_and_learns(tmp_path):
    folder = start(tmp_path / "run")
    answers = Answers(folder / "preferences")
    assert len(answers.pairs) == len(answers.labels) == 30
    assert set(answers.pairs) == answers.answered
    segments = SegmentStore(folder / "preferences")
    assert all(side in segments for pair in answers.pairs.values() for side in (pair.first, pair.second))
    lines = list(read_lines(folder / "metrics.jsonl"))
    counts = [line["labels"] for line in lines if "labels" in line]
    assert counts[0] == 8 and counts == sorted(counts) and counts[-1] == 30, "a quarter before training"
    fitted = [line for line in lines if "reward_model/validation_loss" in line]
    assert fitted and {"reward_model/brier", "reward_model/drift", "reward_model/l2"} <= set(fitted[-1])
    assert any("reward_model/pearson" in line for line in lines)
    steps = [line for line in lines if "predicted_return_100" in line]
    assert steps and not any("return_100" in line for line in steps), (
        "predicted and true return are told apart"
    )
    assert lines[-1]["eval/final"] and "eval/return" in lines[-1]
    assert RewardEnsemble.load(folder / "final" / "reward").config.members == 3
    assert (folder / "final" / "policy.safetensors").exists()


@pytest.mark.parametrize("algorithm", ["trpo", "ppo-kl"])
@pytest.mark.parametrize("env", ["CartPole-v1"])
def test_other_algorithms_and_tasks_that_end(tmp_path, algorithm, env):
    more = {"minibatches": None, "epochs": None} if algorithm == "trpo" else {}
    folder = start(tmp_path / "run", algorithm=algorithm, env=env, horizon=100, env_steps=1024, **more)
    assert len(Answers(folder / "preferences").labels) == 30
    assert not [
        line for line in read_lines(folder / "metrics.jsonl") if line.get("episode_length", 100) != 100
    ]


def test_a_horizon_that_varies_is_warned_about(tmp_path, capsys):
    start(tmp_path / "run", env="CartPole-v1", terminations=True, segment=5, env_steps=600)
    assert "ended early" in capsys.readouterr().err


def test_everything_beside_the_labels_may_go_on_in_a_thread(tmp_path):
    folder = start(tmp_path / "run", asynchronous=True)
    lines = list(read_lines(folder / "metrics.jsonl"))
    assert lines[-1]["eval/final"] and any("reward_model/validation_loss" in line for line in lines)


def test_a_killed_run_ends_as_the_uninterrupted_one(tmp_path):
    """kill -9 at several moments; then weights, metrics, questions and answers are equal, byte for byte."""
    options = {"labels": 40, "env_steps": 4096, "reward_updates": 20}
    whole = start(tmp_path / "whole", **options)
    config = with_options(default(), **{**SMALL, **options, "out": str(tmp_path / "cut")})
    folder = tmp_path / "cut"
    with Run.create(folder, {"recipe": "preferences", "options": to_json(config)}):
        pass
    for lines in (1, 8):
        process = subprocess.Popen(
            [sys.executable, "-m", "lineal", "resume", str(folder)], stderr=subprocess.PIPE
        )
        for _ in range(1200):
            if process.poll() is not None or count_lines(folder / "metrics.jsonl") >= lines:
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    done = subprocess.run(
        [sys.executable, "-m", "lineal", "resume", str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in (
        "final/policy.safetensors",
        "final/reward/model.safetensors",
        "metrics.jsonl",
        "preferences/pairs.jsonl",
    ):
        assert (whole / name).read_bytes() == (folder / name).read_bytes(), name
    assert Answers(whole / "preferences").labels == Answers(folder / "preferences").labels
    assert set(SegmentStore(whole / "preferences")) <= set(SegmentStore(folder / "preferences"))


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_person_answers_while_it_waits(tmp_path):
    """Somebody else writes the labels, as the page does; the run waits for them and loses none."""
    folder = tmp_path / "run"
    stop = threading.Event()

    def person() -> None:
        store = None
        while not stop.is_set():
            if store is None and (folder / "preferences" / "pairs.jsonl").exists():
                store = LabelStore(folder / "preferences")
            if store is not None:
                store.refresh()
                for pair in store.open_pairs[:5]:
                    store.add(Label(pair.id, 1.0, "anna"))
            time.sleep(0.02)
        if store is not None:
            store.close()

    thread = threading.Thread(target=person)
    thread.start()
    try:
        start(folder, labeller="web", labels=16, backlog=2)
    finally:
        stop.set()
        thread.join()
    answers = Answers(folder / "preferences")
    assert len(answers.labels) >= 14 and {label.labeller for label in answers.labels} == {"anna"}


def test_a_function_labels(tmp_path):
    judge = tmp_path / "judge.py"
    judge.write_text(
        "def judge(first, second, prompt):\n    return float(first.reward_T.sum() > second.reward_T.sum())\n"
    )
    folder = start(tmp_path / "run", labeller=f"{judge}:judge", labels=10, env_steps=600)
    assert {label.labeller for label in Answers(folder / "preferences").labels} == {f"{judge}:judge"}


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ({"labeller": "nobody"}, "none of synthetic, web"),
        ({"labels": 1}, "at least 2"),
        ({"pairs": "clever"}, "neither disagreement nor uniform"),
        ({"horizon": 10, "segment": 20}, "hold a clip"),
        ({"error_rate": 1.0}, "all random"),
    ],
)
def test_options_that_cannot_work_are_refused(option, why):
    with pytest.raises(UsageError, match=why):
        with_options(default(), **option)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ({"env": "Pendulm-v1"}, "did you mean Pendulum-v1"),
        ({"segment": 500}, "holds no clip"),
        ({"labeller": "missing.py:judge"}, "no file missing.py"),
    ],
)
def test_what_the_environment_cannot_do_is_said(tmp_path, option, why):
    with pytest.raises(UsageError, match=why):
        start(tmp_path / "run", **option)


def test_defaults_follow_the_environment():
    asked = with_options(default(), env="CartPole-v1", algorithm="ppo")
    config = tuned(asked)
    assert config.environment.envs == 8 and config.algorithm.rollout_steps == 32
    assert config.algorithm.schedule == "linear" and default().algorithm.algorithm == "trpo"
    for env, scaled in (("Hopper-v5", True), ("Pendulum-v1", False)):
        assert tuned(with_options(default(), env=env)).environment.normalise_rewards is scaled
    atari = tuned(with_options(default(), env="ALE/Pong-v5", algorithm="ppo")).environment
    assert not atari.clip_rewards and not atari.episodic_life
    with pytest.raises(UsageError, match="there is none"):
        tuned(with_options(default(), env="Strange-v0", preset="zoo"))


def test_the_command(tmp_path):
    words = [sys.executable, "-m", "lineal", "run", "preferences"]
    plan = subprocess.run([*words, "--labels", "50", "--dry-run"], capture_output=True, text=True)
    assert "labels: 50 from synthetic, 12 of them before training" in plan.stdout, plan.stderr
    told = subprocess.run([*words, "--labeler", "web"], capture_output=True, text=True)
    assert told.returncode == 2 and "--labeller" in told.stderr
    page = subprocess.run(
        [sys.executable, "-m", "lineal", "label", str(tmp_path)], capture_output=True, text=True
    )
    assert page.returncode == 1 and "holds no questions" in page.stderr and page.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pendulum_is_taught_by_700_comparisons(tmp_path, seed):
    """The bar: 90 % of what the true reward gives (about -170, from -1200 at random) in 100k steps."""
    config = with_options(
        tuned(default()), labels=700, env_steps=100_000, seed=seed, quiet=True, out=str(tmp_path / "run")
    )
    with Run.create(tmp_path / "run", {"recipe": "preferences", "options": to_json(config)}) as run:
        preferences_loop.run(config, run)
    final = list(read_lines(tmp_path / "run" / "metrics.jsonl"))[-1]
    assert final["eval/return"] > -1200 + 0.9 * (1200 - 170), json.dumps(final)


def test_cartpole_is_taught_by_150_comparisons(tmp_path):
    """Random play lasts some 20 steps; the reward is never shown."""
    asked = with_options(default(), env="CartPole-v1", algorithm="trpo", horizon=200)
    more = {
        "horizon": 200,
        "labels": 150,
        "env_steps": 25_000,
        "reward_updates": 40,
        "save_every": 100,
        "seed": 0,
    }
    config = with_options(tuned(asked), **more, quiet=True, out=str(tmp_path / "run"))
    with Run.create(tmp_path / "run", {"recipe": "preferences", "options": to_json(config)}) as run:
        preferences_loop.run(config, run)
    final = list(read_lines(tmp_path / "run" / "metrics.jsonl"))[-1]
    assert final["eval/return"] > 250, json.dumps(final)
