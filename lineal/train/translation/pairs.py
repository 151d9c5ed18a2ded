"""Sentences with their translations: read line by line, and what cannot be learned from left out and counted by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lineal.errors import DataError, UsageError
from lineal.train.console import clean, warn
from lineal.train.data import map_fields, read_rows
from lineal.train.formats import strip_gz, text_lines
from lineal.train.order import Order, hash64
from lineal.train.strict_json import Bad

if TYPE_CHECKING:
    from lineal.train.translation.options import PairOptions

MOST_HELD_OUT = 2000
LETTERS = "abcdefghij"
COPIES = int.from_bytes(b"copies")
"""Sets the hashes of the made-up task apart."""


@dataclass(frozen=True)
class Pairs:
    """Aligned sentences.

    sources, targets: by row. name: where they come from. dropped: how many were left out, by reason.
    """

    sources: list[str]
    targets: list[str]
    name: str
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    def part(self, rows: Iterable[int], name: str) -> Pairs:
        """Some of the rows."""
        rows = list(rows)
        return Pairs([self.sources[i] for i in rows], [self.targets[i] for i in rows], name)


@dataclass(frozen=True)
class Corpus:
    """What a run learns from, what it is watched by, and what it is judged by at the end.

    split: validation pairs were taken out of the training pairs, and are cleaned as those are.
    """

    train: Pairs
    valid: Pairs
    test: Pairs
    split: bool = False


def read_corpus(options: PairOptions, seed: int) -> Corpus:
    """The corpus that the options name; without files the made-up task of `copy_task`.

    Validation pairs are taken out of the training pairs where they have no files of their own; a function of the seed.
    Raises DataError with file:line, UsageError for a split that leaves nothing.
    """
    _together(options)
    given = options.source_file or options.pairs
    if given is None:
        if options.valid_source or options.test_source:
            raise UsageError(
                "validation or test files without training files: give --source-file and --target-file."
            )
        return copy_task(seed)
    if options.pairs:
        train = read_columns(options.pairs, options.on_bad_row, options.limit)
    else:
        train = read_aligned(
            str(options.source_file), str(options.target_file), options.on_bad_row, options.limit
        )
    train = without_empty(train)
    if options.valid_source:
        valid = read_aligned(options.valid_source, str(options.valid_target), "error")
    else:
        train, valid = held_out(train, options.held_out, seed)
    test = (
        read_aligned(options.test_source, str(options.test_target), "error") if options.test_source else valid
    )
    return Corpus(train, valid, test, split=not options.valid_source)


def _together(options: PairOptions) -> None:
    """Refuse half of a pair of files, and two ways to say the same."""
    for side in ("source_file", "valid_source", "test_source"):
        other = side.replace("source", "target")
        if (getattr(options, side) is None) != (getattr(options, other) is None):
            names = ["--" + name.replace("_", "-") for name in (side, other)]
            raise UsageError(f"{' and '.join(names)} belong together: give both.")
    if options.pairs is not None and options.source_file is not None:
        raise UsageError("--pairs and --source-file are two ways to say the same: give one of them.")


def read_aligned(source: str, target: str, on_bad_row: str = "error", limit: int = 0) -> Pairs:
    """Two files of as many lines; DataError names both counts, and the first line without a partner."""
    sources: list[str] = []
    targets: list[str] = []
    bad = _BadLines(on_bad_row)
    rows = zip_longest(text_lines(Path(source)), text_lines(Path(target)))
    for one, other in islice(rows, limit or None):
        if one is None or other is None:
            raise _unequal(source, target, one or other)
        left, right = bad.text(source, one), bad.text(target, other)
        if left is None or right is None:
            bad.count += 1
            continue
        sources.append(left)
        targets.append(right)
    return Pairs(sources, targets, f"{source} and {target}", bad.dropped())


def _unequal(source: str, target: str, odd: tuple[int, str | Bad] | None) -> DataError:
    """Count both files to their ends, and say so."""
    counts = [sum(1 for _ in text_lines(Path(path))) for path in (source, target)]
    longer = source if counts[0] > counts[1] else target
    number, line = odd or (min(counts) + 1, "")
    shown = clean(line, 60) if isinstance(line, str) else line.reason
    return DataError(
        f"{source} has {counts[0]:,} lines and {target} {counts[1]:,}: each line needs its translation at the same "
        f"number. The first without one is {longer}:{number}: {shown!r}. A line was lost or broken in two at or before it."
    )


class _BadLines:
    """What becomes of lines that are no text."""

    def __init__(self, policy: str) -> None:
        if policy not in ("error", "skip", "warn"):
            raise UsageError(f"--on-bad-row {policy} is not one of error, skip, warn.")
        self.policy, self.count = policy, 0

    def text(self, path: str, line: tuple[int, str | Bad]) -> str | None:
        """The line, or None when it is to be left out."""
        number, text = line
        if isinstance(text, str):
            return text.strip()
        message = f"{path}:{number}:{text.column}: {text.reason}"
        if self.policy == "error":
            raise DataError(f"{message} (--on-bad-row skip leaves such lines out.)")
        if self.policy == "warn":
            warn(f"{message} The pair is left out.")
        return None

    def dropped(self) -> dict[str, int]:
        """The count under its name."""
        return {"unreadable": self.count} if self.count else {}


def read_columns(path: str, on_bad_row: str = "error", limit: int = 0) -> Pairs:
    """One file: source<TAB>target on each line of a .tsv or .txt, or rows with the columns source and target."""
    if strip_gz(Path(path)).suffix.lower() not in (".tsv", ".txt"):
        rows = read_rows(path, on_bad_row=on_bad_row, limit=limit)
        rows = map_fields(rows, {"source": "source", "target": "target"}, on_bad_row=on_bad_row)
        left, right = ([str(row[side]).strip() for row in rows.rows] for side in ("source", "target"))
        return Pairs(left, right, path, {"unreadable": rows.skipped} if rows.skipped else {})
    sources, targets, bad = [], [], _BadLines(on_bad_row)
    for line in islice(text_lines(Path(path)), limit or None):
        number, text = line
        if isinstance(text, str) and text.count("\t") != 1:
            reason = f"{text.count(chr(9))} tabs; a line is source<TAB>target."
            line = number, Bad(reason, 1)
        found = bad.text(path, line)
        if found is None:
            bad.count += 1
            continue
        source, _, target = str(line[1]).partition("\t")
        sources.append(source.strip())
        targets.append(target.strip())
    return Pairs(sources, targets, path, bad.dropped())


def without_empty(pairs: Pairs) -> Pairs:
    """Without pairs that have an empty side, which teach nothing but to say nothing."""
    kept = [row for row, both in enumerate(zip(pairs.sources, pairs.targets, strict=True)) if all(both)]
    dropped = {**pairs.dropped, "empty": len(pairs) - len(kept)}
    if not kept:
        raise DataError(f"{pairs.name}: none of its {len(pairs):,} pairs can be used ({said(dropped)}).")
    found = pairs.part(kept, pairs.name)
    return Pairs(found.sources, found.targets, pairs.name, dropped)


def said(dropped: dict[str, int]) -> str:
    """The counts in words: `3 empty, 1 ratio`; nothing for none."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)


def held_out(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Training and validation pairs; which ones is a function of the seed. Equal sources stay on one side."""
    wanted = min(MOST_HELD_OUT, max(1, round(share * len(pairs))))
    order = Order(len(pairs), seed).items(0, len(pairs))
    taken = {pairs.sources[i] for i in order[:wanted]}
    rows = [[], []]
    for i in range(len(pairs)):
        rows[pairs.sources[i] in taken].append(i)
    if not rows[0]:
        raise UsageError(
            f"{pairs.name}: {len(pairs)} pairs are too few to hold some out: give --valid-source."
        )
    train = pairs.part(rows[0], pairs.name)
    return Pairs(train.sources, train.targets, pairs.name, pairs.dropped), pairs.part(
        rows[1][:wanted], f"held out of {pairs.name}"
    )


def copy_task(seed: int, count: int = 8000) -> Corpus:
    """A made-up task that is learned in seconds: the target is the source, 3 to 10 letters."""
    draw_NK = hash64(seed, COPIES, np.arange((count + 100) * 11, dtype=np.uint64)).reshape(-1, 11)
    letter_NK, length_N = (
        (draw_NK[:, 1:] % np.uint64(10)).tolist(),
        (3 + draw_NK[:, 0] % np.uint64(8)).tolist(),
    )
    texts = [" ".join(LETTERS[i] for i in row[:n]) for row, n in zip(letter_NK, length_N, strict=True)]
    train = Pairs(texts[:count], texts[:count], "the copy task")
    valid = Pairs(texts[count:], texts[count:], "the copy task, held out")
    return Corpus(train, valid, valid)
