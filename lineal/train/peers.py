"""The watch over the other processes of a run: one that dies ends all, within a second and by name.

A process that waits in a collective for a dead one would wait for minutes, and one that is busy sampling would not
notice at all. So each process holds a descriptor of every other one on its machine (Linux's pidfd), and a thread of
its own waits for the first of them to end. Elsewhere a dead process is noticed when a collective fails.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

GRACE = 1.5
"""Seconds between noticing a death and following it: torchrun must see the first one first, for it names that one."""
PATIENCE = 3.0
"""Seconds in which a broken connection must be explained by a death; the kernel closes both at about the same time."""

DONE, FAILED = "done", "failed"
"""What a process says before it leaves; one that is killed says nothing."""


class Peers:
    """Ends this process, exit code 1, when another one of the run ends before its time.

    rank: this process's own. seats: (machine, process id) of each rank; those of other machines are not watched.
    left: what a rank said on leaving: DONE, FAILED (it has told its error itself), or "" when it said nothing.
    The process that started this one (torchrun) is watched as well.
    """

    def __init__(self, rank: int, seats: Sequence[tuple[int, int]], left: Callable[[int], str]) -> None:
        self.rank, self._left = rank, left
        self._closed, self._bell = os.pipe()
        self._dead = threading.Event()
        self._names: dict[int, tuple[int, str]] = {}
        if hasattr(os, "pidfd_open"):
            for other, (machine, pid) in enumerate(seats):
                if other != rank and machine == seats[rank][0]:
                    self._names[_descriptor(pid)] = (other, f"rank {other} (process {pid})")
            self._names[_descriptor(os.getppid())] = (-1, f"torchrun (process {os.getppid()})")
        self._thread = threading.Thread(target=self._watch, name="lineal-peers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; closing twice is harmless."""
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1
            if not self._dead.is_set():
                self._thread.join()

    def judge(self) -> None:
        """After a failed collective: does not return when another process has died, for then this one ends too."""
        if self._dead.wait(PATIENCE):
            self._thread.join()

    def _watch(self) -> None:
        poll = select.poll()
        for descriptor in (self._closed, *self._names):
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._closed in ready:
                break
            for descriptor in ready:
                other, name = self._names[descriptor]
                word = self._word(other)
                if word != DONE:
                    self._follow(name, speak=self._speaks(other) and word != FAILED)
                poll.unregister(descriptor)
        for descriptor in (self._closed, *self._names):
            if descriptor >= 0:
                os.close(descriptor)

    def _word(self, other: int) -> str:
        if other >= 0:
            # The store that would tell may have gone with torchrun.
            with suppress(Exception):
                return self._left(other)
        return ""

    def _speaks(self, dead: int) -> bool:
        """One voice is enough: the lowest rank that is left."""
        return self.rank == (1 if dead == 0 else 0)

    def _follow(self, name: str, speak: bool) -> None:
        self._dead.set()
        if speak:
            said = (
                f"lineal: {name} died, and with it this run: lineal resume goes on from its last checkpoint"
            )
            print(said, file=sys.stderr, flush=True)
        time.sleep(GRACE)
        os._exit(1)


def _descriptor(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; at once when it is gone already."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        reader, writer = os.pipe()
        os.close(writer)
        return reader
