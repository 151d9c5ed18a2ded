"""The verb `predict`: texts in, what a fine-tuned model tells of them out, row by row."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

from lineal.cli_options import help_lines, parse
from lineal.cli_runs import positionals
from lineal.errors import DataError, UsageError
from lineal.train.options import at_least
from lineal.train.strict_json import Bad
from lineal.train.strict_json import parse as parse_json

if TYPE_CHECKING:
    from lineal.train.finetune.options import TaskOptions
    from lineal.train.finetune.predictor import Prediction, Teller

USAGE = "predict RUN [TEXT ...] [--option value ...] < FILE"
BLOCK = 1024
"""Rows that are read, told and written before the next."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class PredictOptions:
    """Where rows come from and how answers are written."""

    data: str | None = None
    """Rows with the columns that the model was trained on: JSONL, CSV, TSV, TXT, Parquet. Without it: standard input."""
    json: bool = False
    """One JSON object per row: label and probabilities, or score; otherwise the label or the score alone."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 leaves torch's own choice."""

    def __post_init__(self) -> None:
        at_least(self, threads=0)


def predict(words: list[str]) -> int:
    """`lineal predict RUN < file`: a line per row; plain lines are texts, lines that start with { rows of columns."""
    names, rest = positionals(words)
    if any(word in rest for word in ("--help", "-h", "--help-all")):
        print("\n".join([f"lineal {USAGE}", *help_lines(PredictOptions())]))
        return 0
    if not names:
        raise UsageError(f"which model? lineal {USAGE}")
    options = parse(PredictOptions(), rest)
    if len(names) == 1 and options.data is None and sys.stdin.isatty():
        raise UsageError(f"nothing to tell: give texts in quotes, --data FILE, or a file: lineal {USAGE}")
    one_source(names[1:], options.data)
    model = _load(names[0], options)
    rows = _rows(model, names[1:], options)
    while block := list(islice(rows, BLOCK)):
        for found in model(block):
            print(_line(found, options.json), flush=True)
    return 0


def one_source(texts: list[str], data: str | None) -> None:
    """Refuse texts in quotes beside a file, one of which would be passed over."""
    if texts and data is not None:
        raise UsageError(f"texts in quotes and --data {data}: give one of them.")


def _load(name: str, options: PredictOptions) -> Teller:
    import torch

    from lineal.train.finetune.predictor import load_predictor

    if options.threads:
        torch.set_num_threads(options.threads)
    return load_predictor(name, options.device)


def _line(found: Prediction, as_json: bool) -> str:
    from lineal.train.console import clean

    told: dict[str, Any] = {"label": found.label, "probabilities": found.probabilities}
    plain = found.label
    if found.answer is not None:
        told, plain = {"answer": found.answer, "certainty": found.certainty}, found.answer
    elif found.tags:
        told, plain = {"tags": found.tags}, " ".join(found.tags)
    elif found.score is not None:
        told, plain = {"score": found.score}, f"{found.score:.6g}"
    return json.dumps(told) if as_json else clean(plain or "")


def _rows(model: Teller, texts: list[str], options: PredictOptions) -> Iterator[tuple[str, ...]]:
    columns = _columns(model)
    if texts:
        yield from (_plain(text, columns, f"text {number}") for number, text in enumerate(texts, 1))
    elif options.data is not None:
        from lineal.train.data import read_rows
        from lineal.train.finetune.tasks import texts_of

        found = read_rows(options.data, text_field=columns.text_field)
        yield from (
            texts_of(row, columns, place) for row, place in zip(found.rows, found.places, strict=True)
        )
    else:
        yield from _standard_input(columns)


def _columns(model: Teller) -> TaskOptions:
    """The columns of the task that the model was trained on."""
    from lineal.train.finetune.options import TaskOptions

    saved = model.facts.columns or {}
    known = {f.name for f in fields(TaskOptions)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in saved.items() if k in known
    }
    return TaskOptions(**values)


def input_lines() -> Iterator[tuple[str, str]]:
    """The lines of standard input with the place of each, as files are read: without a mark of byte order, LF or CRLF at
    their ends; DataError for one that is not UTF-8."""
    for number, raw in enumerate(sys.stdin.buffer, 1):
        place = f"standard input:{number}"
        raw = raw.removeprefix(BOM) if number == 1 else raw
        try:
            yield place, raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{place}: byte 0x{raw[error.start]:02x} is not UTF-8: convert it first (iconv)."
            ) from error


def _standard_input(columns: TaskOptions) -> Iterator[tuple[str, ...]]:
    from lineal.train.finetune.tasks import texts_of

    for place, line in input_lines():
        yield (
            texts_of(_object(line, place), columns, place)
            if line.startswith("{")
            else _plain(line, columns, place)
        )


def _object(line: str, place: str) -> dict[str, Any]:
    found = parse_json(line)
    if isinstance(found, Bad):
        at = f"{place}:{found.column}" if found.column else place
        raise DataError(f"{at}: a line that starts with {{ must be a JSON object: {found.reason}")
    return found


def _plain(line: str, columns: TaskOptions, place: str) -> tuple[str, ...]:
    if columns.task not in ("classification", "tagging"):
        raise DataError(
            f"{place}: {columns.task} takes several texts: give JSON objects with the columns "
            f"{columns.text_field!r}, ..., or --data FILE."
        )
    if not line.strip():
        raise DataError(f"{place}: the line is empty: there is nothing to read.")
    return tuple(line.split()) if columns.task == "tagging" else (line,)
