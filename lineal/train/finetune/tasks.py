"""Labelled rows of files as tasks: which texts, which classes, what is held out; each error with its file and line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lineal.errors import DataError
from lineal.train.console import clean, warn
from lineal.train.data import Rows, read_rows
from lineal.train.finetune.options import TaskOptions
from lineal.train.order import Order

SPLIT_SEED = 0
"""What is held out does not depend on the run's seed: runs of several seeds are judged on the same rows."""


@dataclass(frozen=True)
class Labelled:
    """Texts with what is to be told of them.

    texts: one; two; a context and its choices; words; or a question and its context. target: the class's number, the score,
    or the right choice's number; of words one class each; of a question the characters of the context between which the
    answer stands. gold: right answers as texts. place: file:line.
    """

    texts: tuple[str, ...]
    target: float | tuple[int, ...]
    place: str = ""
    gold: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledTask:
    """Rows to train on and to evaluate on; labels: the classes by number, () where a score is told.

    mean, spread: of the training scores, by which they are standardised.
    """

    kind: str
    labels: tuple[str, ...]
    train: list[Labelled]
    held: list[Labelled]
    mean: float = 0.0
    spread: float = 1.0

    @property
    def outputs(self) -> int:
        """Numbers that the head gives: one per class; one per choice's sequence, or for a score."""
        if self.kind == "span":
            return 2
        return len(self.labels) if self.labels and self.kind != "choice" else 1


def read_task(options: TaskOptions) -> LabelledTask:
    """The task that the options name.

    Raises DataError for rows without a label, with an empty text or an unknown class, and where all rows have one class.
    """
    if options.data is None:
        raise DataError(
            "finetune needs --data FILE: rows with texts and labels (--text-field, --label-field)."
        )
    rows = read_rows(options.data, on_bad_row=options.on_bad_row)
    found = _checked(rows, options)
    if options.eval_data is not None:
        held = _checked(read_rows(options.eval_data, on_bad_row=options.on_bad_row), options)
    else:
        order = Order(len(found), SPLIT_SEED).items(0, len(found))
        cut = len(found) - round(options.held_out * len(found))
        found, held = [found[i] for i in order[:cut]], [found[i] for i in order[cut:]]
    found = found[: options.limit] if options.limit else found
    if not found or not held:
        raise DataError(
            f"{options.data}: {len(found)} rows to train on and {len(held)} to evaluate on: give more rows, --eval-data, or "
            "another --held-out."
        )
    if options.target == "score":
        return _scored(options, found, held)
    if options.task == "span":
        return LabelledTask("span", (), [_answered(r) for r in found], [_answered(r) for r in held])
    labels = _classes(options, found, held)
    number = {label: i for i, label in enumerate(labels)}
    train, judged = ([_numbered(r, number) for r in part] for part in (found, held))
    return LabelledTask(options.task, labels, train, judged)


@dataclass(frozen=True)
class _Row:
    """label: the class or the number; of words all their classes, of a question all its answers in `labels`."""

    texts: tuple[str, ...]
    label: str
    place: str
    labels: tuple[str, ...] = ()
    start: int = -1


def _numbered(row: _Row, number: Mapping[str, int]) -> Labelled:
    if row.labels:
        return Labelled(row.texts, tuple(number[label] for label in row.labels), row.place)
    return Labelled(row.texts, number[row.label], row.place)


def _answered(row: _Row) -> Labelled:
    start = row.start if row.start >= 0 else row.texts[1].find(row.label)
    if not row.label or row.texts[1][start : start + len(row.label)] != row.label or start < 0:
        raise DataError(
            f"{row.place}: the answer {clean(row.label, 40)!r} is not in its context"
            + (f" at character {row.start}" if row.start >= 0 else "")
            + ": an answer is a stretch of the context, letter by letter."
        )
    return Labelled(row.texts, (start, start + len(row.label)), row.place, row.labels)


def _checked(rows: Rows, options: TaskOptions) -> list[_Row]:
    found = []
    for row, place in zip(rows.rows, rows.places, strict=True):
        try:
            found.append(_row(row, options, place))
        except DataError as error:
            if options.on_bad_row == "error":
                raise
            if options.on_bad_row == "warn":
                warn(f"{error} The row is left out.")
    if not found:
        raise DataError(f"{rows.source}: none of its {len(rows)} rows can be used.")
    return found


def _row(row: Mapping[str, Any], options: TaskOptions, place: str) -> _Row:
    texts = texts_of(row, options, place)
    if options.task == "tagging":
        tags = _list(row, options.label_field, "--label-field", place)
        if len(tags) != len(texts):
            raise DataError(f"{place}: {len(tags)} labels for {len(texts)} words: each word needs one.")
        return _Row(texts, tags[0], place, tuple(tags))
    if options.task == "span":
        return _answers(row, options, texts, place)
    return _Row(texts, _label(row, options.label_field, place), place)


def _answers(row: Mapping[str, Any], options: TaskOptions, texts: tuple[str, ...], place: str) -> _Row:
    """A text that is in the context; or {"text": [...], "answer_start": [...]} as SQuAD's files have it."""
    value: Any = _get(row, options.label_field, "--label-field", place)
    if isinstance(value, str) and value.strip():
        return _Row(texts, value.strip(), place, (value.strip(),))
    try:
        answers, starts = value["text"], value["answer_start"]  # pyright: ignore[reportArgumentType, reportCallIssue]
        return _Row(texts, str(answers[0]), place, tuple(map(str, answers)), int(starts[0]))
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise DataError(
            f'{place}: {options.label_field!r} must be a text, or {{"text": [...], "answer_start": [...]}} with an answer.'
        ) from error


def _list(row: Mapping[str, Any], name: str, option: str, place: str) -> list[str]:
    """A column of several words: a list of texts, or a text that is cut at its spaces."""
    value = _get(row, name, option, place)
    words = value.split() if isinstance(value, str) else value
    if not (
        isinstance(words, list) and words and all(isinstance(w, str | int) and str(w).strip() for w in words)
    ):
        raise DataError(
            f"{place}: {name!r} must be a list of words, none of them empty (or one text with spaces)."
        )
    return list(map(str, words))


def texts_of(row: Mapping[str, Any], options: TaskOptions, place: str) -> tuple[str, ...]:
    """The texts of a row in the order that its task has them; DataError names what is missing or empty."""
    if options.task == "tagging":
        return tuple(_list(row, options.text_field, "--text-field", place))
    names = [(options.text_field, "--text-field")]
    if options.task in ("pair", "similarity", "span"):
        names.append((options.second_field, "--second-field"))
    texts = [_text(row, name, option, place) for name, option in names]
    if options.task != "choice":
        return tuple(texts)
    field, *more = options.choices_field
    if more:
        return (*texts, *(_text(row, name, "--choices-field", place) for name in (field, *more)))
    choices = _get(row, field, "--choices-field", place)
    if not (
        isinstance(choices, list)
        and len(choices) > 1
        and all(isinstance(c, str) and c.strip() for c in choices)
    ):
        raise DataError(
            f"{place}: {field!r} must be a list of at least two texts, none of them empty; name a column per choice "
            "with --choices-field A B C."
        )
    return (*texts, *choices)


def _text(row: Mapping[str, Any], name: str, option: str, place: str) -> str:
    value = _get(row, name, option, place)
    if not isinstance(value, str):
        raise DataError(f"{place}: {name!r} is a {type(value).__name__}, not text: quote it in the file.")
    if not value.strip():
        raise DataError(f"{place}: {name!r} is empty: there is nothing to read.")
    return value


def _get(row: Mapping[str, Any], name: str, option: str, place: str) -> Any:
    if name not in row:
        near = get_close_matches(name, row, n=1, cutoff=0.5)
        hint = f"did you mean {option} {clean(near[0], 40)}?" if near else f"name it with {option}."
        there = ", ".join(repr(clean(key, 40)) for key in list(row)[:12])
        raise DataError(f"{place}: there is no field {name!r}; the row has {there}; {hint}")
    return row[name]


def _label(row: Mapping[str, Any], name: str, place: str) -> str:
    value = _get(row, name, "--label-field", place)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, list | dict) or not str(value).strip():
        raise DataError(
            f"{place}: the label {name!r} is missing: give the row one, or leave it out (--on-bad-row skip)."
        )
    return str(value).strip()


def _classes(options: TaskOptions, train: Sequence[_Row], held: Sequence[_Row]) -> tuple[str, ...]:
    if options.task == "choice":
        return _choices(train, held)
    labels = tuple(sorted({label for row in train for label in row.labels or (row.label,)}))
    if len(labels) < 2:
        raise DataError(
            f"{options.data}: all {len(train)} rows to train on have the label {train[0].label!r}: with one class there is "
            "nothing to tell."
        )
    if len(labels) > max(20, len(train) // 2) and options.task != "tagging":
        raise DataError(
            f"{options.data}: {len(labels)} different labels in {len(train)} rows: is --label-field {options.label_field} "
            "the right column? Numbers are told with --target score."
        )
    for row in held:
        unseen = next((label for label in row.labels or (row.label,) if label not in labels), None)
        if unseen is not None:
            raise DataError(
                f"{row.place}: the label {unseen!r} is in no row to train on (there are {', '.join(labels[:8])}): it "
                "could never be told."
            )
    return labels


def _choices(train: Sequence[_Row], held: Sequence[_Row]) -> tuple[str, ...]:
    count = len(train[0].texts) - 1
    for row in (*train, *held):
        if len(row.texts) - 1 != count:
            raise DataError(
                f"{row.place}: {len(row.texts) - 1} choices, and the first row has {count}: give all as many."
            )
        if row.label not in map(str, range(count)):
            raise DataError(
                f"{row.place}: the label {row.label!r} is no choice: they are numbered 0 to {count - 1}."
            )
    return tuple(map(str, range(count)))


def _scored(options: TaskOptions, train: Sequence[_Row], held: Sequence[_Row]) -> LabelledTask:
    learned, judged = ([Labelled(r.texts, _number(r), r.place) for r in part] for part in (train, held))
    scores = [_one(row.target) for row in learned]
    mean = math.fsum(scores) / len(scores)
    spread = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / len(scores))
    if spread == 0:
        raise DataError(
            f"{options.data}: all {len(scores)} rows have the score {mean:g}: there is nothing to tell."
        )
    return LabelledTask(options.task, (), learned, judged, mean, spread)


def _one(target: float | tuple[int, ...]) -> float:
    assert not isinstance(target, tuple)
    return target


def _number(row: _Row) -> float:
    try:
        value = float(row.label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{row.place}: the label {row.label!r} is no number, and --target score needs one.")
    return value
