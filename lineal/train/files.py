"""The few operating-system calls that everything durable goes through.

Each write is completed and synced before anything points to it, so a crash or a full disk leaves the old or
the new, never a mixture. Errors stay `OSError` here; callers say what was lost and what was not.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class Written:
    """Size and SHA-256 of a file as it was written."""

    size: int
    sha256: str


def write_file(path: Path, chunks: Iterable[bytes | memoryview], durable: bool = True) -> Written:
    """Write chunks to a file, fsync it if it must be durable, return its size and SHA-256; raises OSError."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o644)
    try:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            write_all(descriptor, chunk)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Written(size, digest.hexdigest())


def write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    """Write every byte: one call to the system may take only a part."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def hash_file(path: Path) -> Written:
    """Size and SHA-256 of a file as it is now."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return Written(size, digest.hexdigest())


def make_folder(path: Path, durable: bool = True) -> None:
    """Make a folder and its parents, durably unless told otherwise; one that exists is fine."""
    if not path.is_dir():
        if not path.parent.is_dir():
            make_folder(path.parent, durable)
        os.mkdir(path)
        if durable:
            sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable (a no-op on systems that cannot open folders)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file in one step: readers see the old or the new."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        write_file(temporary, [content])
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def rename_folder(source: Path, target: Path, durable: bool = True) -> None:
    """Rename a complete folder within its parent, durably unless told otherwise; the target must be free."""
    os.rename(source, target)
    if durable:
        sync_folder(target.parent)


def sync_tree(path: Path) -> None:
    """fsync every file and folder below `path`, for folders that another library wrote."""
    for folder, _, names in os.walk(path):
        for name in names:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY | BINARY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(folder))


def remove_folder(path: Path) -> None:
    """Delete a folder; a crash half-way leaves a name in .tmp, not a folder that looks like a result."""
    condemned = path if path.name.endswith(".tmp") else path.with_name(path.name + ".removed.tmp")
    if condemned != path:
        if condemned.exists():
            shutil.rmtree(condemned)
        os.rename(path, condemned)
    shutil.rmtree(condemned)


class AppendFile:
    """A file that only grows: one `append` is one write at its end, and a failed one leaves no half line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | BINARY, 0o644)

    @property
    def length(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._descriptor).st_size

    def append(self, line: bytes) -> None:
        """Add one line; on an error the file is cut back to where it was and the OSError goes on."""
        before = self.length
        try:
            write_all(self._descriptor, line)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise

    def cut(self, length: int) -> None:
        """Drop everything after the first `length` bytes."""
        if self.length > length:
            os.ftruncate(self._descriptor, length)

    def sync(self) -> None:
        """Make what was appended durable."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
