"""A run folder is read as far as it can be: killed, damaged or half-written ones too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from lineal.errors import RunError
from lineal.train.lock import Lock
from lineal.web.read import find_runs, read_log, read_run

MakeRun = Callable[..., Path]


def test_what_a_run_says(make_run: MakeRun) -> None:
    run = read_run(make_run("mine", level=3))
    assert (run.name, run.recipe, run.step, run.state) == ("mine", "grpo", 120, "done")
    assert run.option("level") == 3
    assert run.option("no_such") is None
    assert run.first("eval/accuracy") == pytest.approx(0.45)
    assert run.last("eval/accuracy") == pytest.approx(0.93)
    assert len(run.series("reward")) == 120
    assert run.series("reward")[0][0] == 1.0
    assert "step" not in run.names() and run.names()[0] == "eval/accuracy"


def test_states(make_run: MakeRun) -> None:
    folder = make_run("a", done=False)
    assert read_run(folder).state == "empty"
    (folder / "checkpoints" / "step-5.tmp").mkdir(parents=True)
    assert read_run(folder).state == "empty"
    (folder / "checkpoints" / "step-4").mkdir()
    assert read_run(folder).state == "stopped"
    (folder / "final").mkdir()
    assert read_run(folder).state == "done"
    lock = Lock(folder)
    assert read_run(folder).state == "running"
    lock.release()
    assert read_run(folder).state == "done"


def test_numbers_that_were_not_finite(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": null, "non_finite": true}\n{"step": 2, "loss": 0.5, "note": null}\n')
    records, damaged = read_log(file)
    assert damaged == 0
    assert math.isnan(records[0]["loss"]) and "non_finite" not in records[0]
    assert records[1] == {"step": 2, "loss": 0.5, "note": None}


@pytest.mark.parametrize("bad", ["{", "[1]", '"x"', '{"loss": 1}', '{"step": "x"}', "\xff", "[" * 100_000])
def test_a_damaged_line_is_counted_and_passed_over(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n' + bad.encode("latin-1") + b'\n{"step": 2}\n')
    records, damaged = read_log(file)
    assert [r["step"] for r in records] == [1, 2]
    assert damaged == 1


def test_a_line_still_being_written_is_not_damage(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_log(file) == ([{"step": 1}], 0)
    assert read_log(tmp_path / "absent.jsonl") == ([], 0)


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", "{}", '{"config": 3}', '{"config": {"recipe": 3}}', '{"model_type": "llama"}'],
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError) as caught:
        read_run(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_runs_are_found_oldest_first_and_others_passed_over(make_run: MakeRun, tmp_path: Path) -> None:
    for name, created in (("b", "2026-01-03"), ("a", "2026-01-04"), ("c", "2026-01-02")):
        folder = make_run(name)
        record = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**record, "created": created}))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "notes.txt").write_text("hello")
    assert [run.name for run in find_runs(tmp_path)] == ["c", "b", "a"]
    assert [run.name for run in find_runs(tmp_path / "b")] == ["b"]
    assert find_runs(tmp_path / "nowhere") == []
