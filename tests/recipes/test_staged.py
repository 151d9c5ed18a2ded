"""The loop that every recipe of data at rest shares: when it stops, what it keeps, and that a resumed run is the same run."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lineal.errors import NonFiniteError
from lineal.optim.averaged import AveragedSGD
from lineal.optim.schedules import SlantedTriangular
from lineal.recipes import staged
from lineal.recipes.config import RunOptions, StepOptions
from lineal.train.guard import Guard
from lineal.train.recurrent.stage import RecurrentStage
from lineal.train.run import Run
from lineal.train.stage import Stage, due

OPTIONS = RunOptions(quiet=True, save_every=2)


class Killed(Exception):
    """Stands for a kill: nothing is tidied up."""


class Walk(Stage):
    """One weight that is drawn to a number of its step; it remembers what the loop asked of it."""

    shown = ("loss",)

    def __init__(self, steps: int = 6, die: int = 0, options: RunOptions = OPTIONS):
        self.module = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.module.weight.fill_(1.0)
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=1.0)
        self.steps, self.die, self.options = steps, die, options
        self.asked: list[tuple[Any, ...]] = []
        self.lowest = float("inf")
        self.stop_at = float("-inf")

    def rate(self, step: int) -> float:
        """Falls by the step."""
        return 0.1 / step

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A step of AdamW towards the step's number."""
        if step == self.die:
            raise Killed
        self.asked.append(("step", step))
        loss = (self.module.weight - step).square().sum()
        self.optimiser.zero_grad()
        loss.backward()
        guard.watch(step)
        if guard.finite(0.0, loss=loss.detach()):
            self.optimiser.step()
        return {"loss": loss.item(), "tokens": 5.0}

    def between(self, run: Run, step: int, last: bool) -> dict[str, float]:
        """A figure of the weights."""
        self.asked.append(("between", step, last))
        if not due(self.options, step, last):
            return {}
        found = self.module.weight.sum().item()
        self.lowest = min(self.lowest, found)
        return {"eval/loss": found}

    def enough(self, metrics: Mapping[str, float]) -> bool:
        """Below a bound."""
        return metrics["loss"] < self.stop_at

    def kept(self) -> dict[str, Any]:
        """The lowest figure."""
        return {"lowest": self.lowest}

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Take it back."""
        self.lowest = saved.get("lowest", float("inf"))

    def before(self) -> dict[str, float]:
        """A figure at the start."""
        return {"eval/loss": self.module.weight.sum().item()}

    def finish(self, run: Run, step: int) -> None:
        """The weights as text."""
        self.asked.append(("finish", step))
        with run.final_folder() as folder:
            (folder / "weight").write_text(repr([self.module.weight.tolist(), self.lowest]))


def go(path: Path, stage: Stage, options: RunOptions = OPTIONS) -> None:
    """Start the run, or go on with it."""
    with Run.open(path) if path.exists() else Run.create(path, {}) as run:
        staged.train(options, run, stage)


def lines(path: Path) -> list[dict[str, Any]]:
    """Its figures."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def result(path: Path) -> dict[str, bytes]:
    """What must be equal, bit for bit."""
    newest = max((path / "checkpoints").iterdir(), key=lambda p: int(p.name.split("-")[1]))
    files = [path / "metrics.jsonl", path / "final" / "weight", newest / "tensors.safetensors"]
    return {file.name: file.read_bytes() for file in files}


def test_every_step_is_asked_in_its_turn_and_logged_whole(tmp_path: Path) -> None:
    stage = Walk(3, options=replace(OPTIONS, eval_every=2))
    go(tmp_path / "run", stage)
    assert stage.asked == [
        ("step", 1), ("between", 1, False), ("step", 2), ("between", 2, False), ("step", 3), ("between", 3, True),
        ("finish", 3),
    ]  # fmt: skip
    start, first, second, third = lines(tmp_path / "run")
    assert start == {"step": 0, "eval/loss": 2.0}
    assert first == {"step": 1, "loss": 0.0, "tokens": 5.0, "learning_rate": 0.1, "num_tokens": 5}
    assert second["learning_rate"] == 0.05 and second["num_tokens"] == 10 and "eval/loss" in second
    assert third["num_tokens"] == 15 and "eval/loss" not in third
    timing = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in timing] == [1, 2, 3] and all(line["step_time"] >= 0 for line in timing)


@pytest.mark.parametrize("die", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_killed_run_ends_as_the_uninterrupted_one(tmp_path: Path, die: int, every: int) -> None:
    options = replace(OPTIONS, save_every=every, eval_every=2)
    go(tmp_path / "whole", Walk(options=options), options)
    with pytest.raises(Killed):
        go(tmp_path / "cut", Walk(die=die, options=options), options)
    again = Walk(options=options)
    go(tmp_path / "cut", again, options)
    assert result(tmp_path / "cut") == result(tmp_path / "whole")
    assert again.asked[0] == ("step", 1 + (die - 1) // every * every)


def test_a_run_that_died_while_it_finished_only_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Walk, run: Run, step: int) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Walk, "finish", die)
        go(tmp_path / "run", Walk())
    again, more = Walk(), Walk()
    go(tmp_path / "run", again)
    assert again.asked == [("finish", 6)]
    go(tmp_path / "run", more)
    assert more.asked == []


@pytest.mark.parametrize(
    ("options", "stop_at", "last"),
    [
        (replace(OPTIONS, token_limit=15), float("-inf"), 3),
        (replace(OPTIONS, token_limit=16), float("-inf"), 4),
        (OPTIONS, 1e9, 1),
        (OPTIONS, float("-inf"), 6),
        (replace(OPTIONS, token_limit=1000), float("-inf"), 6),
    ],
)
def test_it_stops_where_it_is_told_to(tmp_path: Path, options: RunOptions, stop_at: float, last: int) -> None:
    stage = Walk()
    stage.stop_at = stop_at
    go(tmp_path / "run", stage, options)
    assert stage.asked[-1] == ("finish", last) and lines(tmp_path / "run")[-1]["step"] == last
    assert (tmp_path / "run" / "checkpoints" / f"step-{last}").is_dir()
    again = Walk()
    go(tmp_path / "run", again, options)
    assert again.asked == []


def test_no_step_at_all_is_a_run_too(tmp_path: Path) -> None:
    stage = Walk(0)
    go(tmp_path / "run", stage)
    assert stage.asked == [("finish", 0)] and [line["step"] for line in lines(tmp_path / "run")] == [0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Time stands still but for what it is told."""
    now = [1000.0]

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        yield pass_by


@pytest.mark.parametrize("die", [0, 2, 3, 4])
def test_the_time_before_a_kill_counts(tmp_path: Path, clock: Callable[[float], None], die: int) -> None:
    class Slow(Walk):
        """Ten seconds a step."""

        def step(self, step: int, guard: Guard) -> dict[str, float]:
            clock(10.0)
            return super().step(step, guard)

    options = replace(OPTIONS, save_every=1, time_limit=35.0)
    if die:
        with pytest.raises(Killed):
            go(tmp_path / "run", Slow(20, die), options)
    clock(10_000.0)
    stage = Slow(20)
    go(tmp_path / "run", stage, options)
    assert stage.asked[-1] == ("finish", 4)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_leaves(tmp_path: Path, number: int, code: int) -> None:
    class Stopped(Walk):
        """Is sent a signal within its third step."""

        def step(self, step: int, guard: Guard) -> dict[str, float]:
            if step == 3:
                signal.raise_signal(number)
            return super().step(step, guard)

    go(tmp_path / "whole", Walk())
    with pytest.raises(SystemExit) as left:
        go(tmp_path / "run", Stopped(), replace(OPTIONS, save_every=100))
    assert left.value.code == code and (tmp_path / "run" / "checkpoints" / "step-3").is_dir()
    again = Walk()
    go(tmp_path / "run", again)
    assert again.asked[0] == ("step", 4)
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_refusals_in_a_row_are_counted_over_a_kill(tmp_path: Path) -> None:
    class Burst(Walk):
        """Its loss is no number from the third step on."""

        def step(self, step: int, guard: Guard) -> dict[str, float]:
            if step >= 3:
                guard.watch(step)
                if step == self.die:
                    raise Killed
                guard.finite(float("nan"))
                return {"loss": float("nan"), "tokens": 1.0}
            return super().step(step, guard)

    options = replace(OPTIONS, save_every=1)
    with pytest.raises(Killed):
        go(tmp_path / "run", Burst(20, 5), options)
    with pytest.raises(NonFiniteError, match="3 times in a row"):
        go(tmp_path / "run", Burst(20), options)
    assert lines(tmp_path / "run")[-1]["step"] == 4


@dataclass(frozen=True)
class Config:
    """What the stages of ulmfit have."""

    optimiser: StepOptions
    run: RunOptions


@dataclass
class Drift(RecurrentStage):
    """One weight that is pushed by one at every step; its held-out losses are given."""

    config: Config
    module: nn.Linear
    optimiser: torch.optim.Optimizer
    steps: int
    given: tuple[float, ...]
    seen: list[float]
    shown: tuple[str, ...] = ("loss",)

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """The weight is moved by the rate."""
        self.module.weight.grad = -torch.ones_like(self.module.weight)
        self.optimiser.step()
        return {"loss": 0.0, "tokens": 1.0, "weight": self.module.weight.item()}

    def evaluate(self, whole: bool) -> dict[str, float]:
        """The next loss."""
        self.seen.append(self.module.weight.item())
        return {"eval/loss": self.given[len(self.losses)]}

    def write(self, run: Run, step: int) -> None:
        """The weight that is left behind."""
        with run.final_folder() as folder:
            (folder / "weight").write_text(repr(self.module.weight.item()))


def drift(options: RunOptions) -> Drift:
    """A weight at 0 whose averaging begins after the third evaluation."""
    method = StepOptions(
        method="averaged", patience=1, learning_rate=1.0, schedule="constant", weight_decay=0.0
    )
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    optimiser = AveragedSGD(module.parameters(), 1.0)
    return Drift(Config(method, options), module, optimiser, 7, (3.0, 2.0, 4.0, 9.0, 9.0, 9.0), [])


def test_averages_are_judged_and_left_behind_while_the_weights_go_on(tmp_path: Path) -> None:
    options = replace(OPTIONS, eval_every=1)
    stage = drift(options)
    go(tmp_path / "run", stage, options)
    # Weights 1, 2, 3; averaging begins after step 3: of 4; of 4 and 5; of 4, 5 and 6.
    assert stage.seen == [1.0, 2.0, 3.0, 4.0, 4.5, 5.0]
    assert [line["weight"] for line in lines(tmp_path / "run")] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert (tmp_path / "run" / "final" / "weight").read_text() == "5.5"
    assert stage.module.weight.item() == 7.0


def test_where_averaging_began_is_known_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(OPTIONS, eval_every=1, save_every=1)
    go(tmp_path / "whole", drift(options), options)
    real = Drift.step

    def die(self: Drift, step: int, guard: Guard) -> dict[str, float]:
        if step == 6:
            raise Killed
        return real(self, step, guard)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Drift, "step", die)
        go(tmp_path / "cut", drift(options), options)
    go(tmp_path / "cut", drift(options), options)
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_rate_is_the_peak_times_its_scale_times_the_schedule(scale: float) -> None:
    stage = drift(OPTIONS)
    options = replace(stage.config.optimiser, schedule="slanted", learning_rate=0.3)
    stage.config = Config(options, OPTIONS)
    stage.rate_scale = lambda step: scale  # type: ignore[method-assign]
    wanted = SlantedTriangular(7, options.cut_fraction, options.ratio)
    assert [stage.rate(step) for step in range(1, 8)] == [0.3 * scale * wanted(step) for step in range(7)]


@pytest.mark.parametrize(
    ("every", "step", "last", "wanted"),
    [(0, 4, False, False), (2, 4, False, True), (2, 3, False, False), (2, 4, True, False)],
)
def test_when_an_evaluation_is_due(every: int, step: int, last: bool, wanted: bool) -> None:
    assert due(replace(OPTIONS, eval_every=every), step, last) is wanted
