"""The loop of every recipe that learns from data at rest: a stage says what a step is, and what is judged and left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lineal.errors import UsageError
from lineal.optim.groups import set_learning_rate
from lineal.train.distributed import joined
from lineal.train.guard import Guard
from lineal.train.metrics import read_lines
from lineal.train.progress import Progress
from lineal.train.run import Run
from lineal.train.session import over, restore, save
from lineal.train.stage import Stage


def train(options: Any, run: Run, stage: Stage) -> None:
    """All steps that are left to take, and the final model; options: the recipe's, of its run."""
    ranks, method = stage.ranks, {stage.name: stage.optimiser}
    live = False if options.quiet else None
    with Progress(
        stage.steps, stage.shown, stream=ranks.voice, live=live, seconds=options.time_limit
    ) as progress:
        done, saved = restore(run, stage.module, method, ranks)
        stage.resume(saved)
        guard = Guard(run.refused if ranks.first else None, in_a_row=saved.get("refused", 0))
        tokens, started = saved.get("tokens", 0), time.monotonic() - (used(run) if done else 0.0)
        if done == 0 and (before := stage.before()):
            run.log(0, before)
        for step in range(done + 1, 0 if saved.get("last") else stage.steps + 1):
            begun = time.monotonic()
            rate = stage.rate(step)
            set_learning_rate(stage.optimiser, rate)
            metrics = stage.step(step, guard)
            tokens += int(metrics["tokens"])
            metrics |= {"learning_rate": rate, "num_tokens": tokens}
            (late,) = ranks.any(over(options, started, tokens))
            last = late or step == stage.steps
            metrics |= stage.between(run, step, last)
            last = last or stage.enough(metrics)
            run.log(step, metrics)
            spent = time.monotonic() - begun
            run.time(step, {"step_time": spent, "tokens_per_second": metrics["tokens"] / spent})
            if not options.quiet:
                progress.update(step, metrics)
            (stop,) = ranks.any(run.stop_requested)
            if last or step % options.save_every == 0 or stop:
                state = {**stage.kept(), "tokens": tokens, "refused": guard.in_a_row, "last": last}
                save(run, step, stage.module, method, state, ranks)
            if stop and not last:
                run.exit()
            done = step
            if last:
                break
    if not ranks.tell(run.final.exists()):
        stage.finish(run, done)


@contextmanager
def alone(recipe: str, device: str) -> Iterator[None]:
    """The group of processes of a recipe that trains in one; UsageError in several."""
    with joined(device) as ranks:
        if ranks.world > 1:
            raise UsageError(f"{recipe} trains in one process: start it without torchrun.")
        yield


def used(run: Run) -> float:
    """Seconds that the steps took which a resumed run does not take again."""
    return sum(line["step_time"] for line in read_lines(run.path / "timing.jsonl"))
