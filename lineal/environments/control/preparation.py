"""How an environment is prepared before anything sees it; plain values, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass

from lineal.errors import UsageError


@dataclass(frozen=True)
class Preparation:
    """What is shown of an environment, beyond its name; saved with a policy, which must be shown the same again.

    frame_stack: how many observations are shown at once, the newest last; None is 4 for Atari and 1 elsewhere.
    vector_entry: take the environment's own vectorised form where it has one.
    The rest is Atari's  (Mnih et al. 2015; Machado et al. 2018): frame_skip: frames that an action is held for. max_pool: show
    the brighter of the last two of them, against flicker. grey: one number per pixel instead of three. image_size: pixels
    of each side. noops: most idle frames at the start of a game. fire: press it when a game begins, where it must be.
    sticky: probability that a frame repeats the action before; None is what the environment's name says (v5: 0.25).
    episodic_life: a lost life is an end to the learner, though the game goes on.
    """

    frame_stack: int | None = None
    vector_entry: bool = False
    frame_skip: int = 4
    max_pool: bool = True
    grey: bool = True
    image_size: int = 84
    noops: int = 30
    fire: bool = True
    sticky: float | None = None
    episodic_life: bool = False

    def __post_init__(self) -> None:
        for name, low in (("frame_stack", 1), ("frame_skip", 1), ("image_size", 8), ("noops", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name.replace('_', '-')} {value}: it must be at least {low}.")
        if self.sticky is not None and not 0 <= self.sticky < 1:
            raise UsageError(f"--sticky {self.sticky:g}: a probability from 0 to below 1.")


PLAIN = Preparation()
"""An environment as it is; Atari's in the usual way."""
