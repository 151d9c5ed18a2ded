"""The labelling desk: who is asked what next, under a lease; answers, undo, control pairs, and how it goes.

No server here: the page's requests become calls, and time is a function that is passed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from lineal.environments.preferences.records import EQUAL, FIRST, SECOND, Label, Pair
from lineal.environments.preferences.teachers import uniform
from lineal.errors import DataError, UsageError
from lineal.train.preferences.labels import LabelStore

CHOICES = ("left", "right", "equal", "skip")
LEASE = 120.0
"""Seconds a question stays with whoever was asked."""
RATE_WINDOW = 300.0
"""Seconds over which labels per minute are counted."""
BEFORE_CONTROL = 6
"""Answers before the first repeated pair; the newest few are not repeated."""


@dataclass(frozen=True)
class Question:
    """One pair as one labeller sees it. swapped: the second stands on the left, by chance. control: asked again."""

    pair: Pair
    swapped: bool
    control: bool = False

    @property
    def sides(self) -> tuple[str, str]:
        """What stands on the left, and on the right."""
        first, second = self.pair.first, self.pair.second
        return (second, first) if self.swapped else (first, second)


@dataclass(frozen=True)
class Answer:
    """What a page sends back. It says what stood where, so that it counts even if the server forgot the lease."""

    pair: str
    swapped: bool
    choice: str
    seconds: float = 0.0
    control: bool = False


@dataclass(frozen=True)
class Visitor:
    """Somebody at a page: labeller names the person, session the page (one per tab)."""

    labeller: str
    session: str


class Desk:
    """Hands out the open questions of a store, newest first, and keeps the answers.

    control: share of questions that repeat an answered pair. lease: seconds until a question that was handed out and
    not answered goes to somebody else. wanted: labels hoped for in all, for the progress bar; 0 if unknown.
    """

    def __init__(
        self,
        store: LabelStore,
        *,
        control: float = 0.05,
        lease: float = LEASE,
        wanted: int = 0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not 0 <= control <= 0.5:
            raise UsageError(f"--control {control}: a share of repeated pairs between 0 and 0.5.")
        self.store, self.control, self.lease, self.wanted = store, control, lease, wanted
        self._seed, self._clock, self._wall = seed, clock, wall
        self._held: dict[str, tuple[Visitor, Question, float]] = {}
        self._turns: dict[str, int] = {}

    def next(self, visitor: Visitor) -> Question | None:
        """The visitor's question: the one he holds, else a new one; None while there is none to ask."""
        self.store.refresh()
        now = self._clock()
        self._held = {key: held for key, held in self._held.items() if held[2] > now}
        for holder, question, _ in self._held.values():
            if holder.session == visitor.session:
                return self._lend(visitor, question)
        repeated = self._control_question(visitor)
        if repeated is not None:
            return self._lend(visitor, repeated)
        taken = {question.pair.id for _, question, _ in self._held.values()}
        free = [pair for pair in self.store.open_pairs if pair.id not in taken]
        # The newest question is about the newest behaviour.
        return self._lend(visitor, self._shown(free[-1], visitor)) if free else None

    def _lend(self, visitor: Visitor, question: Question) -> Question:
        self._held[visitor.session] = (visitor, question, self._clock() + self.lease)
        return question

    def _shown(self, pair: Pair, visitor: Visitor, control: bool = False) -> Question:
        turn = self._turns[visitor.session] = self._turns.get(visitor.session, 0) + 1
        swap = uniform("side", self._seed, visitor.session, turn, pair.id) < 0.5
        return Question(pair, swap, control)

    def _control_question(self, visitor: Visitor) -> Question | None:
        """Now and then a pair this labeller answered a while ago, as often as not the other way round."""
        history = self.store.history
        past = [label.pair for label in self._standing(visitor.labeller) if not label.control]
        if len(past) < BEFORE_CONTROL or (history and history[-1].control):
            return None
        if uniform("control", self._seed, visitor.labeller, len(history)) >= self.control:
            return None
        early = past[: -BEFORE_CONTROL // 2]
        place = int(uniform("which", self._seed, visitor.labeller, len(history)) * len(early))
        return self._shown(self.store.pairs[early[place]], visitor, control=True)

    def upcoming(self, count: int = 2) -> list[Pair]:
        """The questions that come next, for drawing their clips ahead of time."""
        taken = {question.pair.id for _, question, _ in self._held.values()}
        return [pair for pair in reversed(self.store.open_pairs) if pair.id not in taken][:count]

    def answer(self, visitor: Visitor, answer: Answer) -> Label:
        """Keep an answer; it is on the disk when this returns. DataError for an unknown pair.

        A lease that ran out does not matter, nor a restart in between: what a person said is never thrown away.
        """
        if answer.choice not in CHOICES:
            raise UsageError(f"the choice {answer.choice!r} is none of {', '.join(CHOICES)}.")
        self.store.refresh()
        pair = self.store.pairs.get(answer.pair)
        if pair is None:
            raise DataError(f"pair {answer.pair[:40]} is unknown here: reload the page.")
        sides = {"left": FIRST, "right": SECOND}
        if answer.swapped:
            sides = {"left": SECOND, "right": FIRST}
        preference = {**sides, "equal": EQUAL, "skip": None}[answer.choice]
        seconds = min(max(0.0, answer.seconds), 3600.0)
        label = Label(
            pair.id, preference, visitor.labeller, round(seconds, 2), round(self._wall(), 2), answer.control
        )
        self.store.add(label)
        held = self._held.get(visitor.session)
        if held is not None and held[1].pair.id == pair.id:
            del self._held[visitor.session]
        return label

    def undo(self, visitor: Visitor) -> Question | None:
        """Take the visitor's last answer back and ask it again; None where there is none to take back."""
        self.store.refresh()
        standing = self._standing(visitor.labeller)
        if not standing:
            return None
        last = standing[-1]
        self.store.add(replace(last, retracted=True, time=round(self._wall(), 2)))
        return self._lend(visitor, self._shown(self.store.pairs[last.pair], visitor, last.control))

    def _standing(self, labeller: str) -> list[Label]:
        """The answers of a labeller that were not taken back, oldest first."""
        found: list[Label] = []
        for label in self.store.history:
            if label.labeller != labeller:
                continue
            if not label.retracted:
                found.append(label)
                continue
            same = [
                i for i, old in enumerate(found) if (old.pair, old.control) == (label.pair, label.control)
            ]
            if same:
                del found[same[-1]]
        return found

    def rate(self, labeller: str | None = None) -> float:
        """Answers per minute over the last minutes, of one labeller or of all, as the store has them.

        The time runs from when the first of them was asked until now, so a pause counts and a restart does not.
        """
        now = self._wall()
        names = [labeller] if labeller is not None else {label.labeller for label in self.store.history}
        recent = [
            label for name in names for label in self._standing(name) if 0 <= now - label.time <= RATE_WINDOW
        ]
        if not recent:
            return 0.0
        begun = min(label.time - label.seconds for label in recent)
        return 60 * len(recent) / min(max(now - begun, 10.0), RATE_WINDOW)

    def progress(self, labeller: str | None = None) -> dict[str, float | int]:
        """How it goes: labels so far and wanted, questions open, this labeller's per minute, agreement on repeated pairs."""
        self.store.refresh()
        same, repeated = self.store.agreement()
        return {
            "labels": len(self.store.answered),
            "wanted": max(self.wanted, len(self.store.pairs)),
            "open": len(self.store.open_pairs),
            "per_minute": round(self.rate(labeller), 1),
            "agreed": same,
            "repeated": repeated,
        }
