"""When labels are asked for: a share before training, the rest at a rate that falls as training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lineal.errors import UsageError
from lineal.train.preferences.options import PreferenceOptions


@dataclass(frozen=True)
class LabelSchedule:
    """How many labels should have been asked for after t environment steps (Christiano et al. 2017, appendix A.1).

    `before` · labels on a random policy first; then at a rate proportional to c / (t + c), whose sum is

        n(t) = n_0 + (labels - n_0) ln(1 + t / c) / ln(1 + steps / c)

    where c is 2e6 steps in the paper's long runs and `decay` · steps here, so that the shape fits a run of any length.
    before: share asked first. decay: c as a share of `steps`; infinity asks at a constant rate. rounds: the others are asked
    in this many equal rounds, each when all of it is due, or one by one (0): a reward that is fitted anew at every label
    moves under a policy that learns in short rollouts.
    """

    labels: int
    steps: int
    before: float = 0.25
    decay: float = 0.2
    rounds: int = 0

    @staticmethod
    def of(options: PreferenceOptions, steps: int) -> LabelSchedule:
        """The schedule that a run of `steps` interactions asks for."""
        return LabelSchedule(options.labels, steps, options.before, options.decay, options.rounds)

    def __post_init__(self) -> None:
        if self.labels < 1 or self.steps < 1:
            raise UsageError(f"{self.labels} labels over {self.steps} steps: it takes at least one of each.")
        if not 0 < self.before <= 1:
            raise UsageError(
                f"before is {self.before}: the share of labels asked first is above 0 and at most 1."
            )
        if not self.decay > 0:
            raise UsageError(f"decay is {self.decay}: it must be above 0.")
        if self.rounds < 0:
            raise UsageError(f"{self.rounds} rounds of questions: it takes 1 or more, or 0 for none.")

    @property
    def first(self) -> int:
        """Labels asked before training."""
        return max(1, round(self.before * self.labels))

    def rate(self, step: int) -> float:
        """The rate of asking after `step` steps, as a share of the rate at the start: c / (step + c)."""
        constant = self.decay * self.steps
        return 1.0 if math.isinf(constant) else constant / (step + constant)

    def due(self, step: int) -> int:
        """Labels that should have been asked for by then."""
        share = min(1.0, max(0.0, step / self.steps))
        if not math.isinf(self.decay):
            share = math.log1p(share / self.decay) / math.log1p(1 / self.decay)
        if self.rounds:
            # What is due at a round's very end may stand a rounding error below it.
            share = math.floor(share * self.rounds + 1e-9) / self.rounds
        return min(self.labels, self.first + round((self.labels - self.first) * share))
