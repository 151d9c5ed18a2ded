"""One process per run folder; a dead one never keeps the others out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lineal.errors import RunError
from lineal.train.lock import NAME, Lock, lock_owner

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from lineal.train.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def holder(folder: Path) -> subprocess.Popen:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(RunError) as caught:
            Lock(tmp_path)
        said = str(caught.value)
        assert f"in use by process {process.pid} on {socket.gethostname()} since 20" in said
        assert "Wait for it, stop it, or choose another folder" in said
        owner = lock_owner(tmp_path)
        assert owner is not None and owner["pid"] == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock_owner(tmp_path) is None, "a lock whose owner is dead is stale"
        assert (tmp_path / NAME).read_text() != "", "though the file still names it"
        Lock(tmp_path).release()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_same_process_is_refused_too(tmp_path):
    lock = Lock(tmp_path)
    with pytest.raises(RunError, match=f"process {os.getpid()}"):
        Lock(tmp_path)
    lock.release()
    lock.release()
    again = Lock(tmp_path)
    again.release()


def test_a_leftover_file_is_no_lock(tmp_path):
    (tmp_path / NAME).write_text('{"pid": 1, "host": "elsewhere", "started": "once, in a much longer text"}')
    lock = Lock(tmp_path)
    owner = lock_owner(tmp_path)
    assert owner is not None and owner["pid"] == os.getpid()
    lock.release()
    assert (tmp_path / NAME).read_text() == ""


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_an_unreadable_owner_is_a_question_mark(tmp_path, content):
    lock = Lock(tmp_path)
    (tmp_path / NAME).write_text(content)
    with pytest.raises(RunError, match=r"process \? on \?"):
        Lock(tmp_path)
    assert lock_owner(tmp_path) == {}
    lock.release()


def test_no_lock_has_no_owner(tmp_path):
    assert lock_owner(tmp_path) is None
    assert lock_owner(tmp_path / "absent") is None


def test_an_onlooker_does_not_keep_a_run_out(tmp_path):
    """`lock_owner` holds a shared lock for an instant; the run waits that long."""
    fcntl = pytest.importorskip("fcntl")
    Lock(tmp_path).release()
    descriptor = os.open(tmp_path / NAME, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    child = os.fork()
    if child == 0:  # The child shares the lock, and lets it go when it ends.
        time.sleep(0.03)
        os._exit(0)
    os.close(descriptor)
    lock = Lock(tmp_path)
    os.waitpid(child, 0)
    lock.release()


def test_a_child_process_does_not_inherit_the_lock(tmp_path):
    """A reward worker that outlives its run must not keep the folder locked."""
    lock = Lock(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        lock.release()
        Lock(tmp_path).release()
    finally:
        child.kill()
        child.wait()
