"""How often each piece occurs: the map (`count_texts`) and the reduce (`merge_counts`) of training, and both over files.

Any engine may run them: their arguments and results can be sent between processes, and counts are added in any order
(only the order of the pieces, first seen first, is that of the merging).
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from lineal import native
from lineal.errors import DataError, UsageError
from lineal.tokenizers.corpus.reading import Part, blocks, parts_of, place_of
from lineal.tokenizers.parts import Normaliser, Splitter
from lineal.tokenizers.piece_table import DictTable, Flat, FlatTable, spans_of
from lineal.tokenizers.text.split import line_spans

MAGIC = b"lineal counts 1\n"
SEVERAL = 1 << 16
PROGRESS = Callable[[int, int], Any]


@cache
def table_core() -> ModuleType | None:
    """The compiled table, or None."""
    return native.compiled("lineal.tokenizers.core.count")


class PieceCounts:
    """Pieces (bytes) and how often each occurs, in the order in which they were first seen.

    counts: what to start from. cap: when there are more pieces than this, the rarest are dropped until half as many remain
    (of equally rare ones those seen last); `dropped` is how many occurrences went with them. It is looked at after every
    text or block of a file, and counts of a piece seen again after it was dropped begin anew, so they are lower bounds.
    Raises UsageError for a cap below 2 and for counts that are negative.
    """

    def __init__(self, counts: Mapping[bytes, int] | None = None, *, cap: int | None = None):
        if cap is not None and cap < 2:
            raise UsageError(f"A cap of {cap} pieces leaves nothing to count: give at least 2, or None.")
        core = table_core()
        self._table = FlatTable(core) if core else DictTable()
        self.cap = cap
        self.dropped = 0
        if counts:
            self._add_all(counts)

    def _add_all(self, counts: Mapping[bytes, int]) -> None:
        """Take counts from a mapping."""
        wrong = next((piece for piece, count in counts.items() if count < 0), None)
        if wrong is not None:
            raise UsageError(f"The piece {wrong!r} occurs {counts[wrong]} times: counts are 0 or more.")
        if sum(counts.values()) >= 1 << 63:
            raise UsageError("The counts are beyond 64 bits in all: count less text.")
        ends = array("q", accumulate(map(len, counts)))
        self._add_flat((b"".join(counts), ends, array("q", counts.values())))

    def _add_flat(self, flat: Flat) -> None:
        """Add counts in their flat form, some at a time."""
        data, ends, counts = flat
        start = 0
        for low in range(0, len(ends), SEVERAL):
            some = ends[low : low + SEVERAL]
            inner = spans_of([end - start for end in some])
            self.add(data[start : some[-1]], inner, counts[low : low + SEVERAL])
            start = some[-1]

    def add(self, data: bytes, spans: array[int], weights: array[int] | None = None) -> None:
        """Count the pieces `spans` (array "i") of `data`, each once or `weights` (array "q") times."""
        if weights and 2 * len(weights) != len(spans):
            raise UsageError(
                f"{len(weights)} weights don't go with {len(spans) // 2} pieces: give one for each."
            )
        self._table.add(data, spans, weights or array("q"))
        if self.cap is not None and len(self) > self.cap:
            self.prune(self.cap // 2)

    def prune(self, most: int) -> None:
        """Drop the rarest pieces until at most `most` remain; of equally rare ones those that were seen first are kept."""
        if len(self) <= most:
            return
        by_count = Counter(self._table.flat()[2])
        left = most
        for count in sorted(by_count, reverse=True):
            if by_count[count] > left:
                self.dropped += self._table.keep(count, left)
                return
            left -= by_count[count]

    def __len__(self) -> int:
        return len(self._table)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Each piece and its count."""
        data, ends, counts = self._table.flat()
        start = 0
        for end, count in zip(ends, counts):
            yield data[start:end], count
            start = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PieceCounts) and dict(self.items()) == dict(other.items())

    @property
    def total(self) -> int:
        """How often pieces occur in all, those dropped left out."""
        return sum(self._table.flat()[2])

    def flat(self) -> Flat:
        """The pieces one after another, where each ends (array "q"), and the counts (array "q")."""
        return self._table.flat()

    def merge(self, other: PieceCounts) -> None:
        """Add the counts of another."""
        self._add_flat(other.flat())
        self.dropped += other.dropped

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.flat(), self.cap, self.dropped)

    def save(self, path: str | Path) -> None:
        """Write the counts: a first line, a line of JSON with the sizes, ends and counts in int64 (the low byte first), pieces.

        Raises DataError when the file can't be written; nothing half-written is left under its name.
        """
        path = Path(path)
        partial = path.parent / (path.name + ".partial")
        try:
            partial.write_bytes(self.to_bytes())
            os.replace(partial, path)
        except (OSError, ValueError) as error:
            with suppress(OSError, ValueError):
                partial.unlink()
            raise DataError(
                f"{path} can't be written ({error}): free some space or choose another."
            ) from error

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        data, ends, counts = self.flat()
        head = {"pieces": len(ends), "bytes": len(data), "cap": self.cap, "dropped": self.dropped}
        numbers = [_low_first(each).tobytes() for each in (ends, counts)]
        return b"".join((MAGIC, json.dumps(head).encode(), b"\n", *numbers, data))

    @classmethod
    def from_bytes(cls, content: bytes) -> PieceCounts | None:
        """What `to_bytes` made, or None where anything is not as it should be."""
        return _parse(content)

    @classmethod
    def load(cls, path: str | Path) -> PieceCounts:
        """Counts that `save` wrote; raises DataError for a file that is not of that form."""
        try:
            content = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise DataError(f"{path} can't be read ({error}): check the path and its permissions.") from error
        found = cls.from_bytes(content)
        if found is None:
            raise DataError(f"{path} holds no counts as PieceCounts.save writes them: count the texts again.")
        return found


def _low_first(numbers: array[int]) -> array[int]:
    """Numbers as they stand in a file, or back."""
    if sys.byteorder == "little":
        return numbers
    numbers = numbers[:]
    numbers.byteswap()
    return numbers


def _parse(content: bytes) -> PieceCounts | None:
    """Saved counts, or None where anything is not as it should be."""
    first, _, rest = content.removeprefix(MAGIC).partition(b"\n")
    try:
        head = json.loads(first[:1000])
        pieces, size, cap, dropped = (head[name] for name in ("pieces", "bytes", "cap", "dropped"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = (pieces, size, dropped, 2 if cap is None else cap)
    if not content.startswith(MAGIC) or not all(type(number) is int and number >= 0 for number in numbers):
        return None
    if len(rest) != 16 * pieces + size or numbers[3] < 2:
        return None
    ends, counts = array("q", rest[: 8 * pieces]), array("q", rest[8 * pieces : 16 * pieces])
    ends, counts = _low_first(ends), _low_first(counts)
    rises = all(low < high for low, high in zip([0, *ends], ends))
    if not rises or (ends[-1] if pieces else 0) != size or any(count < 0 for count in counts):
        return None
    return _restored((rest[16 * pieces :], ends, counts), cap, dropped)


def _restored(flat: Flat, cap: int | None, dropped: int) -> PieceCounts:
    """Counts from their parts."""
    found = PieceCounts(cap=cap)
    found._add_flat(flat)
    found.dropped = dropped
    return found


def count_texts(
    texts: Iterable[str], normaliser: Normaliser | None, splitter: Splitter, cap: int | None = None
) -> PieceCounts:
    """The pieces of texts, each a document of its own: the map.

    cap: as of PieceCounts. Raises DataError for a text that UTF-8 can't hold (a lone surrogate).
    """
    found = PieceCounts(cap=cap)
    changes = [change for change in (normaliser, splitter.before) if change is not None]
    for number, text in enumerate(texts):
        for change in changes:
            text = change(text)
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"Text {number} has a lone surrogate at character {error.start}, which is no text: remove it."
            ) from error
        found.add(data, splitter.spans(data))
    return found


def merge_counts(parts: Iterable[PieceCounts], cap: int | None = None) -> PieceCounts:
    """The sum of counts: the reduce."""
    found = PieceCounts(cap=cap)
    for part in parts:
        found.merge(part)
    return found


def count_part(
    part: Part, normaliser: Normaliser | None, splitter: Splitter, cap: int | None = None
) -> PieceCounts:
    """The pieces of a file, or of the lines that begin in a stretch of it; each line, with its ending, is a document.

    Raises DataError for a file that can't be read, and for bytes that are no UTF-8, with their line and place.
    """
    found = PieceCounts(cap=cap)
    for _ in _count_into(found, part, normaliser, splitter):
        pass
    return found


def _count_into(
    found: PieceCounts, part: Part, normaliser: Normaliser | None, splitter: Splitter
) -> Iterator[int]:
    """Count block by block, and tell how many bytes of text each had."""
    plain = normaliser is None and splitter.before is None
    for at, data in blocks(part):
        try:
            text = "" if plain and data.isascii() else data.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{place_of(part.path, at + error.start)}: byte 0x{data[error.start]:02x} is no UTF-8 "
                f"({error.reason}): convert the file to UTF-8."
            ) from error
        if plain:
            found.add(data, line_spans(splitter, data))
        else:
            found.merge(count_texts(_lines(text), normaliser, splitter))
        yield len(data)


def _lines(text: str) -> Iterator[str]:
    """Lines with their line feeds; other line breaks of Unicode are text."""
    at = 0
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        yield text[at:end]
        at = end


def count_files(
    paths: Sequence[str | Path],
    normaliser: Normaliser | None,
    splitter: Splitter,
    *,
    workers: int = 1,
    cap: int | None = None,
    progress: PROGRESS | None = None,
) -> PieceCounts:
    """The pieces of text files, plain or .gz, by `workers` processes: lines with their endings are the documents.

    That is how Hugging Face's trainer reads files. Files are read in blocks, so that memory follows the pieces and not the
    files; a line longer than `reading.LONGEST_LINE` is cut, at a space where there is one. progress: called with the bytes
    read so far and in all. Raises DataError for a file that can't be read or is no UTF-8, and when there is no text.
    """
    if isinstance(paths, str | Path):
        raise UsageError(f"paths is {str(paths)!r}: give a list of files.")
    if workers < 1:
        raise UsageError(f"{workers} workers can't count: give at least 1.")
    parts = [part for path in paths for part in parts_of(Path(path), workers)]
    total, done = sum(part.size for part in parts), 0
    found = PieceCounts(cap=cap)
    alone = workers == 1 or len(parts) < 2
    if alone:
        ahead: Iterator[PieceCounts] = iter(())
    else:
        from lineal.tokenizers.corpus.count_worker import counted

        ahead = counted(parts, normaliser, splitter, workers, cap)
    for part in parts:
        read = 0
        for size in _count_into(found, part, normaliser, splitter) if alone else ():
            # A compressed file has more text than bytes.
            read = min(read + size, part.size)
            if progress:
                progress(done + read, total)
        if not alone:
            found.merge(next(ahead))
        done += part.size
        if progress:
            progress(done, total)
    if not len(found):
        raise DataError(
            f"There is no text in {', '.join(map(str, paths)) or 'an empty list of files'}: give some."
        )
    return found
