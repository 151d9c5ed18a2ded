"""Killed with SIGKILL at any instant and resumed, a run ends bit-identical to one that was never interrupted."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from torch import nn

from lineal.train.guard import Guard
from lineal.train.optimizer import load_optimizer, optimizer_tensors
from lineal.train.order import Order
from lineal.train.run import Run

STEPS, EPOCHS, ROWS = 12, 2, 23


def rollout(model: nn.Module, rows: list[int], step: int) -> dict[str, torch.Tensor]:
    """Stands for sampling: depends on the weights and on (step, row) only."""
    made = torch.Generator().manual_seed(1000 * step + rows[0])
    x = torch.randn(len(rows), 6, generator=made)
    with torch.no_grad():
        return {"x": x, "reward": model(x).tanh().sum(-1) + torch.tensor(rows) / ROWS}


def train(path: Path, pause: float = 0.0) -> None:
    """A small recipe with all the machinery: rollouts kept, epochs over each, a checkpoint after every step."""
    with Run.open(path) if (path / "config.json").exists() else Run.create(path, {"recipe": "toy"}) as run:
        model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 4))
        made = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=made) / 4
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        names, order, first, guard = (
            dict(model.named_parameters()),
            Order(ROWS, seed=3),
            1,
            Guard(run.refused),
        )
        if found := run.restore():
            model.load_state_dict({name: found.tensors[name] for name in model.state_dict()})
            load_optimizer(optimizer, found.tensors, found.state["optimizer"], names)
            guard.in_a_row, first = found.state["in_a_row"], found.step + 1
        for step in range(first, STEPS + 1):
            saved = run.load_buffer(step)
            batch = saved.tensors if saved else rollout(model, order.batch(step - 1, 5), step)
            if not saved:
                run.save_buffer(step, batch, {})
            for _ in range(EPOCHS):
                optimizer.zero_grad()
                loss = (
                    -(model(batch["x"]).square().mean(-1) * batch["reward"]).mean()
                    + model(batch["x"]).pow(2).mean()
                )
                loss.backward()
                if step == 5:
                    model.get_parameter("0.weight").grad[0, 0] = float("nan")  # type: ignore[index]
                norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                if guard.finite(norm, loss=loss):
                    optimizer.step()
                time.sleep(pause)
            run.log(step, {"loss": loss.item(), "grad_norm": norm.item(), "refusals": guard.in_a_row})
            run.sample(step, {"reward": batch["reward"].tolist()})
            run.time(step, {"step_time": time.perf_counter()})
            tensors, state = optimizer_tensors(optimizer, names)
            run.checkpoint(
                step, {**model.state_dict(), **tensors}, {"optimizer": state, "in_a_row": guard.in_a_row}
            )
            if run.stop_requested:
                run.exit()
        with run.final_folder() as folder:
            (folder / "done").write_text("x")


def forked(path: Path, pause: float = 0.0) -> int:
    """Train in a child process; torch is loaded already, so a restart costs milliseconds."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        train(path, pause)
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def outcome(path: Path) -> dict[str, bytes]:
    """Everything that must be equal: weights, optimiser, state, metrics and samples; not the times."""
    newest = path / "checkpoints" / f"step-{STEPS}"
    files = [
        newest / "tensors.safetensors",
        newest / "state.json",
        path / "metrics.jsonl",
        path / "samples.jsonl",
    ]
    content = {file.name: file.read_bytes() for file in files}
    # The state holds the length of timing.jsonl, whose numbers differ in width.
    content["state.json"] = content["state.json"].split(b'"lengths"')[0]
    return content


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """The outcome of an uninterrupted run, and the seconds it took."""
    # In this process, so that the children inherit all that torch loads on first use.
    train(tmp_path_factory.mktemp("warm") / "run")
    path, start = tmp_path_factory.mktemp("straight") / "run", time.perf_counter()
    train(path)
    return outcome(path), time.perf_counter() - start


def test_two_uninterrupted_runs_are_equal(straight, tmp_path):
    """The control: without it the next tests would mean little."""
    os.waitpid(forked(tmp_path / "run"), 0)
    assert outcome(tmp_path / "run") == straight[0]
    assert len(straight[0]["metrics.jsonl"].splitlines()) == STEPS


@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 5))])
def test_kills_at_random_instants_change_nothing(straight, tmp_path, seed):
    chance, path, kills = random.Random(seed), tmp_path / "run", 0
    while True:
        child = forked(path)
        # Longer and longer, so that a slow machine gets there as well.
        time.sleep(chance.uniform(0, 0.05 + kills / 300) * straight[1])
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            break
        assert code == -signal.SIGKILL, "a resumed run never fails, whatever the last one left behind"
        kills += 1
    assert kills >= 3
    assert outcome(path) == straight[0]
    assert list(path.rglob("*.tmp")) == [] and (path / "final" / "done").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_polite_stop_is_resumed_too(straight, tmp_path, number, code):
    path = tmp_path / "run"
    child = forked(path, pause=0.02)
    while not (path / "checkpoints" / "step-2").exists():
        time.sleep(0.005)
    os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert os.waitstatus_to_exitcode(os.waitpid(forked(path), 0)[1]) == 0
    assert outcome(path) == straight[0]
