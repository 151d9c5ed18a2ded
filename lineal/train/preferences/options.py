"""The options of learning from preferences; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass

from lineal.errors import UsageError

LABELLERS = ("synthetic", "web")
PAIRS = ("disagreement", "uniform")


@dataclass(frozen=True)
class PreferenceOptions:
    """What is asked, who answers, and how the reward is learned."""

    labels: int = 700
    """Comparisons to ask for in all."""
    labeller: str = "synthetic"
    """synthetic (a teacher that sees the true reward), web (a person: lineal label RUN), or path.py:function."""
    instruction: str = "Which of the two is better?"
    """What the page asks."""
    fps: float = 30.0
    """Steps of a clip shown per second on the page."""
    segment: int = 25
    """Steps of a clip; the paper shows one or two seconds."""
    before: float = 0.25
    """Share of the labels asked before training, about a random policy."""
    decay: float = 0.2
    """c of the rate c / (t + c) at which the others are asked, as a share of the run; the paper's c is 2e6 steps."""
    rounds: int = 50
    """In how many rounds they are asked, the reward fitted after each; 0 asks each when it is due."""
    pairs: str = "disagreement"
    """disagreement (of the ensemble, the paper's choice) or uniform."""
    candidates: int = 10
    """Pairs drawn for each one that is asked, when they are chosen by disagreement."""
    backlog: int = 10
    """web: unanswered questions up to which training goes on; above, it waits for the person."""
    recent: int = 400
    """Newest segments that questions are made of and that the reward is normalised on."""
    horizon: int = 0
    """Length of every episode, whatever happens in it; 0 takes the environment's own time limit."""
    terminations: bool = False
    """Let episodes end early. The learner then learns from their length, which nobody preferred."""
    termination_reward: float = -10.0
    """Added to the true reward where an episode would have ended, for the synthetic teacher to see."""
    members: int = 3
    """Networks of the reward ensemble."""
    reward_hidden: tuple[int, ...] = (64, 64)
    """Widths of their hidden layers."""
    reward_updates: int = 200
    """Updates of the ensemble each time labels have arrived."""
    reward_learning_rate: float = 1e-3
    """Learning rate of the ensemble."""
    error_rate: float = 0.1
    """Share of answers taken to be random."""
    temperature: float = 0.0
    """Synthetic teacher: 0 always prefers the greater sum; above, it chooses by σ(difference / temperature)."""
    mistake: float = 0.0
    """Synthetic teacher: share of answers turned round."""
    equal_margin: float = 0.0
    """Synthetic teacher: sums closer than this are equally good."""
    skip_below: float | None = None
    """Synthetic teacher: cannot tell when both sums are below this."""
    myopia: float = 1.0
    """Synthetic teacher: weight of a step relative to the next one; below 1 the end of a clip counts most."""
    asynchronous: bool = False
    """Fit the reward in a thread beside training: faster on several cores, not repeatable."""

    def __post_init__(self) -> None:
        least = {
            "labels": 2, "segment": 1, "rounds": 0, "candidates": 1, "backlog": 0, "recent": 2, "horizon": 0, "members": 1,
            "reward_updates": 1, "reward_learning_rate": 0, "error_rate": 0, "temperature": 0, "mistake": 0,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if not value >= low:
                raise UsageError(f"--{name.replace('_', '-')} {value:g}: it must be at least {low:g}.")
        if self.pairs not in PAIRS:
            raise UsageError(f"--pairs {self.pairs} is neither {' nor '.join(PAIRS)}.")
        if self.labeller not in LABELLERS and ".py:" not in self.labeller:
            raise UsageError(
                f"--labeller {self.labeller} is none of {', '.join(LABELLERS)} and path.py:function."
            )
        if not self.error_rate < 1:
            raise UsageError(
                f"--error-rate {self.error_rate:g}: nothing would be learned from answers that are all random."
            )
        if 0 < self.horizon < self.segment:
            raise UsageError(
                f"--horizon {self.horizon}: an episode must hold a clip of --segment {self.segment} steps."
            )
