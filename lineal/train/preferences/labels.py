"""The preference store: what was asked and what was answered, as two files that only grow.

::

    STORE/pairs.jsonl     one line per question; written by whoever asks
    STORE/labels.jsonl    one line per answer; written by whoever holds STORE's lock
    STORE/segments/       the clips that the questions speak of

Clips and texts share it, and stores of several labellers merge. A label is on the disk before it is acknowledged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lineal.environments.preferences.records import TEXTS, Label, Pair
from lineal.errors import DataError
from lineal.train import files
from lineal.train.lock import Lock
from lineal.train.preferences.lines import LineReader, LineWriter

PAIRS, LABELS = "pairs.jsonl", "labels.jsonl"


class Answers:
    """What a store holds, as a reader sees it; `refresh` takes in what was added meanwhile, by any process.

    Raises DataError, with file and line, for a line that cannot be read and for a label of an unknown pair.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.pairs: dict[str, Pair] = {}
        self.history: list[Label] = []
        self._current: dict[tuple[str, str], Label] = {}
        self._asked = LineReader(self.folder / PAIRS, Pair.from_json)
        self._said = LineReader(self.folder / LABELS, self._known)
        self.refresh()

    def refresh(self) -> int:
        """Read on; returns how many labels are new."""
        self._ask()
        found = self._said.more()
        for label in found:
            self._take(label)
        return len(found)

    def _ask(self) -> None:
        for pair in self._asked.more():
            self.pairs[pair.id] = pair

    def _known(self, record: dict[str, Any]) -> Label:
        label = Label.from_json(record)
        if label.pair not in self.pairs:
            # The question may have been written after they were read, but always before its answer.
            self._ask()
        self.check(label)
        return label

    def check(self, label: Label) -> None:
        """DataError for a label of a pair that was never asked."""
        if label.pair not in self.pairs:
            raise DataError(
                f"pair {label.pair} is unknown: {self.folder / PAIRS} holds no such question. Bring the pairs that the "
                "labels speak of, or merge the whole store."
            )

    def _take(self, label: Label) -> None:
        self.history.append(label)
        if not label.control:
            key = (label.pair, label.labeller)
            # An answer that was taken back and given again counts as the newest.
            self._current.pop(key, None)
            if not label.retracted:
                self._current[key] = label

    @property
    def labels(self) -> list[Label]:
        """The answers that count: the newest of each labeller about each pair; no control answers."""
        return list(self._current.values())

    @property
    def answered(self) -> set[str]:
        """The pairs that somebody has answered."""
        return {label.pair for label in self._current.values()}

    @property
    def open_pairs(self) -> list[Pair]:
        """The pairs that nobody has answered yet, in the order they were asked."""
        answered = self.answered
        return [pair for name, pair in self.pairs.items() if name not in answered]

    def agreement(self) -> tuple[int, int]:
        """How often a repeated pair got the answer of the first time, and how often one was repeated."""
        first: dict[tuple[str, str], float | None] = {}
        repeated: list[tuple[tuple[str, str], bool]] = []
        for label in self.history:
            key = (label.pair, label.labeller)
            if not label.control:
                first[key] = label.preference
            elif not label.retracted:
                repeated.append((key, first.get(key) == label.preference))
            else:
                last = max((i for i, (other, _) in enumerate(repeated) if other == key), default=None)
                if last is not None:
                    del repeated[last]
        return sum(same for _, same in repeated), len(repeated)


class LabelStore(Answers):
    """The store as the one who writes labels sees it; holds the store's lock until `close`.

    Raises RunError, naming the owner, when another process writes labels there.
    """

    def __init__(self, folder: Path | str) -> None:
        files.make_folder(Path(folder))
        self._lock = Lock(Path(folder))
        try:
            self._writer = LineWriter(Path(folder) / LABELS)
            super().__init__(folder)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release the lock; closing twice is harmless."""
        self._writer.close()
        self._lock.release()

    def add(self, label: Label) -> None:
        """Keep an answer; it is on the disk when this returns. DataError for a pair that was never asked."""
        self._ask()
        self.check(label)
        self._writer.append(label.to_json())
        self.refresh()

    def merge(self, other: Path | str) -> int:
        """Take in another store's questions and answers (not its segments); returns how many labels were new."""
        theirs = Answers(other)
        with PairWriter(self.folder) as writer:
            writer.add(theirs.pairs.values())
        own = {_identity(label) for label in self.history}
        new = [label for label in theirs.history if _identity(label) not in own]
        for label in new:
            self.add(label)
        return len(new)


def _identity(label: Label) -> str:
    return json.dumps(label.to_json(), sort_keys=True)


class PairWriter:
    """Adds questions to a store; asking one again changes nothing, so that a resumed run may ask as before."""

    def __init__(self, folder: Path | str) -> None:
        path = Path(folder) / PAIRS
        files.make_folder(path.parent)
        self._writer = LineWriter(path)
        self.pairs = {pair.id: pair for pair in LineReader(path, Pair.from_json).more()}

    def __enter__(self) -> PairWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, pairs: Iterable[Pair]) -> int:
        """Ask; returns how many questions were new."""
        before = len(self.pairs)
        for pair in pairs:
            if pair.id not in self.pairs:
                self._writer.append(pair.to_json())
                self.pairs[pair.id] = pair
        return len(self.pairs) - before

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._writer.close()


def export_texts(answers: Answers) -> list[dict[str, str]]:
    """The decided text pairs as rows of `prompt`, `chosen`, `rejected`: what preference training on text reads."""
    rows = []
    for label in answers.labels:
        pair = answers.pairs[label.pair]
        if pair.kind == TEXTS and label.preference is not None and label.preference != 0.5:
            sides = (pair.first, pair.second) if label.preference > 0.5 else (pair.second, pair.first)
            rows.append({"prompt": pair.prompt, "chosen": sides[0], "rejected": sides[1]})
    return rows
