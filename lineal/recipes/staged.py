"""The loop of ulmfit, elmo and tagger: a stage says what a step is, how it is judged, and what it leaves behind."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

import torch

from lineal.optim.averaged import AveragedSGD, no_longer_improves
from lineal.recipes.config import RunOptions, StepOptions
from lineal.train.console import note
from lineal.train.guard import Guard
from lineal.train.progress import Progress
from lineal.train.recurrent.stage import Stage
from lineal.train.recurrent.steps import stage_schedule
from lineal.train.run import Run
from lineal.train.session import over, restore, save, scheduled


@runtime_checkable
class Staged(Protocol):
    """A configuration with steps and a run."""

    @property
    def optimiser(self) -> StepOptions:
        """How many steps, how large, by which rule."""
        ...

    @property
    def run(self) -> RunOptions:
        """The run folder."""
        ...


def train(config: Staged, run: Run, stage: Stage) -> None:
    """All steps that are left to take, and the final model."""
    options, method = config.run, {"stage": stage.optimiser}
    schedule = stage_schedule(config.optimiser, stage.steps)
    live = False if options.quiet else None
    with Progress(stage.steps, stage.shown, live=live, seconds=options.time_limit) as progress:
        done, saved = restore(run, stage.module, method)
        guard = Guard(run.refused, in_a_row=saved.get("refused", 0))
        tokens, losses = saved.get("tokens", 0), list(saved.get("losses", []))
        started = time.monotonic()
        if done == 0 and (before := stage.before()):
            run.log(0, before)
        for step in range(done + 1, 0 if saved.get("last") else stage.steps + 1):
            begun = time.monotonic()
            peak = config.optimiser.learning_rate * stage.rate_scale(step)
            rate = scheduled(schedule, peak, step - 1, stage.optimiser)
            metrics = stage.step(step, guard)
            tokens += int(metrics["tokens"])
            metrics |= {"learning_rate": rate, "num_tokens": tokens, "epoch": stage.epoch(step)}
            last = over(options, started, tokens) or step == stage.steps
            if options.eval_every and step % options.eval_every == 0 and not last:
                metrics |= judged(stage, whole=False)
                losses = _watch(config, stage, [*losses, metrics["eval/loss"]])
            run.log(step, metrics)
            spent = time.monotonic() - begun
            run.time(step, {"step_time": spent, "tokens_per_second": metrics["tokens"] / spent})
            if not options.quiet:
                progress.update(step, metrics)
            stop = run.stop_requested
            if last or step % options.save_every == 0 or stop:
                state = {"tokens": tokens, "refused": guard.in_a_row, "losses": losses, "last": last}
                save(run, step, stage.module, method, state)
            if stop and not last:
                run.exit()
            done = step
            if last:
                break
    if not run.final.exists():
        _averages(stage.optimiser)
        stage.finish(run, done)


def judged(stage: Stage, whole: bool) -> dict[str, float]:
    """A stage's figures, of the averaged weights where there are any."""
    _averages(stage.optimiser)
    try:
        return stage.evaluate(whole)
    finally:
        _averages(stage.optimiser)


def _averages(optimiser: torch.optim.Optimizer) -> None:
    if isinstance(optimiser, AveragedSGD):
        optimiser.exchange()


def _watch(config: Staged, stage: Stage, losses: list[float]) -> list[float]:
    """The held-out losses so far; averaging begins where they no longer get better."""
    method, optimiser = config.optimiser, stage.optimiser
    if method.method != "averaged" or not isinstance(optimiser, AveragedSGD) or optimiser.averaging:
        return losses
    if no_longer_improves(losses, method.patience):
        note(f"the held-out loss has not improved for {method.patience} evaluations: averaging begins")
        optimiser.start_average()
    return losses
