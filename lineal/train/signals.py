"""Ctrl-C and SIGTERM ask a run to stop at its next safe point; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

WATCHED = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, the first SIGINT or SIGTERM only sets `received`; the next has its usual, deadly effect.

    The exit code of a run that stopped so is 128 + the signal: 130 after SIGINT, 143 after SIGTERM.
    Python delivers signals to the main thread only; entered elsewhere, this does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def exit_code(self) -> int:
        """128 + the signal that was received; 0 when there was none."""
        return 0 if self.received is None else 128 + self.received

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = number
        # The system's own action, so that a second signal works even inside a long call into C.
        for watched in WATCHED:
            signal.signal(watched, signal.SIG_DFL)
        # print() may be what was interrupted, and it is not re-entrant.
        os.write(
            2, b"stopping at the next safe point, with a checkpoint; press Ctrl-C again to quit at once\n"
        )
