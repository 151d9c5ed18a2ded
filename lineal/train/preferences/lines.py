"""Files of JSON lines that only grow and survive anything: one synced write per line, a torn last line cut off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from lineal.errors import DataError, LinealError
from lineal.train import files
from lineal.train.console import warn
from lineal.train.metrics import encode_line
from lineal.train.strict_json import Bad, parse

T = TypeVar("T")


class LineReader(Generic[T]):
    """The records of a growing file; each call of `more` reads what was added since, and leaves a torn end for later.

    read: turns a record into a value; the LinealErrors it raises get the line in front.
    """

    def __init__(self, path: Path, read: Callable[[dict[str, Any]], T]) -> None:
        self.path, self._read = path, read
        self._offset, self._number = 0, 0

    @property
    def offset(self) -> int:
        """Bytes of whole lines read so far."""
        return self._offset

    def more(self) -> list[T]:
        """The values of the lines that are new and whole."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        found = []
        for line in whole.splitlines():
            self._number += 1
            found.append(self._value(line))
        self._offset += len(whole)
        return found

    def _value(self, line: bytes) -> T:
        where = f"{self.path}:{self._number}"
        record = parse(line.decode("utf-8", "replace"))
        if isinstance(record, Bad):
            raise DataError(f"{where}:{record.column or 1}: {record.reason}")
        if not isinstance(record, dict):
            raise DataError(f"{where}: a line holds one object, not {json.dumps(record)[:40]}.")
        try:
            return self._read(record)
        except LinealError as error:
            raise DataError(f"{where}: {error}") from error
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}: not what is kept here ({type(error).__name__}: {error}).") from error


class LineWriter:
    """The end of such a file: appends whole lines, each durable before `append` returns.

    A torn last line, which a power cut leaves, is cut off with a warning: it was never acknowledged.
    """

    def __init__(self, path: Path) -> None:
        self._file = files.AppendFile(path)
        content = path.read_bytes()
        torn = len(content) - (content.rfind(b"\n") + 1)
        if torn:
            warn(
                f"{path}: the last line is torn ({torn} bytes without an end) and was cut off; the others are whole."
            )
            self._file.cut(len(content) - torn)

    def append(self, record: dict[str, Any]) -> None:
        """Add one line and wait until it is on the disk; LinealError when it cannot be, the file is then as before."""
        try:
            self._file.append(encode_line(record))
            self._file.sync()
        except OSError as error:
            raise LinealError(
                f"{self._file.path} cannot be written ({error.strerror}): the last line was not kept, all before it were."
                " Free some space and answer again."
            ) from error

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._file.close()
