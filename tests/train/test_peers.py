"""A process of a run that dies ends the others, by name; one that leaves in order does not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lineal.train import peers
from lineal.train.peers import DONE, FAILED, Peers

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no pidfd"),
    # The watching thread ends by SystemExit where the process would have ended.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits to be ended."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which this process would have ended; the watching thread ends instead."""
    found: list[int] = []

    def leave(code: int) -> None:
        found.append(code)
        sys.exit()

    monkeypatch.setattr(peers, "GRACE", 0.01)
    monkeypatch.setattr(peers, "PATIENCE", 0.2)
    monkeypatch.setattr(peers.os, "_exit", leave)
    return found


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come; the test's own time limit ends it otherwise."""
    while not condition():
        time.sleep(0.005)


def watch(rank: int, child: int, *, word: str = "", machine: int = 0) -> Peers:
    """Peers of two: this process as `rank`, and the child as the other one."""
    seats = [(0, os.getpid()), (machine, child)]
    return Peers(rank, seats if rank == 0 else seats[::-1], lambda _: word)


def test_a_death_ends_this_process_and_is_named(
    other: subprocess.Popen[bytes], ends: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = watch(0, other.pid)
    assert not ends
    other.kill()
    until(lambda: bool(ends))
    assert ends == [1]
    said = capsys.readouterr().err
    assert f"rank 1 (process {other.pid}) died" in said
    assert said.count("\n") == 1
    watcher.close()


def test_the_lowest_rank_left_says_it(
    other: subprocess.Popen[bytes], ends: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = watch(1, other.pid)
    other.kill()
    until(lambda: bool(ends))
    assert "rank 0 (process" in capsys.readouterr().err
    watcher.close()
    assert not Peers._speaks(watcher, 2)


def test_one_that_leaves_in_order_ends_no_one(other: subprocess.Popen[bytes], ends: list[int]) -> None:
    asked = threading.Event()

    def left(rank: int) -> str:
        assert rank == 1
        asked.set()
        return DONE

    watcher = Peers(0, [(0, os.getpid()), (0, other.pid)], left)
    other.kill()
    assert asked.wait(60)
    watcher.judge()
    watcher.close()
    assert not ends and not watcher._thread.is_alive()


def test_one_that_told_its_error_is_followed_in_silence(
    other: subprocess.Popen[bytes], ends: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = watch(0, other.pid, word=FAILED)
    other.kill()
    until(lambda: bool(ends))
    assert capsys.readouterr().err == ""
    watcher.close()


def test_a_store_that_is_gone_is_no_order(other: subprocess.Popen[bytes], ends: list[int]) -> None:
    def left(rank: int) -> str:
        raise ConnectionError("no store")

    watcher = Peers(0, [(0, os.getpid()), (0, other.pid)], left)
    other.kill()
    until(lambda: bool(ends))
    watcher.close()


def test_closing_stops_the_watch(other: subprocess.Popen[bytes], ends: list[int]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watcher = watch(0, other.pid)
    watcher.close()
    watcher.close()
    assert not watcher._thread.is_alive()
    assert len(os.listdir("/proc/self/fd")) == before
    other.kill()
    other.wait()
    watcher.judge()
    assert not ends


def test_processes_of_other_machines_are_not_watched(other: subprocess.Popen[bytes], ends: list[int]) -> None:
    watcher = watch(0, other.pid, machine=1)
    other.kill()
    other.wait()
    watcher.judge()
    assert not ends
    watcher.close()


def test_one_that_died_before_the_watch_began_is_noticed(
    other: subprocess.Popen[bytes], ends: list[int]
) -> None:
    other.kill()
    other.wait()
    watcher = watch(0, other.pid)
    until(lambda: bool(ends))
    watcher.close()


def test_judging_waits_for_the_end(
    other: subprocess.Popen[bytes], ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PATIENCE", 60.0)
    watcher = watch(0, other.pid)
    other.kill()
    watcher.judge()
    assert ends == [1]
    watcher.close()
