"""Readers of text formats: bytes to rows, with the line and column of whatever is wrong.

Lines end in LF or CRLF, and nothing else ends a line. Text is UTF-8, with or without a byte-order mark; other
encodings are refused by name, never guessed.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lineal.errors import DataError, UsageError
from lineal.train.hub import read_parquet
from lineal.train.strict_json import Bad, parse

LINE_LIMIT = 1 << 28
"""Most bytes of one line (256 MiB): beyond it the file is no file of rows."""
BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".text": "txt",
    ".parquet": "parquet",
}


Parsed = Iterator[tuple[str, dict[str, Any] | Bad]]


def strip_gz(path: Path) -> Path:
    """The path without .gz at its end."""
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def format_of(path: Path) -> str:
    """The kind of a data file by its name; raises UsageError for an unknown one, DataError when it is not
    there.
    """
    suffix = strip_gz(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: a data file ends in {', '.join(SUFFIXES)} (or one of these and .gz).")
    if not path.is_file():
        raise DataError(f"{path} is a folder; name a file in it." if path.is_dir() else _not_there(path))
    return SUFFIXES[suffix]


def _not_there(path: Path) -> str:
    names = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, n=1)
    hint = f"did you mean {path.with_name(near[0])}?" if near else f"paths start from {Path.cwd()}."
    return f"{path} does not exist; {hint}"


def _open(path: Path) -> io.BufferedIOBase:
    """The file's bytes, unzipped if they are zipped; raises DataError when there are none."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        if not start:
            raise DataError(f"{path}: the file is empty (0 bytes). Did writing or fetching it finish?")
        if start == b"\x1f\x8b":
            return gzip.open(path, "rb")
        if path.suffix.lower() == ".gz":
            raise DataError(f"{path}: it is named .gz but is not gzipped. Rename it if it is plain text.")
        if start in UTF16:
            raise DataError(
                f"{path}:1:1: it starts as UTF-16, and lineal reads UTF-8. Convert it: "
                f"iconv -f utf-16 -t utf-8 {path.name}"
            )
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file with their ends, unzipped, without a byte-order mark."""
    with _open(path) as file:
        number = 0
        while True:
            try:
                line = file.readline(LINE_LIMIT + 1)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DataError(
                    f"{path}: the gzip stream is damaged after line {number} ({error}). Fetch it again."
                ) from error
            except OSError as error:
                raise DataError(f"{path} cannot be read after line {number} ({error.strerror}).") from error
            if not line:
                return
            number += 1
            if len(line) > LINE_LIMIT:
                raise DataError(f"{path}:{number}: the line is longer than {LINE_LIMIT >> 20} MiB.")
            yield line.removeprefix(BOM) if number == 1 else line


def text_lines(path: Path) -> Iterator[tuple[int, str | Bad]]:
    """Numbered lines as text without their ends; a line that is no UTF-8 text is Bad."""
    for number, raw in enumerate(raw_lines(path), 1):
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        yield number, _decode(raw, path)


def _decode(raw: bytes, path: Path) -> str | Bad:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        column = len(raw[: error.start].decode("utf-8")) + 1
        return Bad(
            f"byte 0x{raw[error.start]:02x} is not UTF-8. If the file is Latin-1: "
            f"iconv -f latin1 -t utf-8 {path.name}",
            column,
        )
    if "\0" in text:
        return Bad("there is a NUL byte: the file is binary, damaged or UTF-16.", text.index("\0") + 1)
    return text


def open_text(path: Path) -> str:
    """A whole text file as one string, with LF line ends; raises DataError as the readers do."""
    parts = []
    for number, raw in enumerate(raw_lines(path), 1):
        line = _decode(raw.removesuffix(b"\n").removesuffix(b"\r"), path)
        if isinstance(line, Bad):
            raise DataError(f"{path}:{number}:{line.column}: {line.reason}")
        parts.append(line + "\n" if raw.endswith(b"\n") else line)
    text = "".join(parts)
    if not text.strip():
        raise DataError(f"{path}: there is no text in it.")
    return text


def read_txt(path: Path, text_field: str) -> Parsed:
    """Each line that is not blank is a row with one column."""
    for number, line in text_lines(path):
        if isinstance(line, Bad):
            yield f"{path}:{number}", line
        elif line.strip():
            yield f"{path}:{number}", {text_field: line}


def read_jsonl(path: Path, _: str) -> Parsed:
    """Each line that is not blank is a JSON object."""
    for number, line in text_lines(path):
        if isinstance(line, Bad):
            yield f"{path}:{number}", line
        elif line.strip():
            value = parse(line)
            yield f"{path}:{number}", _object(value)


def _object(value: Any) -> dict[str, Any] | Bad:
    if isinstance(value, dict):
        return value
    if isinstance(value, Bad):
        return value
    return Bad(f"a row must be an object with named fields, and this is a {type(value).__name__}.")


def read_json(path: Path, text_field: str) -> Parsed:
    """A list of objects; or objects one per line, as many .json files are."""
    text = open_text(path)
    if text.lstrip().startswith("{"):
        yield from read_jsonl(path, text_field)
        return
    value = parse(text)
    if isinstance(value, Bad):
        line, column = _line_and_column(text, value.column)
        raise DataError(f"{path}:{line}:{column}: {value.reason}")
    if not isinstance(value, list):
        raise DataError(f"{path}:1:1: a .json file must hold a list of objects, or one object per line.")
    for index, item in enumerate(value):
        yield f"{path}[{index}]", _object(item)


def _line_and_column(text: str, column: int | str) -> tuple[int, int]:
    offset = column - 1 if isinstance(column, int) else 0
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def read_csv(path: Path, _: str) -> Parsed:
    """Comma-separated rows under a header, quoted as RFC 4180 says; every value is text."""
    yield from _read_table(path, {"strict": True})


def read_tsv(path: Path, _: str) -> Parsed:
    """Tab-separated rows under a header; a quotation mark is only a character, as IANA's definition has
    it.
    """
    yield from _read_table(path, {"delimiter": "\t", "quoting": csv.QUOTE_NONE})


def _read_table(path: Path, dialect: dict[str, Any]) -> Parsed:
    bad: dict[int, Bad] = {}

    def lines() -> Iterator[str]:
        for number, line in text_lines(path):
            if isinstance(line, Bad):
                # A placeholder keeps the count of lines; the row that holds it is refused below.
                bad[number], line = line, "\ufffd"
            yield line + "\n"

    limit = csv.field_size_limit(LINE_LIMIT)
    try:
        reader = csv.reader(lines(), **dialect)
        header = _header(path, reader, bad)
        start = reader.line_num + 1
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"{path}:{start}", Bad(_csv_reason(error, start, reader.line_num))
                start = reader.line_num + 1
                continue
            broken = next((bad.pop(n) for n in range(start, reader.line_num + 1) if n in bad), None)
            if broken or cells:
                yield f"{path}:{start}", broken or _cells(header, cells)
            start = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


def _header(path: Path, reader: Any, bad: dict[int, Bad]) -> list[str]:
    try:
        header = next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise DataError(f"{path}:1: {_csv_reason(error, 1, reader.line_num)}") from error
    if bad:
        number, problem = next(iter(bad.items()))
        raise DataError(f"{path}:{number}:{problem.column}: {problem.reason}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}:{reader.line_num}: the header has {twice[0]!r} twice: names must differ.")
    return header


def _cells(header: list[str], cells: list[str]) -> dict[str, Any] | Bad:
    if len(cells) == len(header):
        return dict(zip(header, cells))
    return Bad(
        f"the row has {len(cells)} fields and the header {len(header)}. Quote fields that hold the separator "
        "or a line end; a file cut short ends so too."
    )


def _csv_reason(error: csv.Error, start: int, end: int) -> str:
    if "unexpected end of data" in str(error):
        return f"a quoted field opens here and is still open at the end of the file (line {end})."
    return f"the quotes do not fit ({error}). Double a quotation mark inside a quoted field."


READERS: dict[str, Callable[[Path, str], Parsed]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_tsv,
    "txt": read_txt,
    "parquet": read_parquet,
}
