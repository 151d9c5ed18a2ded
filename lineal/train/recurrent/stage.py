"""What the stages of ulmfit, elmo and tagger share: rates by their schedule, and weights that may be averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lineal.optim.averaged import AveragedSGD, no_longer_improves
from lineal.train.console import note
from lineal.train.recurrent.steps import stage_schedule
from lineal.train.run import Run
from lineal.train.stage import Stage, due

T = TypeVar("T")


@dataclass
class RecurrentStage(Stage):
    """A stage whose optimiser averages its weights from when they no longer get better (NT-ASGD), if it can.

    config: has `optimiser` (StepOptions) and `run`. losses: held out, of the evaluations so far.
    """

    config: Any
    losses: list[float] = field(default_factory=list, init=False, kw_only=True)

    name = "stage"

    def evaluate(self, whole: bool) -> dict[str, float]:
        """Held-out figures; whole: on all there is. `eval/loss` is among them."""
        raise NotImplementedError

    def write(self, run: Run, step: int) -> None:
        """Log the final figures and write the final folder."""
        raise NotImplementedError

    def rate_scale(self, step: int) -> float:
        """What the learning rate of a step (from 1) is multiplied by."""
        return 1.0

    def rate(self, step: int) -> float:
        """The peak rate, the step's scale and the schedule, multiplied."""
        options = self.config.optimiser
        return options.learning_rate * self.rate_scale(step) * stage_schedule(options, self.steps)(step - 1)

    def between(self, run: Run, step: int, last: bool) -> dict[str, float]:
        """Figures of the averaged weights where there are any; averaging begins where they no longer get better."""
        if not due(self.config.run, step, last):
            return {}
        found = self._averaged(lambda: self.evaluate(False))
        self.losses.append(found["eval/loss"])
        options, optimiser = self.config.optimiser, self.optimiser
        if isinstance(optimiser, AveragedSGD) and options.method == "averaged" and not optimiser.averaging:
            self._watch(optimiser, options.patience)
        return found

    def _watch(self, optimiser: AveragedSGD, patience: int) -> None:
        if no_longer_improves(self.losses, patience):
            note(f"the held-out loss has not improved for {patience} evaluations: averaging begins")
            optimiser.start_average()

    def finish(self, run: Run, step: int) -> None:
        """The final figures and folder, of the averaged weights where there are any."""
        self._averaged(lambda: self.write(run, step))

    def _averaged(self, use: Callable[[], T]) -> T:
        if not isinstance(self.optimiser, AveragedSGD):
            return use()
        self.optimiser.exchange()
        try:
            return use()
        finally:
            self.optimiser.exchange()

    def kept(self) -> dict[str, Any]:
        """The losses."""
        return {"losses": self.losses}

    def resume(self, saved: Any) -> None:
        """Take them back."""
        self.losses = list(saved.get("losses", []))
