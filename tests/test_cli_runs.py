"""run, resume, list, report, compare: with a recipe that takes no time."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lineal import cli_runs
from lineal.cli import main
from lineal.recipes import RECIPES
from lineal.recipes.config import Paper, RunOptions
from lineal.train.distributed import Ranks
from lineal.train.run import Run


@dataclass(frozen=True)
class ToyOptions:
    """What the toy can be told."""

    size: int = 3
    """How big."""
    reward: tuple[str, ...] = ()
    """What counts."""


@dataclass(frozen=True)
class ToyConfig:
    """Everything."""

    toy: ToyOptions = field(default_factory=ToyOptions)
    run: RunOptions = field(default_factory=lambda: RunOptions(steps=4))


Behave = Callable[[ToyConfig, Run], None]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    """A recipe called toy, whose `behave` a test may replace; the working folder is empty."""
    module = types.ModuleType("toy_recipe")

    def behave(config: ToyConfig, run: Run) -> None:
        for step in range(1, config.run.steps + 1):
            run.log(step, {"reward": step / config.run.steps})
        run.final.mkdir()

    contents: dict[str, Any] = {
        "PAPER": Paper(1999, "On toys", "https://example.org/toys", ("It is small.",)),
        "SUMMARY": "a toy",
        "ESSENTIAL": ("size", "out"),
        "default": ToyConfig,
        "plan": lambda config: [f"size {config.toy.size}", "nothing else"],
        "behave": behave,
        "run": lambda config, run: vars(module)["behave"](config, run),
    }
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, "toy_recipe", module)
    monkeypatch.setitem(RECIPES, "toy", "toy_recipe")
    monkeypatch.chdir(tmp_path)
    return module


def record(path: str) -> dict[str, Any]:
    return json.loads((Path(path) / "config.json").read_text())


def test_a_run_has_its_folder_its_options_and_its_report(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "toy", "--size", "5"]) == 0
    out, err = capsys.readouterr()
    asked = record("runs/toy-1")["config"]
    assert asked["recipe"] == "toy"
    assert asked["options"]["toy"]["size"] == 5
    assert asked["options"]["run"]["out"] == "runs/toy-1"
    assert "run runs/toy-1" in err
    assert "report  runs/toy-1/report.html" in out
    assert "finished at step 4" in Path("runs/toy-1/report.html").read_text()


def test_each_run_gets_the_next_number_and_finished_ones_stay(toy: types.ModuleType) -> None:
    Path("runs/toy-7").mkdir(parents=True)
    Path("runs/toy-old").mkdir()
    assert main(["run", "toy"]) == 0 and main(["run", "toy"]) == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["toy-7", "toy-8", "toy-9", "toy-old"]


def test_a_named_folder_is_used_once(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy", "--out", "here"]) == 0
    capsys.readouterr()
    assert main(["run", "toy", "--out", "here"]) == 1
    err = capsys.readouterr().err
    assert "here already holds a run" in err and err.count("\n") == 1


def test_the_recipe_sees_where_it_is(toy: types.ModuleType) -> None:
    seen: list[str | None] = []
    vars(toy)["behave"] = lambda config, run: seen.append(config.run.out)
    main(["run", "toy"])
    assert seen == ["runs/toy-1"]


def test_dry_run_makes_nothing(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy", "--dry-run", "--size", "9"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("toy        size=9 reward=\n") and out.endswith("\n\nsize 9\nnothing else\n")
    assert "steps=4" in out and max(map(len, out.splitlines())) <= 100
    assert not Path("runs").exists()


def test_short_help_and_all_of_it(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy", "--help"]) == 0
    short = capsys.readouterr().out
    assert "a toy" in short and "On toys (1999), https://example.org/toys" in short
    assert "--size N" in short and "--out TEXT" in short and "--steps" not in short
    assert "lineal run toy --help-all" in short
    assert main(["run", "toy", "--help-all"]) == 0
    everything = capsys.readouterr().out
    assert "--steps N" in everything and "departs: It is small." in everything


def test_a_failing_run_keeps_its_folder_and_its_report(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: ToyConfig, run: Run) -> None:
        run.log(1, {"reward": 0.5})
        raise ValueError("half way")

    vars(toy)["behave"] = fail
    assert main(["run", "toy"]) == 1
    assert "unexpected ValueError: half way" in capsys.readouterr().err
    assert Path("runs/toy-1/report.html").exists()


def test_a_report_that_fails_does_not_hide_the_reason(
    toy: types.ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: ToyConfig, run: Run) -> None:
        run.log(1, {"reward": 0.5})
        raise SystemExit(143)

    def no_report(path: Path) -> None:
        raise RuntimeError("no ink")

    vars(toy)["behave"] = fail
    monkeypatch.setattr("lineal.web.report.write_report", no_report)
    with pytest.raises(SystemExit) as stop:
        main(["run", "toy"])
    assert stop.value.code == 143
    assert "no ink" in capsys.readouterr().err


def stopped(toy: types.ModuleType) -> None:
    """Leaves a run behind that logged one step and has no final model."""
    done = vars(toy)["behave"]

    def half(config: ToyConfig, run: Run) -> None:
        run.log(1, {"reward": 0.25})
        (run.checkpoints / "step-1").mkdir(parents=True)
        raise SystemExit(130)

    vars(toy)["behave"] = half
    with pytest.raises(SystemExit):
        main(["run", "toy", "--size", "8", "--reward", "mine.py:f"])
    vars(toy)["behave"] = done


def test_resume_goes_on_with_the_same_options(toy: types.ModuleType) -> None:
    stopped(toy)
    seen: list[ToyConfig] = []
    vars(toy)["behave"] = lambda config, run: seen.append(config)
    assert main(["resume", "runs/toy-1"]) == 0
    assert seen == [ToyConfig(ToyOptions(8, ("mine.py:f",)), RunOptions(steps=4, out="runs/toy-1"))]


def test_resume_refuses_a_user_s_file_that_changed(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text("def f(): return 1\n")
    stopped(toy)
    assert list(record("runs/toy-1")["config"]["files"]) == ["mine.py"]
    assert main(["resume", "runs/toy-1"]) == 0
    Path("mine.py").write_text("def f(): return 2\n")
    (Path("runs/toy-1/final")).rmdir()
    assert main(["resume", "runs/toy-1"]) == 2
    assert "mine.py has changed since the run began; --trust" in capsys.readouterr().err
    assert main(["resume", "runs/toy-1", "--trust"]) == 0


def test_resume_from_elsewhere_says_where(
    toy: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text("def f(): return 1\n")
    stopped(toy)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["resume", "../runs/toy-1"]) == 2
    assert f"mine.py is not here: resume from {tmp_path}" in capsys.readouterr().err


def test_resume_of_a_finished_run_leaves_it_alone(
    toy: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "toy"])
    before = Path("runs/toy-1/metrics.jsonl").read_bytes()
    vars(toy)["behave"] = lambda config, run: pytest.fail("it ran again")
    assert main(["resume", "runs/toy-1"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert Path("runs/toy-1/metrics.jsonl").read_bytes() == before


def test_resume_writes_the_report_that_a_kill_prevented(toy: types.ModuleType) -> None:
    main(["run", "toy"])
    report = Path("runs/toy-1/report.html")
    before = report.read_bytes() if report.exists() else None
    report.unlink(missing_ok=True)
    assert main(["resume", "runs/toy-1"]) == 0
    assert before is not None and report.exists()


def test_resume_of_nothing(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "nowhere"]) == 1
    assert "nowhere holds no run" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    stopped(toy)
    with Run.open("runs/toy-1"):
        capsys.readouterr()
        assert main(["resume", "runs/toy-1"]) == 1
        assert "is in use by process" in capsys.readouterr().err


class Second(Ranks):
    """The second of two processes, told what the first one would say."""

    def tell(self, value: Any) -> Any:
        """What the first process says."""
        return "runs/toy-5"


def test_other_processes_of_a_job_follow_and_write_nothing(
    toy: types.ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lineal.train.distributed.joined", lambda device: nullcontext(Second(1, 2)))
    seen: list[str | None] = []

    def behave(config: ToyConfig, run: Run) -> None:
        seen.append(config.run.out)
        run.log(1, {"reward": 1.0})

    vars(toy)["behave"] = behave
    assert main(["run", "toy"]) == 0
    assert seen == ["runs/toy-5"]
    assert not Path("runs").exists()
    assert capsys.readouterr() == ("", "")


def test_list_shows_how_far_runs_are(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "no runs in runs; start one with: lineal run demo" in capsys.readouterr().out
    stopped(toy)
    main(["run", "toy"])
    capsys.readouterr()
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "recipe", "step", "result", "state"]
    assert [line.split()[0] for line in lines[1:]] == ["runs/toy-1", "runs/toy-2"]
    assert [line.split()[-1] for line in lines[1:]] == ["stopped", "done"]
    assert "training reward 0.25" in lines[1]


def test_report_and_compare(toy: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "toy"])
    main(["run", "toy", "--size", "6"])
    Path("runs/toy-1/report.html").unlink()
    capsys.readouterr()
    assert main(["report", "runs/toy-1"]) == 0
    assert Path(capsys.readouterr().out.strip()) == Path("runs/toy-1/report.html")
    assert main(["compare", "runs/toy-1", "runs/toy-2", "--out", "both.html"]) == 0
    out = capsys.readouterr().out
    assert ["--size", "3", "6"] in [line.split() for line in out.splitlines()]
    assert Path("both.html").exists()


def test_recipe_names_take_underscores(toy: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "toy-two", "toy_recipe")
    assert cli_runs.find_recipe("toy_two").name == "toy-two"


def test_user_files_are_found_wherever_they_are_named(tmp_path: Path) -> None:
    file = tmp_path / "r.py"
    file.write_text("x = 1")
    options = {"data": {"reward": [f"{file}:f", "exact"], "n": 3}, "algorithm": {"algorithm": f"{file}:A"}}
    assert list(cli_runs.user_files(options)) == [str(file)]
    assert cli_runs.user_files({"reward": ["gone.py:f"], "model": "a.py"}) == {}


def test_tables_make_hostile_names_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    cli_runs.print_table(["name", "b"], [["x\x1b[31m\n", "1"], ["longer", "2"]])
    assert capsys.readouterr().out == "name    b\nx⏎      1\nlonger  2\n"


def test_a_command_that_could_not_work_leaves_no_run_behind(tmp_path, capsys) -> None:
    from lineal.cli import main

    out = tmp_path / "run"
    assert main(["run", "reinforce", "--clip-low", "0.1", "--out", str(out), "--threads", "1"]) == 2
    assert not out.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    assert (
        main(["run", "reinforce", "--clip-low", "0.1", "--out", str(tmp_path / "mine"), "--threads", "1"])
        == 2
    )
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]
