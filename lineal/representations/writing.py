"""A file that is there whole or not at all, written piece by piece."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from lineal.errors import DataError


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes take the place of a file when all of them are there; .gz is zipped.

    Raises DataError when the file can't be written; the old one is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", 6, file, mtime=0) as zipped:
                    yield cast(BinaryIO, zipped)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error}): free some space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)
