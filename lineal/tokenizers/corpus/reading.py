"""Text files in blocks that end where a line does."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from lineal.errors import DataError

BLOCK = 1 << 20
LONGEST_LINE = 1 << 24
"""A longer line is cut: before the last space that stands between a mark, letter or digit of ASCII and something else, which
no splitter by pattern would join; where the last 64 kB have none, between two characters."""
PART = 1 << 25


@dataclass(frozen=True)
class Part:
    """The lines of a file that begin from byte `start` to before byte `stop` (None: all to the end); `size` as on the disk."""

    path: Path
    size: int
    start: int = 0
    stop: int | None = None


def parts_of(path: Path, workers: int) -> list[Part]:
    """The file as one part, or for several workers a large one in several; a compressed file can't be parted.

    Raises DataError when there is no such file.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise OSError("not a file")
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if workers == 1 or path.suffix == ".gz" or size < 2 * PART:
        return [Part(path, size)]
    starts = range(0, size, PART)
    return [Part(path, min(PART, size - start), start, start + PART) for start in starts]


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that can't be read."""
    return DataError(f"{path} can't be read ({error}): check the path, its permissions and that it is whole.")


def blocks(part: Part) -> Iterator[tuple[int, bytes]]:
    """The lines of a part, many at a time, each time with the place of the first byte in the file's text.

    Raises DataError for a file that can't be read.
    """
    try:
        with gzip.open(part.path) if part.path.suffix == ".gz" else part.path.open("rb") as file:
            yield from _blocks(file, part)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(part.path, error) from error


def _blocks(file: BufferedIOBase, part: Part) -> Iterator[tuple[int, bytes]]:
    """`blocks` of an open file."""
    at = part.start
    if at:
        # The line that is under way at `start` belongs to the part before.
        file.seek(at - 1)
        at -= 1
        while line := file.readline(BLOCK):
            at += len(line)
            if line.endswith(b"\n"):
                break
    rest, cut = b"", False
    while part.stop is None or at < part.stop or cut:
        more = file.read(BLOCK)
        rest += more
        end = len(rest)
        if more:
            end = rest.rfind(b"\n") + 1
            if part.stop is not None and at + end > part.stop:
                end = rest.find(b"\n", max(0, part.stop - at - 1)) + 1 or end
            cut = cut and not end
            if not end and len(rest) >= LONGEST_LINE:
                end, cut = safe_cut(rest), True
        if end:
            yield at, rest[:end]
            at, rest = at + end, rest[end:]
        if not more:
            return


def safe_cut(line: bytes) -> int:
    """Where an overlong line is cut."""
    at = len(line)
    while (at := line.rfind(b" ", max(1, len(line) - (1 << 16)), at)) > 0:
        if 32 < line[at - 1] < 127:
            return at
    at = len(line) - 1
    while at > len(line) - 4 and line[at] & 0xC0 == 0x80:
        at -= 1
    return at


def place_of(path: Path, at: int) -> str:
    """path:line of a byte of the file's text, for a message."""
    line = 1
    for start, data in blocks(Part(path, 0)):
        line += data.count(b"\n", 0, max(0, at - start))
        if start + len(data) > at:
            break
    return f"{path}:{line}"
