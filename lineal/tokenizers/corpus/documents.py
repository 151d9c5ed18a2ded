"""Texts out of files, one after another, in bounded memory: what is encoded, measured and compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from lineal.errors import DataError
from lineal.tokenizers.corpus.reading import LONGEST_LINE, blocks, parts_of, safe_cut

STANDARD = "-"
"""The name of standard input."""
DOCUMENT = 2000
"""Lines are put together until a document has so many characters."""
Numbered = Iterator[tuple[int, str]]


def read_lines(source: str | Path, *, stream: BufferedIOBase | None = None) -> Numbered:
    """Numbered lines of a file, plain or .gz, without their line ends.

    source: a file, or "-" for `stream` (default: standard input). A line of more than 16 MiB is cut at a space. Raises
    DataError with file, line and column for what is no UTF-8.
    """
    name = name_of(source)
    for number, line in _lines(source, stream):
        yield number, decoded(line, name, number).removesuffix("\n").removesuffix("\r")


def read_texts(
    source: str | Path, *, field: str = "text", rows: bool | None = None, stream: BufferedIOBase | None = None
) -> Iterator[str]:
    """The texts of a file: its lines, or of .jsonl the `field` of each row.

    rows: whether it is rows, whatever its name. Raises DataError as `read_lines` does, and for what is no JSON or has no
    such field.
    """
    if rows is None:
        rows = is_rows(source)
    for number, line in read_lines(source, stream=stream):
        if not rows:
            yield line
        elif line.strip():
            yield _of_row(line, f"{name_of(source)}:{number}", field)


def name_of(source: str | Path) -> str:
    """What a source is called in messages."""
    return "standard input" if str(source) == STANDARD else str(source)


def is_rows(source: str | Path) -> bool:
    """Whether a name is that of a file of JSON rows."""
    return Path(str(source).removesuffix(".gz")).suffix in (".jsonl", ".ndjson")


def read_documents(sources: Iterable[str | Path], *, field: str = "text", limit: int = 0) -> Iterator[str]:
    """Texts to measure: rows of .jsonl, and lines of other files put together to some 2000 characters.

    limit: stop a file after so many characters (0: read all).
    """
    for source in sources:
        seen = 0
        for text in _documents(source, field):
            yield text
            seen += len(text)
            if limit and seen >= limit:
                break


def decoded(line: bytes, name: str, number: int) -> str:
    """A line of a file as text; DataError with its place when it is no UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode()) + 1
        raise DataError(
            f"{name}:{number}:{column}: byte 0x{line[error.start]:02x} is no UTF-8 ({error.reason}): convert the file, "
            f"as with iconv -f latin1 -t utf-8."
        ) from None


def _documents(source: str | Path, field: str) -> Iterator[str]:
    if is_rows(source):
        yield from read_texts(source, field=field)
        return
    parts: list[str] = []
    size = 0
    for number, line in _lines(source, None):
        parts.append(decoded(line, name_of(source), number))
        size += len(parts[-1])
        if size >= DOCUMENT:
            yield "".join(parts)
            parts, size = [], 0
    if parts:
        yield "".join(parts)


def _lines(source: str | Path, stream: BufferedIOBase | None) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with their line feeds."""
    if str(source) == STANDARD:
        yield from _lines_of_stream(stream or cast(BufferedIOBase, sys.stdin.buffer))
        return
    number = 1
    for _, data in blocks(parts_of(Path(source), 1)[0]):
        at = 0
        while at < len(data):
            end = data.find(b"\n", at) + 1 or len(data)
            yield number, data[at:end]
            number += data[end - 1] == 10
            at = end


def _lines_of_stream(stream: BufferedIOBase) -> Iterator[tuple[int, bytes]]:
    number, rest = 1, b""
    while line := stream.readline(LONGEST_LINE):
        line, rest = rest + line, b""
        if not line.endswith(b"\n") and len(line) >= LONGEST_LINE:
            end = safe_cut(line)
            line, rest = line[:end], line[end:]
        yield number, line
        number += line.endswith(b"\n")
    if rest:
        yield number, rest


def _of_row(text: str, place: str, field: str) -> str:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place}: this row is no JSON ({error}): mend it or give the file as .txt."
        ) from None
    if isinstance(row, dict) and isinstance(row.get(field), str):
        return row[field]
    fields = ", ".join(map(str, row)) if isinstance(row, dict) else f"a {type(row).__name__}"
    raise DataError(
        f"{place}: the row has no text {field!r} ({fields or 'nothing'}): name its field with --field."
    )
