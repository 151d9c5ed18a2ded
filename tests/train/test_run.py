"""The run folder: one owner, honest logs, and everything that is needed to go on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lineal.errors import CheckpointError, RunError
from lineal.train.metrics import read_lines
from lineal.train.run import Run, read_record

ROOT = Path(__file__).parents[2]
CONFIG = {"recipe": "grpo", "run": {"steps": 3}, "algorithm": {"clip_low": 0.2}}


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "runs" / "a", CONFIG, device={"kind": "cpu", "threads": 1}) as made:
        yield made


def metrics(path: Path) -> list[dict]:
    return list(read_lines(path / "metrics.jsonl"))


def weights(step: int) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3,), float(step))}


# --- a new run --------------------------------------------------------------------------------------------------


def test_config_says_what_ran_with_what(run):
    record = json.loads((run.path / "config.json").read_text())
    assert record["config"] == CONFIG == run.config
    assert record["device"] == {"kind": "cpu", "threads": 1} == run.device
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["python"].count(".") == 2 and record["created"].startswith("20")
    assert record["keep"] == {"last": 2, "every": 0}


def test_a_folder_that_holds_a_run_is_left_alone(run):
    run.close()
    before = (run.path / "config.json").read_bytes()
    with pytest.raises(
        RunError, match=r"already holds a run: `lineal resume .*` continues it; or choose another --out"
    ):
        Run.create(run.path, {"recipe": "other"})
    assert (run.path / "config.json").read_bytes() == before
    Run.open(run.path).close()


def test_two_runs_in_one_folder_are_refused(run):
    for attempt in (lambda: Run.open(run.path), lambda: Run.create(run.path, CONFIG)):
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
            attempt()
    code = f"from lineal.train.run import Run\nRun.open({str(run.path)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert other.returncode == 1 and f"in use by process {os.getpid()}" in other.stderr


def test_a_run_killed_before_its_config_can_be_started_again(tmp_path):
    Run.create(tmp_path / "a", CONFIG).close()
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(RunError, match=r"holds no run \(no config.json\): nothing was trained there"):
        Run.open(tmp_path / "a")
    Run.create(tmp_path / "a", CONFIG).close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": {}}', "\0"])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json is not what a run writes"):
        Run.open(tmp_path)
    with pytest.raises(RunError):
        read_record(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be made") as caught:
        Run.create(tmp_path / "file" / "run", CONFIG)
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_the_start_leaves_no_lock(tmp_path, faulty):
    with faulty(fail_at=4, error=errno.ENOSPC, forever=True), pytest.raises(RunError, match="No space left"):
        Run.create(tmp_path / "a", CONFIG)
    Run.create(tmp_path / "a", CONFIG).close()


def test_other_versions_are_mentioned(run, capsys):
    run.close()
    record = json.loads((run.path / "config.json").read_text())
    record["versions"] |= {"torch": "1.0", "numpy": "0.1"}
    (run.path / "config.json").write_text(json.dumps(record))
    Run.open(run.path).close()
    said = capsys.readouterr().err
    assert f"was started with torch 1.0, now {torch.__version__}" in said and "numpy" not in said


# --- logs -------------------------------------------------------------------------------------------------------


def test_logs_are_lines_and_metrics_hold_no_clock(run):
    run.log(1, {"reward": 0.5, "kl": float("nan")})
    run.time(1, {"step_time": 0.25})
    run.sample(1, {"prompt": "1+1=", "completion": "2\x1b[0m", "reward": 1.0})
    assert (
        run.path / "metrics.jsonl"
    ).read_bytes() == b'{"step": 1, "reward": 0.5, "kl": null, "non_finite": true}\n'
    (timing,) = read_lines(run.path / "timing.jsonl")
    assert timing["step_time"] == 0.25 and timing["time"] > 1e9
    (sample,) = read_lines(run.path / "samples.jsonl")
    assert sample["completion"] == "2\x1b[0m", "files keep what was said; only showing cleans it"


def test_lines_can_be_read_while_the_run_goes_on(run):
    run.log(1, {"reward": 0.5})
    assert metrics(run.path) == [{"step": 1, "reward": 0.5}]


def test_a_log_that_cannot_grow_ends_the_run_with_one_line(run, faulty):
    run.log(1, {"reward": 0.5})
    with faulty(fail_at=1, error=errno.ENOSPC), pytest.raises(RunError) as caught:
        run.log(2, {"reward": 0.6})
    said = str(caught.value)
    assert "metrics.jsonl cannot be written (No space left on device)" in said and "then resume" in said
    assert metrics(run.path) == [{"step": 1, "reward": 0.5}], "and leaves no half line"


# --- checkpoints and resume -------------------------------------------------------------------------------------


def test_resume_cuts_the_logs_to_the_checkpoint(run):
    for step in (1, 2, 3, 4):
        run.log(step, {"reward": step / 10})
        run.time(step, {"step_time": 1.0})
        run.sample(step, {"completion": "x" * step})
        if step == 2:
            run.checkpoint(step, weights(step), {"beta": 0.25})
    at_two = {
        n: b"".join((run.path / f"{n}.jsonl").read_bytes().splitlines(True)[:2])
        for n in ("metrics", "samples")
    }
    run.close()
    with Run.open(run.path) as resumed:
        found = resumed.restore()
        assert found is not None and found.step == 2 and found.state == {"beta": 0.25}
        assert torch.equal(found.tensors["w"], weights(2)["w"])
        for name, content in at_two.items():
            assert (run.path / f"{name}.jsonl").read_bytes() == content
        resumed.log(3, {"reward": 0.3})
        assert [r["step"] for r in metrics(run.path)] == [1, 2, 3]
        assert resumed.config == CONFIG and resumed.device == {"kind": "cpu", "threads": 1}


def test_resume_without_a_checkpoint_starts_from_nothing(run):
    run.log(1, {"reward": 0.5})
    run.close()
    with Run.open(run.path) as resumed:
        assert resumed.restore() is None
        assert metrics(run.path) == []


def test_a_damaged_checkpoint_cuts_the_logs_further(run, capsys):
    for step in (1, 2):
        run.log(step, {"reward": step / 10})
        run.checkpoint(step, weights(step), {})
    run.close()
    (run.path / "checkpoints" / "step-2" / "state.json").write_bytes(b"{}")
    with Run.open(run.path) as resumed:
        found = resumed.restore()
        assert found is not None and found.step == 1 and [r["step"] for r in metrics(run.path)] == [1]
        resumed.log(2, {"reward": 0.2})
        resumed.checkpoint(2, weights(2), {})
    assert "step-2" in capsys.readouterr().err
    with Run.open(run.path) as again:
        found = again.restore()
        assert found is not None and found.step == 2


def test_a_log_shorter_than_it_was_is_mentioned(run, capsys):
    run.log(1, {"reward": 0.5})
    run.checkpoint(1, weights(1), {})
    run.close()
    os.truncate(run.path / "metrics.jsonl", 5)
    with Run.open(run.path) as resumed:
        assert resumed.restore() is not None
    assert "metrics.jsonl is 22 bytes shorter than at step 1" in capsys.readouterr().err


def test_how_many_are_kept_is_remembered(tmp_path):
    with Run.create(tmp_path / "a", CONFIG, keep_last=1, keep_every=4) as run:
        for step in range(1, 6):
            run.checkpoint(step, weights(step), {})
    with Run.open(tmp_path / "a") as run:
        run.checkpoint(6, weights(6), {})
        assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step-4", "step-6"]


def test_logs_are_durable_before_a_checkpoint_speaks_of_them(run, faulty):
    run.log(1, {"reward": 0.5})
    with faulty() as fake:
        # The logs were opened before, so the stand-in does not know their names.
        run.checkpoint(1, weights(1), {})
    assert [call for call, _ in fake.log[:3]] == ["fsync"] * 3
    assert fake.log.index(("write", "state.json")) > 2


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_fault_while_saving_keeps_the_run_resumable(tmp_path, faulty, error):
    for fail_at in range(1, 60):
        path = tmp_path / str(fail_at)
        with Run.create(path, CONFIG) as run:
            run.log(1, {"reward": 0.1})
            run.checkpoint(1, weights(1), {"at": 1})
            run.save_buffer(2, weights(2), {})
            run.log(2, {"reward": 0.2})
            with faulty(fail_at=fail_at, error=error) as fake:
                try:
                    run.checkpoint(2, weights(2), {"at": 2})
                except (RunError, CheckpointError) as caught:
                    assert "untouched" in str(caught) and "\n" not in str(caught)
        with Run.open(path) as run:
            found = run.restore()
            assert found is not None and found.state == {"at": found.step}
            assert [r["step"] for r in metrics(path)] == list(range(1, found.step + 1))
            assert torch.equal(found.tensors["w"], weights(found.step)["w"])
        if fake.count < fail_at:
            break
    assert fail_at > 15 and found.step == 2


# --- rollout buffers --------------------------------------------------------------------------------------------


def test_a_rollout_survives_a_kill(run):
    assert run.load_buffer(5) is None
    assert run.save_buffer(5, {"action_BT": torch.arange(6).view(2, 3)}, {"reward": [1.0, 0.5]})
    run.close()
    with Run.open(run.path) as resumed:
        found = resumed.load_buffer(5)
        assert found is not None and found.state == {"reward": [1.0, 0.5]}
        assert torch.equal(found.tensors["action_BT"], torch.arange(6).view(2, 3))
        assert resumed.load_buffer(4) is None and resumed.load_buffer(6) is None


def test_buffers_go_when_a_checkpoint_covers_them(run):
    buffers = run.path / "buffers"
    run.save_buffer(5, weights(5), {})
    run.checkpoint(4, weights(4), {})
    assert run.load_buffer(5) is not None, "the checkpoint is older"
    run.save_buffer(6, weights(6), {})
    assert [p.name for p in buffers.iterdir()] == ["step-6"], "only the newest is kept"
    (buffers / "step-6.tmp").mkdir()
    run.checkpoint(6, weights(6), {})
    assert list(buffers.iterdir()) == []


def test_a_damaged_buffer_is_named_and_sampled_again(run, capsys):
    run.save_buffer(5, weights(5), {})
    path = run.path / "buffers" / "step-5" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert run.load_buffer(5) is None
    assert "It will be sampled again" in capsys.readouterr().err
    assert run.save_buffer(5, weights(5), {}) and run.load_buffer(5) is not None


def test_a_full_disk_costs_only_the_buffer(run, capsys, faulty):
    for fail_at in range(1, 30):
        with faulty(fail_at=fail_at, error=errno.ENOSPC, forever=True) as fake:
            saved = run.save_buffer(5, weights(5), {})
        if saved:
            break
        assert "could not be saved (No space left on device); training goes on" in capsys.readouterr().err
        found = run.load_buffer(5)
        assert found is None or torch.equal(found.tensors["w"], weights(5)["w"])
    assert fake.count < fail_at and fail_at > 8


# --- the finished model -----------------------------------------------------------------------------------------


def test_final_appears_whole_or_not_at_all(run):
    with pytest.raises(ValueError, match="while writing"), run.final_folder() as folder:
        (folder / "model.safetensors").write_bytes(b"half")
        raise ValueError("while writing")
    assert not run.final.exists()
    for content in (b"first", b"second"):
        with run.final_folder() as folder:
            assert list(folder.iterdir()) == [], "what was left behind is gone"
            (folder / "model.safetensors").write_bytes(content)
        assert (run.final / "model.safetensors").read_bytes() == content
    assert not (run.path / "final.tmp").exists()


def test_a_full_disk_while_finishing_is_one_line(run, faulty):
    with (
        faulty(fail_at=3, error=errno.ENOSPC),
        pytest.raises(RunError, match="final cannot be written"),
        run.final_folder() as folder,
    ):
        (folder / "config.json").write_bytes(b"{}")
    assert not run.final.exists()


# --- stopping, and other processes of the group -----------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_asks_for_a_stop(run, number, code):
    assert not run.stop_requested
    os.kill(os.getpid(), number)
    assert run.stop_requested
    with pytest.raises(SystemExit) as caught:
        run.exit()
    assert caught.value.code == code


def test_leaving_gives_back_signals_and_lock(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyError), Run.create(tmp_path / "a", CONFIG):
        assert signal.getsignal(signal.SIGINT) != before
        raise KeyError
    assert signal.getsignal(signal.SIGINT) == before
    Run.open(tmp_path / "a").close()


def test_a_follower_reads_and_writes_nothing(run, capsys):
    run.log(1, {"reward": 0.5})
    run.checkpoint(1, weights(1), {"at": 1})
    run.checkpoint(2, weights(2), {"at": 2})
    (run.checkpoints / "step-2" / "state.json").unlink()
    before = sorted((p, p.stat().st_size) for p in run.path.rglob("*") if p.is_file())
    with Run.follow(run.path, CONFIG, {"kind": "cpu"}) as follower:
        found = follower.restore()
        assert found is not None and found.state == {"at": 1}
        follower.log(2, {"reward": 1.0})
        follower.sample(2, {})
        follower.time(2, {})
        follower.checkpoint(3, weights(3), {})
        assert not follower.save_buffer(3, weights(3), {})
        assert follower.config == CONFIG and not follower.stop_requested
    assert sorted((p, p.stat().st_size) for p in run.path.rglob("*") if p.is_file()) == before
    assert capsys.readouterr().err == "", "the first process says what is damaged"


def test_what_a_kill_after_the_last_save_left_goes_when_the_run_is_taken_up(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        run.checkpoint(1, {"x": torch.zeros(2)}, {})
        for folder in (run.checkpoints, run.path / "buffers"):
            (folder / "step-0.removed.tmp").mkdir(parents=True)
    with Run.open(tmp_path / "run") as run:
        found = run.restore()
    assert found is not None and found.step == 1
    assert list((tmp_path / "run").rglob("*.tmp")) == []
