"""The report: complete, self-contained, honest about what did not work, and its commands are real."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from lineal.errors import RunError
from lineal.web.page import escape
from lineal.web.read import read_run
from lineal.web.report import headline, next_commands, render, write_report

MakeRun = Callable[..., Path]


def test_the_report_has_every_part(make_run: MakeRun) -> None:
    path = write_report(make_run())
    text = path.read_text()
    assert path.name == "report.html"
    for part in (
        "held-out accuracy",
        "from 0.45",
        "Reward",
        "KL to the policy",
        "Entropy",
        "Gradient norm",
        "Clipped",
        "Length",
        "Equal groups",
        "Sampler against trainer",
        "What is optimised",
        "clip(",
        "What it writes",
        "Diagnosis",
        "Options",
        "Machine and versions",
        "Next",
    ):
        assert part in text, part
    assert "DeepSeekMath" in text
    assert text.startswith("<!doctype html>")


def test_the_report_needs_nothing_else(make_run: MakeRun) -> None:
    text = write_report(make_run()).read_text()
    links = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert all(link.startswith("https://") for link in links) and len(links) <= 1
    assert "<script" not in text


def test_hostile_names_and_samples_stay_text(make_run: MakeRun) -> None:
    bad = '"><img src=x onerror=alert(1)>'
    said = [{"step": 1, "prompt": bad, "completions": [bad], "rewards": [0.0], "answer": bad}]
    log = [{"step": 1, "reward": 0.1, bad: 0.5}, {"step": 2, "reward": 0.2, bad: 0.7}]
    text = write_report(make_run(said=said, log=log, model=bad)).read_text()
    assert "<img" not in text
    assert text.count(escape(bad)) >= 4


def test_the_headline_compares_the_same_prompts(make_run: MakeRun) -> None:
    run = read_run(make_run())
    # An evaluation on the way is on validation prompts: it is neither the start nor the end.
    run.metrics.insert(0, {"step": 0, "eval/accuracy": 0.99})
    run.metrics.append({"step": 119, "eval/accuracy": 0.01})
    first = headline(run)[0]
    assert (first.label, first.start, first.end) == ("held-out accuracy", 0.45, pytest.approx(0.93))


def test_a_number_measured_once_has_no_start(make_run: MakeRun) -> None:
    log = [{"step": 1, "loss": 2.0}, {"step": 9, "eval/accuracy": 0.5, "eval/final": True}]
    first = headline(read_run(make_run(recipe="sft", log=log)))[0]
    assert (first.start, first.end) == (None, 0.5)
    assert (
        "from" not in write_report(make_run("b", recipe="sft", log=log)).read_text().split("tiles")[2][:300]
    )


def test_a_language_model_is_judged_by_its_loss(make_run: MakeRun) -> None:
    log = [
        {"step": s, "loss": 3.0 / s, **({"eval/loss": 3.1 / s} if s % 5 == 0 else {})} for s in range(1, 21)
    ]
    judged = headline(read_run(make_run(recipe="pretrain", log=log)))
    assert [j.label for j in judged] == ["validation loss", "training loss"]
    text = write_report(make_run("p", recipe="pretrain", log=log)).read_text()
    assert "Loss" in text and "Why is nothing learning?" not in text


def test_a_run_that_did_not_learn_says_so_first(make_run: MakeRun) -> None:
    flat = {"reward": 0.2, "reward_std": 0.0, "frac_reward_zero_std": 1.0}
    held = {"eval/accuracy": 0.2, "eval/greedy": 0.2, "eval/error": 0.01, "eval/final": True}
    log = [{"step": 0, **held}, *({"step": s, **flat} for s in range(1, 30)), {"step": 29, **held}]
    text = write_report(make_run(log=log)).read_text()
    assert text.index("Why is nothing learning?") < text.index("<h2>Curves</h2>")
    assert "Every completion of every step got the reward 0.2" in text


def test_options_that_were_changed_stand_apart(make_run: MakeRun) -> None:
    text = render(read_run(make_run(prompts=7, level=3)))
    changed, rest = text.split("<h2>Options</h2>")[1].split("<details>")[:2]
    assert ">prompts<" in changed and ">level<" in changed
    assert ">temperature<" not in changed and ">temperature<" in rest


def test_a_user_s_algorithm_file_is_not_run_by_a_report(make_run: MakeRun, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("raise SystemExit('ran')")
    text = write_report(make_run(algorithm=f"{file}:NAME")).read_text()
    assert "What is optimised" not in text


def test_the_formula_has_the_run_s_numbers(make_run: MakeRun) -> None:
    assert "0.37" in write_report(make_run(clip_high=0.37)).read_text().split("What is optimised")[1][:800]


def test_runs_inside_a_run_stand_beside_it(make_run: MakeRun) -> None:
    outer = make_run("demo")
    make_run("demo/control", recipe="sft")
    text = write_report(outer).read_text()
    assert "The runs inside it" in text and ">control<" in text and ">this run<" in text
    assert "The runs inside it" not in write_report(make_run("alone")).read_text()


def test_an_unknown_recipe_is_still_shown(make_run: MakeRun) -> None:
    folder = make_run()
    record = json.loads((folder / "config.json").read_text())
    record["config"]["recipe"] = "from-the-future"
    (folder / "config.json").write_text(json.dumps(record))
    assert "from-the-future" in write_report(folder).read_text()


def test_nothing_logged_is_an_error_not_an_empty_page(make_run: MakeRun) -> None:
    with pytest.raises(RunError, match="no metrics yet"):
        write_report(make_run(log=[]))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(make_run: MakeRun) -> None:
    folder = make_run()
    folder.chmod(0o500)
    with pytest.raises(RunError, match="cannot be written"):
        write_report(folder)


def test_the_report_is_replaced_whole(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "report.html").write_text("old")
    assert "old" not in write_report(folder).read_text()[:10]
    assert not list(folder.glob("*.tmp"))


def test_next_commands_depend_on_the_state(make_run: MakeRun) -> None:
    done = next_commands(read_run(make_run("done")))
    assert [shlex.split(command)[1] for command, _ in done] == ["generate", "eval", "run", "list"]
    assert shlex.split(done[0][0])[-1] == "12+34="
    stopped = make_run("a run", done=False)
    (stopped / "checkpoints" / "step-3").mkdir(parents=True)
    assert next_commands(read_run(stopped)) == [
        (f"lineal resume '{stopped}'", "go on from the last checkpoint")
    ]
    assert next_commands(read_run(make_run("empty", done=False))) == []


def test_a_prompt_that_a_shell_would_obey_is_not_offered_bare(make_run: MakeRun) -> None:
    said = [{"step": 1, "prompt": "$(touch x); `y`", "completions": ["z"], "rewards": [0.0]}]
    command = next_commands(read_run(make_run(said=said)))[0][0]
    assert shlex.split(command)[-1] == "$(touch x); `y`"
    said[0]["prompt"] = "two\nlines \x1b[2J"
    assert "generate" not in next_commands(read_run(make_run("b", said=said)))[0][0]


def test_training_further_keeps_the_task_and_a_rate_the_model_has_borne(make_run: MakeRun) -> None:
    run = read_run(make_run(data="my data.jsonl", reward=("number", "mine.py:f"), completion_field="gold"))
    words = shlex.split(next(command for command, _ in next_commands(run) if "dapo" in command))
    assert words[words.index("--model") + 2 :] == [
        *("--data", "my data.jsonl", "--completion-field", "gold", "--reward", "number", "mine.py:f"),
        *("--learning-rate", "0.0003"),
    ]
    sft = [{"step": s, "loss": 1.0, "learning_rate": 2e-3} for s in (1, 2)]
    command = next_commands(read_run(make_run("s", recipe="sft", log=sft)))[-2][0]
    assert command.endswith("--learning-rate 0.0002")


def test_every_next_command_can_be_parsed(make_run: MakeRun) -> None:
    from lineal.cli import COMMANDS
    from lineal.cli_options import parse
    from lineal.cli_runs import find_recipe

    for command, _ in next_commands(read_run(make_run(data="d.jsonl", level=3))):
        name, verb, *rest = shlex.split(command)
        assert name == "lineal" and verb in COMMANDS
        if verb == "run":
            assert parse(find_recipe(rest[0]).paper.default(), rest[1:])


def test_the_demonstration_s_formula_has_the_numbers_of_its_second_part(make_run: MakeRun) -> None:
    from lineal.recipes.config import to_json
    from lineal.recipes.demo import default
    from lineal.recipes.demo_loop import rl_config
    from lineal.train.parts import read_algorithm

    folder = make_run()
    record = json.loads((folder / "config.json").read_text())
    record["config"] = {"recipe": "demo", "options": to_json(default())}
    (folder / "config.json").write_text(json.dumps(record))
    assert escape(read_algorithm(rl_config(default(), folder))) in write_report(folder).read_text()
