"""Vectors as text: a word and its numbers on each line, with "V D" on a first line (word2vec, fastText) or without (GloVe)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from lineal.errors import DataError
from lineal.representations.vectors import Vectors
from lineal.representations.writing import replaced

BLOCK = 4096
"""Vectors that are put together at a time."""
BOM = b"\xef\xbb\xbf"
LONGEST = 1 << 26
"""Bytes of a line that are read at most; a vector of a million numbers has fewer."""


@dataclass(frozen=True)
class Reading:
    """How a file is read: its name for messages, how many words at most, and what is forgiven."""

    path: Path
    limit: int | None = None
    first_of_duplicates: bool = False
    spaces: bool = False

    def bad(self, line: int, text: str) -> DataError:
        """An error with file and line."""
        return DataError(f"{self.path}:{line}: {text}")


@dataclass(frozen=True)
class Header:
    """What the first line of word2vec's files claims."""

    count: int
    dimensions: int


def header_of(line: bytes) -> Header | None:
    """The first line of word2vec's files, or None where it is no such line."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() and len(field) < 19 for field in fields):
        return None
    return Header(*map(int, fields))


class Words:
    """The words that were read so far, and the lines they stood on."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.lines: dict[str, int] = {}

    def add(self, raw: bytes, line: int, place: str = "") -> bool:
        """Take a word; False for one that is there already and may be. place: where it stands, if lines don't tell."""
        reading = self._reading
        try:
            word = raw.decode()
        except UnicodeDecodeError as error:
            raise self._bad(
                line, place, f"the word {raw!r} is no UTF-8 ({error.reason}): convert the file."
            ) from error
        if "\x00" in word:
            raise self._bad(line, place, f"the word {word!r} has a NUL byte: the file is damaged.")
        if word not in self.lines:
            self.lines[word] = line
            return True
        if reading.first_of_duplicates:
            return False
        raise self._bad(
            line,
            place,
            f"the word {word!r} was on {'line' if not place else 'record'} {self.lines[word]} already: remove one, or "
            "read with duplicates=first (--duplicates first).",
        )

    def _bad(self, line: int, place: str, text: str) -> DataError:
        return DataError(f"{self._reading.path}: {place}: {text}") if place else self._reading.bad(line, text)


def read_text(file: BufferedIOBase, reading: Reading, *, header: bool) -> Vectors:
    """The vectors of an open text file; `header`: whether its first line says how many there are."""
    claim, lines = None, _lines(file, reading)
    if header:
        claim = header_of(next(lines, (1, b""))[1])
        if claim is None or not claim.dimensions or not claim.count:
            raise reading.bad(
                1, "the first line must say how many vectors there are and of how many numbers: V D."
            )
    words, blocks, parser = Words(reading), [], _Parser(reading, claim.dimensions if claim else None)
    for number, line in lines:
        if reading.limit is not None and len(words.lines) >= reading.limit:
            break
        if claim is not None and number > claim.count + 1:
            raise reading.bad(
                number,
                f"a vector too many: line 1 says {claim.count}; correct it to the number of lines after it.",
            )
        raw, row_D = parser.parse(number, line)
        if words.add(raw, number):
            blocks.append(row_D)
            if len(blocks) % BLOCK == 0:
                parser.keep(blocks)
    else:
        if claim is not None and parser.read < claim.count:
            raise reading.bad(
                parser.read + 1,
                f"the file ends after {parser.read} vectors, and line 1 says {claim.count}: it was cut short, or the line is wrong.",
            )
    parser.keep(blocks)
    if not parser.blocks:
        raise DataError(f"{reading.path}: there is no vector in it.")
    return Vectors(list(words.lines), np.concatenate(parser.blocks))


def _lines(file: BufferedIOBase, reading: Reading) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        if len(line) == LONGEST and not line.endswith(b"\n"):
            raise reading.bad(
                number, f"the line is longer than {LONGEST >> 20} MiB: this is no text of vectors."
            )
        yield number, line.removeprefix(BOM) if number == 1 else line


class _Parser:
    """Lines to vectors of one length."""

    def __init__(self, reading: Reading, dimensions: int | None) -> None:
        self._reading = reading
        self._claimed = dimensions is not None
        self._dimensions = dimensions
        self.read = 0
        self.blocks: list[Float32[np.ndarray, "N D"]] = []

    def keep(self, rows: list[np.ndarray]) -> None:
        """Put rows together, which takes less memory than many small arrays."""
        if rows:
            self.blocks.append(np.stack(rows))
            rows.clear()

    def parse(self, number: int, line: bytes) -> tuple[bytes, Float32[np.ndarray, " D"]]:
        """The word and the vector of a line."""
        self.read += 1
        word, _, rest = line.rstrip(b" \t\r\n").replace(b"\t", b" ").partition(b" ")
        row_D = numbers(rest)
        if self._dimensions is None and row_D is not None and len(row_D):
            self._dimensions = len(row_D)
        if row_D is None or len(row_D) != self._dimensions or not word:
            return self._unusual(number, line)
        if not np.isfinite(row_D).all():
            raise self._reading.bad(
                number, f"the vector of {word.decode(errors='replace')!r} is not finite: remove the line."
            )
        return word, row_D

    def _unusual(self, number: int, line: bytes) -> tuple[bytes, Float32[np.ndarray, " D"]]:
        """A word with spaces, where these are allowed; else what is wrong with the line."""
        reading, fields, wanted = self._reading, line.rstrip(b" \t\r\n").split(b" "), self._dimensions
        if wanted is None:
            # Only the first line of a file without a header comes here: how many numbers has it at its end?
            wanted = next((i for i, f in enumerate(reversed(fields)) if not _is_number(f)), len(fields) - 1)
        row_D = numbers(b" ".join(fields[-wanted:])) if 0 < wanted < len(fields) - 1 else None
        if row_D is None or len(row_D) != wanted or _is_number(fields[-wanted - 1]) or line[:1] in b" \t":
            raise reading.bad(number, self._why(line, fields, wanted))
        word = b" ".join(fields[:-wanted])
        if not reading.spaces:
            shown = word.decode(errors="replace")
            raise reading.bad(
                number,
                f"the word {shown!r} has a space in it: to allow that, read with spaces=True (--spaces).",
            )
        self._dimensions = wanted
        return word, row_D

    def _why(self, line: bytes, fields: list[bytes], wanted: int) -> str:
        """What is wrong with a line."""
        if not line.strip():
            return "the line is empty: remove it, or give a word and its numbers."
        if line[:1] in b" \t":
            return "the line starts with a space, so its word is empty: remove it."
        bad = next((field for field in fields[1:] if not _is_number(field)), None)
        if bad is not None:
            return f"{bad.decode(errors='replace')[:40]!r} is no number: a word and its numbers must stand on each line."
        source = "line 1 says" if self._claimed else "the first vector has"
        return (
            f"the vector has {len(fields) - 1} numbers, and {source} {wanted}: the line was cut, the lengths differ, or the word "
            "has a space and a number in it."
        )


def numbers(text: bytes) -> Float32[np.ndarray, " N"] | None:
    """Numbers between spaces, or None where something else stands there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(text, dtype=np.float32, sep=" ")
        except (DeprecationWarning, ValueError):
            return None


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    # Python's own habit, which no file of vectors has.
    return b"_" not in field


def write_text(path: Path, vectors: Vectors, *, header: bool) -> None:
    """Write vectors as text, with the shortest numbers that give the same float32 again."""
    for line, word in enumerate(vectors.words, 1 + header):
        if not word or word.split() != [word] or "\x00" in word or (line == 1 and word.startswith("\ufeff")):
            raise DataError(
                f"The word {word!r} can't stand on line {line} of {path}, where spaces end a word: rename it, or write .safetensors."
            )
    with replaced(path) as file:
        if header:
            file.write(f"{len(vectors)} {vectors.dimensions}\n".encode())
        for at in range(0, len(vectors), BLOCK):
            rows = np.asarray(vectors.matrix[at : at + BLOCK])
            text = [
                f"{word} {' '.join(map(str, row))}\n"
                for word, row in zip(vectors.words[at:], rows.astype("U32"))
            ]
            file.write("".join(text).encode())
