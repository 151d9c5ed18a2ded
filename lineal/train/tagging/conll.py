"""Tagged sentences from files in CoNLL's form; each error with its file and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lineal.errors import DataError, UsageError
from lineal.train.finetune.tasks import SPLIT_SEED
from lineal.train.formats import text_lines
from lineal.train.order import Order
from lineal.train.strict_json import Bad
from lineal.train.tagging.options import TagOptions


@dataclass(frozen=True)
class Tagged:
    """The words of a sentence, a tag for each, and where it begins (file:line)."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    place: str = ""


@dataclass(frozen=True)
class TaggingTask:
    """Sentences to train on and to evaluate on; tags: all there are, by number."""

    tags: tuple[str, ...]
    train: list[Tagged]
    held: list[Tagged]


def read_conll(path: Path, word_column: int, tag_column: int) -> list[Tagged]:
    """The sentences of a file.

    Columns stand between tabs, or where a line has none, between spaces; other blanks (U+00A0) are part of a word. Of CoNLL-U comments (#), ranges (3-4) and empty
    nodes (5.1) are passed over; -DOCSTART- lines too. Raises DataError for a line with too few columns.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist: give a file with a word and its tag on each line.")
    found: list[Tagged] = []
    words: list[str] = []
    tags: list[str] = []
    place, universal = "", ".conllu" in path.name

    def close() -> None:
        if words:
            found.append(Tagged(tuple(words), tuple(tags), place))
            words.clear()
            tags.clear()

    for number, line in text_lines(path):
        if isinstance(line, Bad):
            raise DataError(f"{path}:{number}:{line.column}: {line.reason}")
        if not line.strip(" \t"):
            close()
            continue
        if (universal and line.startswith("#")) or line.startswith("-DOCSTART-"):
            continue
        columns = line.split("\t") if "\t" in line else [part for part in line.split(" ") if part]
        if universal and not columns[0].isdigit():
            continue
        try:
            word, tag = columns[word_column], columns[tag_column]
        except IndexError:
            raise DataError(
                f"{path}:{number}: the line has {len(columns)} columns, and the word is wanted from column {word_column} and "
                f"the tag from column {tag_column} (--word-column, --tag-column)."
            ) from None
        if not word or not tag:
            raise DataError(f"{path}:{number}: the {'tag' if word else 'word'} is empty.")
        place = place if words else f"{path}:{number}"
        words.append(word)
        tags.append(tag)
    close()
    if not found:
        raise DataError(f"{path}: there is no sentence in it.")
    return found


def read_tagging(options: TagOptions) -> TaggingTask:
    """The task that the options name; DataError where there is one tag only, or a tag that is never trained on."""
    if options.data is None:
        raise UsageError("tagger needs --data FILE: a word and its tag on each line, as CoNLL has them.")
    train = read_conll(Path(options.data), options.word_column, options.tag_column)
    if options.eval_data is not None:
        held = read_conll(Path(options.eval_data), options.word_column, options.tag_column)
    else:
        order = Order(len(train), SPLIT_SEED).items(0, len(train))
        cut = len(train) - round(options.held_out * len(train))
        train, held = [train[i] for i in order[:cut]], [train[i] for i in order[cut:]]
    train = train[: options.limit] if options.limit else train
    if not train or not held:
        raise DataError(
            f"{options.data}: {len(train)} sentences to train on and {len(held)} to evaluate on: give more, --eval-data, or "
            "another --held-out."
        )
    tags = tuple(sorted({tag for sentence in train for tag in sentence.tags}))
    if len(tags) < 2:
        raise DataError(
            f"{options.data}: every word has the tag {next(iter(tags))!r}: there is nothing to tell."
        )
    _check_tags(options, tags, train, held)
    return TaggingTask(tags, train, held)


def _check_tags(
    options: TagOptions, tags: Sequence[str], train: Sequence[Tagged], held: Sequence[Tagged]
) -> None:
    for sentence in held:
        for tag in sentence.tags:
            if tag not in tags:
                raise DataError(
                    f"{sentence.place}: the tag {tag!r} is in no sentence to train on: it could never be told (is "
                    f"--tag-column {options.tag_column} right?)."
                )
    if options.spans:
        for sentence in (*train, *held):
            for tag in sentence.tags:
                if tag != "O" and tag[:2] not in ("B-", "I-"):
                    raise DataError(f"{sentence.place}: {tag!r} is no tag of spans: O, B-NAME or I-NAME.")
