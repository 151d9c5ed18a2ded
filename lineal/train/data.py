"""Rows of data: what a user has, as it is, with the place of every row for messages.

JSONL, JSON, CSV, TSV, TXT and Parquet files, each also gzipped, and `hf:NAME`. Nothing is guessed: text stays
text, numbers are numbers only where JSON or Parquet says so. An error names file:line:column, what is wrong,
and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lineal.errors import DataError, UsageError
from lineal.train.console import clean, warn
from lineal.train.formats import READERS, SUFFIXES, Bad, Parsed, format_of, open_text, strip_gz
from lineal.train.hub import read_hub

Row = dict[str, Any]
POLICIES = ("error", "skip", "warn")
SHOWN = 5
"""Bad rows that are named one by one under "warn"."""


@dataclass(frozen=True)
class Rows:
    """The rows of a source in its order.

    rows: one dict per row. places: where each came from, `file:line` or `file[index]`. skipped: rows that
    could not be used. source: what the user gave.
    """

    rows: list[Row]
    places: list[str]
    source: str
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class _Tally:
    """What becomes of bad rows: raise, count, or count and say."""

    policy: str
    report: Callable[[str], None] = warn
    count: int = 0
    first: str = field(default="")

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(f"--on-bad-row {self.policy} is not one of {', '.join(POLICIES)}.")

    def bad(self, message: str) -> None:
        if self.policy == "error":
            raise DataError(f"{message} (--on-bad-row skip leaves such rows out.)")
        self.count += 1
        self.first = self.first or message
        if self.policy == "warn" and self.count <= SHOWN:
            self.report(f"{message} The row is left out.")

    def close(self, source: str, kept: int) -> None:
        if self.count and not kept:
            raise DataError(f"{source}: none of its {self.count} rows can be used. The first: {self.first}")
        if self.count:
            self.report(f"{source}: {self.count} of {self.count + kept} rows left out.")


def read_rows(
    source: str | Path,
    *,
    on_bad_row: str = "error",
    limit: int = 0,
    text_field: str = "text",
    report: Callable[[str], None] = warn,
) -> Rows:
    """All rows of a file, or of `hf:OWNER/NAME[/CONFIG][:SPLIT]`.

    on_bad_row: "error" stops at the first row that cannot be read, "skip" counts them and says how many,
    "warn" also names the first few. limit: read at most so many (0: all). text_field: the column that lines
    of a TXT file become. Blank lines are no rows. Raises DataError with the place and the remedy, UsageError
    for an unknown kind of file.
    """
    tally, name = _Tally(on_bad_row, report), str(source)
    rows: list[Row] = []
    places: list[str] = []
    parsed: Parsed
    if name.startswith("hf:"):
        parsed = read_hub(name)
    else:
        path = Path(source)
        parsed = READERS[format_of(path)](path, text_field)
    for place, item in parsed:
        if isinstance(item, Bad):
            tally.bad(f"{place}{item.column and f':{item.column}'}: {item.reason}")
            continue
        rows.append(item)
        places.append(place)
        if limit and len(rows) >= limit:
            break
    tally.close(name, len(rows))
    if not rows:
        raise DataError(f"{name}: there are no rows in it. Check that it is the file you mean.")
    return Rows(rows, places, name, tally.count)


def map_fields(
    rows: Rows, fields: Mapping[str, str], *, on_bad_row: str = "error", report: Callable[[str], None] = warn
) -> Rows:
    """The same rows with columns under the names that lineal uses.

    fields: {"prompt": "question", ...}: our name, their column. Every row must have the column, holding text
    or (for chat) a list of messages; other columns are left as they are. Raises DataError naming the columns
    there are, and the nearest one.
    """
    tally = _Tally(on_bad_row, report)
    kept, places = [], []
    for row, place in zip(rows.rows, rows.places, strict=True):
        problem = next((p for ours, theirs in fields.items() if (p := _problem(row, ours, theirs))), None)
        if problem:
            tally.bad(f"{place}: {problem}")
            continue
        taken = {ours: row[theirs] for ours, theirs in fields.items()}
        kept.append({key: value for key, value in row.items() if key not in fields.values()} | taken)
        places.append(place)
    tally.close(rows.source, len(kept))
    return replace(rows, rows=kept, places=places, skipped=rows.skipped + tally.count)


def _problem(row: Row, ours: str, theirs: str) -> str:
    if theirs not in row:
        near = get_close_matches(theirs, row, n=1, cutoff=0.5)
        there = ", ".join(repr(clean(name, 40)) for name in list(row)[:12]) or "none"
        hint = (
            f"did you mean --{ours}-field {clean(near[0], 40)}?" if near else f"name it with --{ours}-field."
        )
        return f"there is no field {theirs!r}; the row has {there}; {hint}"
    value = row[theirs]
    if isinstance(value, str) or _is_messages(value):
        return ""
    kind = "empty" if value is None else f"a {type(value).__name__}"
    return (
        f"field {theirs!r} is {kind}, not text, and nothing is converted by guessing: quote it in the file."
    )


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)
    )


def read_documents(
    source: str | Path,
    *,
    text_field: str = "text",
    on_bad_row: str = "error",
    report: Callable[[str], None] = warn,
) -> list[str]:
    """Texts to train on: a TXT file is one document as it stands, of any other source each row is one.

    text_field: the column that holds the text. Raises DataError as `read_rows` and `map_fields` do.
    """
    if not str(source).startswith("hf:") and format_of(Path(source)) == "txt":
        return [open_text(Path(source))]
    rows = read_rows(source, on_bad_row=on_bad_row, report=report)
    rows = map_fields(rows, {text_field: text_field}, on_bad_row=on_bad_row, report=report)
    return [row[text_field] for row in rows.rows]


@runtime_checkable
class TextSource(Protocol):
    """Where a recipe's text comes from."""

    @property
    def data(self) -> str | None:
        """What to train on."""

    @property
    def eval_data(self) -> str | None:
        """What to evaluate on; None holds a part of the first out."""

    @property
    def text_field(self) -> str:
        """The column that holds the text."""
        ...

    @property
    def on_bad_row(self) -> str:
        """error or skip."""
        ...


def named(
    data: str | None, recipe: str, wants: str = "text to learn from (TXT, or rows with a column text)"
) -> str:
    """--data; UsageError where it is not given."""
    if data is None:
        raise UsageError(f"{recipe} needs --data FILE: {wants}.")
    return data


def read_sources(options: TextSource, recipe: str) -> tuple[list[str], list[str] | None]:
    """The documents of --data, and those of --eval-data; None where a part of the first is to be held out."""

    def read(source: str) -> list[str]:
        return read_documents(source, text_field=options.text_field, on_bad_row=options.on_bad_row)

    given = read(named(options.data, recipe))
    return given, None if options.eval_data is None else read(options.eval_data)


def stream_documents(
    source: str | Path,
    *,
    text_field: str = "text",
    on_bad_row: str = "error",
    report: Callable[[str], None] = warn,
) -> Iterator[Iterable[str]]:
    """The lines of each document, one after another, so that a file may be larger than memory.

    As for `read_documents` a TXT file is one document, and each row of any other source is one. Raises DataError as it
    does, for TXT too where a line is no UTF-8, which "skip" and "warn" leave out.
    """
    tally, name = _Tally(on_bad_row, report), str(source)
    if not name.startswith("hf:") and format_of(Path(source)) == "txt":
        yield _texts(READERS["txt"](Path(source), text_field), tally, text_field, name)
        return
    parsed = read_hub(name) if name.startswith("hf:") else READERS[format_of(Path(source))](Path(source), "")
    for text in _texts(parsed, tally, text_field, name):
        # As in a TXT file: other marks that Python ends lines at stand in the middle of sentences.
        yield text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def _texts(parsed: Parsed, tally: _Tally, text_field: str, name: str) -> Iterator[str]:
    kept = 0
    for place, item in parsed:
        if isinstance(item, Bad):
            tally.bad(f"{place}{item.column and f':{item.column}'}: {item.reason}")
        elif problem := _problem(item, "text", text_field):
            tally.bad(f"{place}: {problem}")
        elif isinstance(item[text_field], str):
            kept += 1
            yield item[text_field]
    tally.close(name, kept)
    if not kept:
        raise DataError(f"{name}: there is no text in it. Check that it is the file you mean.")


def is_data_file(name: str) -> bool:
    """Whether a name looks like data that `read_rows` takes."""
    return name.startswith("hf:") or strip_gz(Path(name)).suffix.lower() in SUFFIXES
