"""One process per run folder: a lock that the system releases when its owner dies, however it dies."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lineal.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has no flock; runs there are not guarded against a second process.
    fcntl = None

NAME = "lock"
TRIES, PATIENT, PAUSE = 5, 100, 0.02
"""Tries to take a lock that names an owner, and one that names none (an onlooker holds it); seconds between them."""


class Lock:
    """The lock of a run folder, held until `release` or the end of the process; kill -9 releases it too.

    Raises RunError naming the owner's process, host and start when another process, or another `Run` in this
    one, holds it. The file stays behind, because deleting a lock file is a race; a stale one is taken over.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _take(self._descriptor):
            owner = _owner(self._descriptor)
            os.close(self._descriptor)
            raise RunError(
                f"{folder} is in use by process {owner.get('pid', '?')} on {owner.get('host', '?')} since "
                f"{owner.get('started', '?')}. Wait for it, stop it, or choose another folder."
            )
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started})
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Let others in; releasing twice is harmless."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def lock_owner(folder: Path) -> dict[str, Any] | None:
    """Who holds a run folder now (pid, host, started), or None: a lock that is stale has no owner."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is None:
            return None
        try:
            # Shared, so that two onlookers do not take each other for an owner.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _owner(descriptor)
        return None
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    if fcntl is None:
        return True
    for attempt in range(PATIENT):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            # An onlooker (`lock_owner`) may hold it for an instant.
            if attempt + 1 >= TRIES and _owner(descriptor):
                return False
            time.sleep(PAUSE)
    return False


def _owner(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}
