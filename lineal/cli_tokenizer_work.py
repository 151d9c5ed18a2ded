"""What long work on the command line needs: a bar, an end on request, and output that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from io import TextIOBase
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from lineal.errors import ModelError

EVERY = 5.0
"""Seconds between plain lines."""


class Bar:
    """Progress of work in stages: a live bar on a terminal, now and then a plain line elsewhere."""

    def __init__(
        self, stream: TextIO | TextIOBase | None = None, clock: Callable[[], float] = time.monotonic
    ):
        self._stream: Any = stream or sys.stderr
        self._clock = clock
        self._live: Any = None
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._last = self._start = clock()

    def __enter__(self) -> Bar:
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
            )
            self._live = Progress(*columns, console=Console(file=self._stream))
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, what: str, done: int, total: int) -> None:
        """Say how much of a stage is done."""
        now = self._clock()
        self._began.setdefault(what, max([self._start, *self._ended.values()]))
        self._ended[what] = now
        if self._live is not None:
            if what not in self._tasks:
                self._tasks[what] = self._live.add_task(what, total=total)
            self._live.update(self._tasks[what], completed=done, total=total)
        elif now - self._last >= EVERY:
            self._last = now
            print(
                f"{what} {done / max(1, total):.0%} after {now - self._start:.0f} s",
                file=self._stream,
                flush=True,
            )

    def times(self) -> str:
        """How long the stages took: ` in 3.1 s (counting 2.0 s, learning 1.1 s)`."""
        stages = [f"{what} {self._ended[what] - self._began[what]:.1f} s" for what in self._began]
        whole = self._clock() - self._start
        return f" in {whole:.1f} s" + (f" ({', '.join(stages)})" if stages else "")


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the work with its exit code, 143, after everything that has to be put away was."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside `out`; what was written there is moved into `out` when the work ends well, else thrown away.

    Raises ModelError at once where nothing can be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir() and not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(13, "permission denied")
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ModelError(
            f"{out} cannot be written ({error.strerror or error}): choose another folder."
        ) from error
    try:
        yield folder
        try:
            folder.chmod(0o755)
            if not out.exists():
                folder.rename(out)
            else:
                for path in sorted(folder.iterdir()):
                    path.replace(out / path.name)
        except OSError as error:
            raise ModelError(
                f"{out} cannot be written ({error.strerror or error}): choose another folder."
            ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
