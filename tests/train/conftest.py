"""Faults of the operating system, injected one call at a time; and temporary folders in memory."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CALLS = ("open", "mkdir", "write", "fsync", "rename", "replace", "ftruncate")


class FaultyOs:
    """Behaves as `os`, but the `fail_at`-th call of those in CALLS raises, as SQLite's tests do it.

    forever: so do all later calls.
    short_writes: each write takes only part of what it is given.
    """

    def __init__(
        self, fail_at: int = 0, error: int = errno.EIO, forever: bool = False, short_writes: bool = False
    ):
        self.fail_at, self.error, self.forever, self.short_writes = fail_at, error, forever, short_writes
        self.count = 0
        self.log: list[tuple[str, str]] = []
        self.names: dict[int, str] = {}

    def __getattr__(self, name: str):
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args, **options):
            self.count += 1
            where = self.names.get(args[0], "") if isinstance(args[0], int) else os.path.basename(args[0])
            self.log.append((name, where))
            if self.fail_at and (self.count == self.fail_at or (self.forever and self.count > self.fail_at)):
                if name == "write":
                    # A full disk takes what still fits.
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(self.error, os.strerror(self.error), str(args[0]))
            if name == "write" and self.short_writes and len(args[1]) > 1:
                return real(args[0], bytes(args[1])[: len(args[1]) // 2])
            result = real(*args, **options)
            if name == "open":
                self.names[result] = where
            return result

        return call


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder, in memory where there is one: tests here sync files thousands of times."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="lineal-") as folder:
        yield Path(folder)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch):
    """`with faulty(fail_at=3, error=errno.ENOSPC) as fake:` runs lineal's file layer on a `FaultyOs`."""

    @contextmanager
    def context(**options) -> Iterator[FaultyOs]:
        fake = FaultyOs(**options)
        with monkeypatch.context() as patch:
            patch.setattr("lineal.train.files.os", fake)
            yield fake

    return context
