"""The lines, exit codes and saved files that all benchmarks share."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "harness.py"


@pytest.fixture
def harness(tmp_path, monkeypatch):
    """benchmarks/harness.py, saving into a folder of its own."""
    spec = importlib.util.spec_from_file_location("harness_under_test", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def test_one_json_line_per_figure_with_the_agreed_fields(harness, capsys) -> None:
    figures = [
        harness.Figure("speed", 30.0, 10.0, "tokens/s", ">= 2x", True),
        harness.Figure("time", 2.0, 8.0, "s", ratio=4.0, seeds=(0, 1)),
    ]
    assert harness.main("toy", lambda arguments: figures, argv=["--json"]) == 0
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(first)[:8] == ["figure", "ours", "peer", "ratio", "unit", "bar", "ok", "seeds"]
    assert (first["ratio"], first["ok"], first["seeds"]) == (3.0, True, [])
    assert (second["ratio"], second["seeds"]) == (4.0, [0, 1])


def test_a_figure_below_its_bar_and_no_figure_at_all_fail(harness, capsys) -> None:
    miss = harness.Figure("speed", 1.0, None, "x", ">= 2", False)
    good = harness.Figure("other", 1.0)
    assert harness.main("toy", lambda arguments: [good, miss], argv=[]) == 1
    out = capsys.readouterr().out
    assert "MISS speed: 1" in out and "bar: >= 2" in out and "ok   other: 1" in out
    assert harness.main("toy", lambda arguments: [], argv=[]) == 1


def test_figures_are_printed_as_they_come(harness, capsys) -> None:
    def measure(arguments):
        yield harness.Figure("first", 1.0)
        assert "first" in capsys.readouterr().out
        yield harness.Figure("second", 2.0)

    assert harness.main("toy", measure, argv=["--json"]) == 0


def test_figures_are_saved_as_they_come_and_others_stay_until_all_are_there(harness) -> None:
    path = harness.RESULTS / "toy.json"

    def values() -> dict[str, float]:
        return {line["figure"]: line["ours"] for line in json.loads(path.read_text())["figures"]}

    def measure(arguments):
        yield harness.Figure("first", 1.0)
        assert values()["first"] == 1.0
        yield harness.Figure("second", 2.0)

    assert harness.main("toy", measure, argv=["--save"]) == 0
    assert values() == {"first": 1.0, "second": 2.0}

    def again(arguments):
        yield harness.Figure("second", 3.0)
        assert values() == {"first": 1.0, "second": 3.0}

    only = lambda parser: parser.add_argument("--only")  # noqa: E731
    assert harness.main("toy", again, only, ["--save", "--only", "second"]) == 0
    assert values() == {"first": 1.0, "second": 3.0}
    assert harness.main("toy", again, argv=["--save"]) == 0
    assert values() == {"second": 3.0}


def test_save_says_where_when_and_with_what(harness) -> None:
    def options(parser) -> None:
        parser.add_argument("--rounds", type=int, default=3)

    measure = lambda arguments: [harness.Figure("speed", float(arguments.rounds))]  # noqa: E731
    assert harness.main("toy", measure, options, ["--save", "--rounds", "7"]) == 0
    saved = json.loads((harness.RESULTS / "toy.json").read_text())
    assert saved["benchmark"] == "toy"
    assert saved["figures"][0]["ours"] == 7.0
    assert saved["options"]["rounds"] == 7
    assert saved["machine"]["cores"] >= 1
    assert {"python", "torch"} <= set(saved["versions"])
    assert {"date", "commit"} <= set(saved)


def test_taking_turns_times_each_as_often_and_warms_up_first(harness) -> None:
    calls: list[str] = []
    found = harness.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, warm=2)
    assert calls == ["a", "a", "b", "b", "a", "b", "a", "b", "a", "b"]
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for seconds in found.values() for second in seconds)


def test_a_cell_is_run_once_and_an_interrupted_one_resumed(harness, tmp_path, monkeypatch) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(harness, "lineal", lambda *words: said.append(words))
    begun, done, fresh = (tmp_path / name for name in ("begun", "done", "fresh"))
    (done / "final").mkdir(parents=True)
    begun.mkdir()
    (begun / "config.json").write_text("{}")
    cells = [harness.Cell(folder, "ppo", {"--seed": "3"}, ("--own",)) for folder in (begun, done, fresh)]
    assert harness.run_cells(cells) == [begun, done, fresh]
    assert said == [
        ("resume", str(begun)),
        ("run", "ppo", "--out", str(fresh), "--quiet", "--seed", "3", "--own"),
    ]


def test_saving_only_some_figures_keeps_the_others(harness, monkeypatch) -> None:
    def options(parser) -> None:
        parser.add_argument("--only", default="")

    def measured(*values: float) -> list:
        return [harness.Figure(name, value) for name, value in zip("abc", values)]

    monkeypatch.setattr(harness, "now", lambda: "monday")
    harness.main("toy", lambda arguments: measured(1.0, 2.0), options, ["--save"])
    monkeypatch.setattr(harness, "now", lambda: "tuesday")
    again = [harness.Figure("b", 5.0), harness.Figure("c", 6.0)]
    harness.main("toy", lambda arguments: again, options, ["--save", "--only", "b"])
    saved = json.loads((harness.RESULTS / "toy.json").read_text())
    assert [(x["figure"], x["ours"], x["measured"]) for x in saved["figures"]] == [
        ("a", 1.0, "monday"),
        ("b", 5.0, "tuesday"),
        ("c", 6.0, "tuesday"),
    ]


def test_the_gain_is_of_pairs_and_has_its_error(harness) -> None:
    reached = {
        "tuned": [70.0, 71.0, 72.0],
        "from scratch": [60.0, 60.0, 63.0],
        "no auxiliary loss": [70.0, 70.0, 70.0],
    }
    assert harness.gain(reached["tuned"], reached["from scratch"]) == pytest.approx((10.0, 0.57735), abs=1e-4)
    found = harness.compared("task", reached, range(3), "some bar")
    assert (found.ours, found.peer, found.ok, found.seeds) == (71.0, 61.0, True, (0, 1, 2))
    assert found.details["gain over from scratch"] == "+10.00 ± 0.58"
    assert found.details["gain over no auxiliary loss"] == "+1.00 ± 0.58"
    assert found.details["from scratch"] == [60.0, 60.0, 63.0]
    for worse in ([71.0, 70.0, 72.0], [70.0, 71.0, 72.0], [80.0, 80.0, 80.0]):
        assert not harness.compared("task", reached | {"from scratch": worse}, range(3), "some bar").ok
        assert harness.compared("task", reached | {"from scratch": worse}, range(3)).ok


def test_a_seed_chooses_the_same_rows_for_every_method(harness, tmp_path: Path) -> None:
    rows = [{"text": str(i), "label": i % 2} for i in range(30)]
    methods = {"tuned": ({}, ()), "from scratch": ({"--epochs": "9"}, ("--fresh",))}
    task = harness.Tuning("Some task, in words", rows, rows[:3], 5, {"--epochs": "2"}, methods)
    cells = task.cells(tmp_path, range(2))
    assert len({cell.folder for cell in cells.values()}) == 4
    for seed in range(2):
        tuned, scratch = (cells[method, seed] for method in methods)
        assert tuned.folder == tmp_path / f"Some-task-tuned-{seed}" and scratch.switches == ("--fresh",)
        assert tuned.options["--data"] == scratch.options["--data"] and tuned.options["--epochs"] == "2"
        assert scratch.options["--epochs"] == "9" and scratch.options["--seed"] == str(seed)
        chosen = Path(tuned.options["--data"]).read_text().splitlines()
        assert len(chosen) == 5 and all(json.loads(line) in rows for line in chosen)
    first, second = (Path(cells["tuned", seed].options["--data"]).read_text() for seed in range(2))
    assert first != second
    # A rerun finds its files and leaves them as they are.
    Path(cells["tuned", 0].options["--data"]).write_text("kept")
    task.cells(tmp_path, range(2))
    assert Path(cells["tuned", 0].options["--data"]).read_text() == "kept"


def test_the_final_figures_of_a_run_are_found(harness, tmp_path: Path) -> None:
    lines = [{"step": 1, "eval/accuracy": 0.1}, {"step": 2, "eval/accuracy": 0.5, "eval/final": True}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert harness.final(tmp_path) == lines[1] and harness.accuracy(tmp_path) == 50.0
