"""What both trainings of word vectors do around their steps: restore, log, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from lineal.errors import CheckpointError, NonFiniteError
from lineal.train.console import note, warn
from lineal.train.progress import Progress
from lineal.train.run import Run
from lineal.train.vectors.options import VectorsRunOptions


@runtime_checkable
class Learner(Protocol):
    """Vectors in training."""

    def state(self) -> dict[str, NDArray[np.float32]]:
        """All that training changes; writing to these arrays changes it."""
        ...

    def finite(self) -> bool:
        """Whether all of it is finite numbers."""
        ...


@dataclass(frozen=True)
class Stretch:
    """What one step did: the sum of `count` losses, how many words (or co-occurrences) it read, and further metrics."""

    loss: float
    count: int
    read: int
    metrics: Mapping[str, float] = field(default_factory=dict)


def go(
    options: VectorsRunOptions,
    run: Run,
    learner: Learner,
    total: int,
    step: Callable[[int], Stretch],
    *,
    core: ModuleType | None,
    mark: str,
) -> int:
    """Take the steps 1 .. total that are left; gives how many are done.

    core: what computes, None where it is the plain form. mark: of the corpus, which must be the same when a run is resumed.

    The logged loss is the mean over what this step predicted, each at the moment before its own update; a step that
    predicts nothing has none.
    """
    _note_device(options, run, core)
    live = False if options.quiet else None
    with Progress(total, ("loss", "learning_rate"), live=live, seconds=options.time_limit) as progress:
        done, read, finished = _restore(run, learner, mark)
        started = time.monotonic()
        for number in range(done + 1, 0 if finished else total + 1):
            begun = time.monotonic()
            found = step(number)
            _check(learner, number, found)
            read += found.read
            loss = {"loss": found.loss / found.count} if found.count else {}
            metrics = {**loss, **found.metrics, "predictions": found.count, "num_tokens": read}
            run.log(number, metrics)
            spent = time.monotonic() - begun
            run.time(number, {"step_time": spent, "tokens_per_second": found.read / max(spent, 1e-9)})
            if not options.quiet:
                progress.update(number, metrics)
            late = 0 < options.time_limit < time.monotonic() - started
            last, stop = late or number == total, run.stop_requested
            if last or number % options.save_every == 0 or stop:
                tensors = {
                    name: torch.from_numpy(np.ascontiguousarray(table))
                    for name, table in learner.state().items()
                }
                run.checkpoint(number, tensors, {"read": read, "last": last, "corpus": mark})
            if stop and not last:
                run.exit()
            done = number
            if last:
                break
    return done


def _note_device(options: VectorsRunOptions, run: Run, core: ModuleType | None) -> None:
    """Say and record what computes; a resumed run with another core ends with other last bits."""
    name = "Python" if core is None else core.__name__.rsplit(".", 1)[1]
    before = run.device.get("core", name)
    if before != name:
        warn(f"the run was started with the core {before}, and {name} goes on: it may not end bit-identical.")
    run.record_device({"core": name, "threads": options.threads})
    if core is None:
        note(
            "no compiled core: the plain form trains, which is a hundred times slower (lineal doctor says why)"
        )
    if options.threads > 1:
        note(f"{options.threads} threads without locks: faster than one, and no two runs are alike")


def _restore(run: Run, learner: Learner, mark: str) -> tuple[int, int, bool]:
    found = run.restore()
    if found is None:
        return 0, 0, False
    state = found.state
    if state["corpus"] != mark:
        raise CheckpointError(
            f"{found.path} was made with another text: the run's corpus was damaged, and the text that it was read from has "
            "changed since. Put the text back and remove RUN/corpus, or start a new run."
        )
    for name, table in learner.state().items():
        table[...] = found.tensors[name].numpy()
    note(f"continuing after step {found.step}")
    return found.step, int(state["read"]), bool(state["last"])


def _check(learner: Learner, number: int, found: Stretch) -> None:
    if not math.isfinite(found.loss) or not learner.finite():
        raise NonFiniteError(
            f"step {number}: a vector or the loss is no longer finite. Nothing of this step was saved; the checkpoint before "
            "it is whole. Start again with a lower --learning-rate."
        )
