"""A worker survives, bounds and names everything a user's function can do to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lineal.environments.worker import Limits, Worker, WorkerFailure

QUICK = Limits(seconds=0.6)

FUNCTIONS = r"""
import asyncio, os, re, subprocess, sys, time

def echo(**arguments): return arguments
def length(completions, **kwargs): return [float(len(c)) for c in completions]
async def later(completions, **kwargs):
    await asyncio.sleep(0)
    return [1.0] * len(completions)
def raises(completions, **kwargs):
    raise KeyError("no such thing")
def rude(completions, **kwargs):
    class Rude(Exception):
        def __str__(self): raise RuntimeError
    raise Rude
def leaves(completions, **kwargs): sys.exit(4)
def vanishes(completions, **kwargs): os._exit(3)
def crashes(completions, **kwargs):
    print("about to fall", flush=True)
    os.kill(os.getpid(), 11)
def sleeps(completions, **kwargs): time.sleep(3600)
def loops_in_c(completions, **kwargs):
    return [float(bool(re.match(r"(a+)+$", "a" * 60 + "b"))) for _ in completions]
def shouts(completions, size, **kwargs):
    block = b"x" * (1 << 20)
    for _ in range(size): os.write(1, block)
    return [0.5] * len(completions)
def shouts_for_ever(completions, **kwargs):
    while True: print("x" * 1000)
def forks(completions, marker, **kwargs):
    if os.fork() == 0:
        open(marker, "w").write(str(os.getpid()))
        time.sleep(3600)
    return [1.0] * len(completions)
def forks_and_returns(completions, **kwargs):
    os.fork()
    return [1.0] * len(completions)
def waits(completions, **kwargs):
    if os.fork() == 0: os._exit(0)
    while True:
        try: os.wait()
        except ChildProcessError: return [1.0] * len(completions)
def spawns(completions, marker, **kwargs):
    child = subprocess.Popen(["sleep", "3600"])
    open(marker, "w").write(str(child.pid))
    time.sleep(3600)
def leaks(completions, **kwargs): return [float(len(bytearray(1 << 30)))]
def dozes(marker, **kwargs):
    open(marker, "w").write(str(os.getpid()))
    time.sleep(3600)
"""

SAMPLES = {"prompts": ["p", "q"], "completions": ["a", "bcd"], "completion_ids": [[1], [2, 3]]}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "user.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture
def make(file: Path) -> Iterator[object]:
    made: list[Worker] = []

    def build(function: str, limits: Limits | None = None) -> Worker:
        made.append(Worker(file, function, limits))
        return made[-1]

    yield build
    for worker in made:
        worker.close()


def line_of(mark: str) -> int:
    return 1 + next(i for i, line in enumerate(FUNCTIONS.splitlines()) if mark in line)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone_soon(pid: int) -> bool:
    end = time.monotonic() + 10
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def read_pid(path: Path) -> int:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.01)
    raise AssertionError("the function never ran")


def failure(worker: Worker, **arguments: object) -> WorkerFailure:
    with pytest.raises(WorkerFailure) as caught:
        worker.call({**SAMPLES, **arguments}, {})
    return caught.value


def test_values_come_back_in_order_and_the_process_is_kept(make) -> None:
    worker = make("length")
    assert worker.call(SAMPLES, {})["values"] == [1.0, 3.0]
    pid = worker._process.pid
    for _ in range(3):
        assert worker.call(SAMPLES, {})["values"] == [1.0, 3.0]
    assert worker._process.pid == pid


def test_async_functions_are_awaited(make) -> None:
    assert make("later").call(SAMPLES, {})["values"] == [1.0, 1.0]


def test_arguments_arrive_as_they_were_sent(make) -> None:
    odd = {"text": "a\ud800\u2028\n\x00é", "big": 2**80, "nested": [{"a": None, "b": [1.5, True]}]}
    assert make("echo").call(odd)["value"] == odd


def test_token_ids_survive_packing(make, file: Path) -> None:
    file.with_name("ids.py").write_text(
        "def total(completion_ids, **kw):\n"
        "    assert all(type(t) is int for ids in completion_ids for t in ids)\n"
        "    return [float(sum(ids)) for ids in completion_ids]\n"
    )
    with Worker(file.with_name("ids.py"), "total") as worker:
        ids = [[], [2**31 - 1], [5, 6, 7]]
        reply = worker.call({"prompts": [""] * 3, "completions": [""] * 3, "completion_ids": ids}, {})
    assert reply["values"] == [0.0, 2.0**31 - 1, 18.0]


def test_a_worker_imports_neither_torch_nor_lineal(tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text(
        "import sys\ndef look(): return sorted(m for m in ('torch', 'numpy', 'lineal') if m in sys.modules)\n"
    )
    with Worker(tmp_path / "look.py", "look") as worker:
        assert worker.call({})["value"] == []


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("VALUE = 7\n")
    (tmp_path / "main.py").write_text("import neighbour_of_mine\ndef f(): return neighbour_of_mine.VALUE\n")
    with Worker(tmp_path / "main.py", "f") as worker:
        assert worker.call({})["value"] == 7


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("raises", "raised", "raised KeyError at line {line}: 'no such thing'"),
        ("rude", "raised", "raised Rude at line {line}: (its message cannot be printed)"),
        ("leaves", "raised", "raised SystemExit at line {line}: 4"),
        ("vanishes", "exit", "ended its process with exit code 3"),
        ("crashes", "exit", "was ended by SIGSEGV"),
    ],
)
def test_a_function_that_stops_early_is_named_and_can_be_called_again(
    make, function: str, kind: str, message: str
) -> None:
    worker = make(function)
    marks = {"raises": "raise KeyError", "rude": "    raise Rude", "leaves": "sys.exit(4)"}
    line = line_of(marks[function]) if function in marks else 0
    for _ in range(2):
        error = failure(worker)
        assert (error.kind, str(error)) == (kind, message.format(line=line))
        assert (worker._process is None) == (kind == "exit")


@pytest.mark.parametrize(
    ("function", "mark"), [("sleeps", "def sleeps"), ("loops_in_c", "re.match"), ("shouts_for_ever", "")]
)
def test_a_function_that_never_returns_is_killed_at_its_deadline(make, function: str, mark: str) -> None:
    worker = make(function, QUICK)
    worker.start()
    pid = worker._process.pid
    error = failure(worker)
    assert error.kind == "timeout"
    assert str(error).startswith("was still running after 0.6 s")
    if mark:  # of one that prints, the output may push the traceback out of the kept end
        assert str(error).endswith(f"at line {line_of(mark)} of user.py")
    assert not alive(pid)


def test_a_gigabyte_of_output_is_capped(make) -> None:
    worker = make("shouts")
    assert worker.call({**SAMPLES, "size": 1024}, {})["values"] == [0.5, 0.5]
    assert len(worker.output) < (1 << 16) + 100
    assert worker.output.startswith(f"[{(1 << 30) - (1 << 16)} bytes before this were dropped]")
    assert worker.call({**SAMPLES, "size": 0}, {})["values"] == [0.5, 0.5]
    assert worker.output == ""


def test_what_a_crashing_function_printed_is_kept(make) -> None:
    assert "about to fall" in failure(make("crashes")).output


def test_forked_children_end_with_the_worker(make, tmp_path: Path) -> None:
    worker = make("forks")
    assert worker.call({**SAMPLES, "marker": str(tmp_path / "pid")}, {})["values"] == [1.0, 1.0]
    child = read_pid(tmp_path / "pid")
    assert alive(child)
    worker.close()
    assert gone_soon(child)


def test_programs_started_by_the_function_end_at_the_deadline(make, tmp_path: Path) -> None:
    error = failure(make("spawns", Limits(seconds=2.0)), marker=str(tmp_path / "pid"))
    assert error.kind == "timeout"
    assert gone_soon(read_pid(tmp_path / "pid"))


def test_a_fork_that_returns_does_not_answer_twice(make) -> None:
    worker = make("forks_and_returns")
    for _ in range(4):
        assert worker.call(SAMPLES, {})["values"] == [1.0, 1.0]


def test_the_guard_is_not_a_child_the_function_can_wait_for(make) -> None:
    assert make("waits", Limits(seconds=10.0)).call(SAMPLES, {})["values"] == [1.0, 1.0]


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are Linux's")
def test_memory_can_be_bounded(make) -> None:
    error = failure(make("leaks", Limits(memory_bytes=1 << 28)))
    assert str(error).startswith("raised MemoryError")


def test_large_requests_and_replies_do_not_deadlock(make) -> None:
    big = {"completions": ["x" * 5_000_000] * 2}
    assert make("echo").call(big)["value"] == big


def test_a_reply_beyond_its_limit_is_refused(make) -> None:
    with pytest.raises(WorkerFailure, match="more than 1000 bytes") as caught:
        make("echo", Limits(reply_bytes=1000)).call({"text": "x" * 2000})
    assert caught.value.kind == "reply"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:", r"raised SyntaxError at line 1: .*"),
        ("import no_such_module_here", r"raised ModuleNotFoundError at line 1: No module .*"),
        ("def other(): pass", r"has no function 'f'; it has other"),
        ("f = 3", r"has no function 'f'; it has none"),
        ("import sys; sys.exit(1)", r"raised SystemExit at line 1: 1"),
        ("import os; os._exit(5)", r"ended its process with exit code 5"),
        ("\x00", r"raised \w+Error.*"),
        ("f = '\udcff'", r"raised \w+Error.*"),
        ("while True: pass", r"was still running after 0\.4 s.*"),
    ],
)
def test_a_file_that_cannot_be_loaded(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_bytes(source.encode("utf-8", "surrogateescape"))
    start = 0.4 if "while" in source else 60.0
    with Worker(path, "f", Limits(start_seconds=start)) as worker, pytest.raises(WorkerFailure) as caught:
        worker.start()
    assert re.fullmatch(message, str(caught.value))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with Worker(tmp_path / "none.py", "f") as worker, pytest.raises(WorkerFailure, match="FileNotFoundError"):
        worker.start()


def test_an_interrupted_call_leaves_no_half_read_reply(make) -> None:
    worker = make("length")
    worker.start()
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    os.kill(worker._process.pid, signal.SIGSTOP)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(KeyboardInterrupt):
        worker.call(SAMPLES, {})
    assert worker._process is None
    assert worker.call(SAMPLES, {})["values"] == [1.0, 3.0]


def test_closing_twice_is_harmless_and_a_closed_worker_starts_again(make) -> None:
    worker = make("length")
    worker.close()
    worker.start()
    worker.close()
    worker.close()
    assert worker.call(SAMPLES, {})["values"] == [1.0, 3.0]


def test_no_descriptor_is_left_open(make) -> None:
    worker = make("raises")
    failure(worker)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        failure(worker)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("function", ["dozes", "loops_in_c"])
def test_a_parent_killed_outright_leaves_no_worker_behind(file: Path, tmp_path: Path, function: str) -> None:
    program = (
        "import sys; from pathlib import Path; from lineal.environments.worker import Worker\n"
        f"worker = Worker(Path({str(file)!r}), {function!r}); worker.start()\n"
        f"Path({str(tmp_path / 'worker')!r}).write_text(str(worker._process.pid))\n"
        f"worker.call({{'marker': {str(tmp_path / 'pid')!r}, 'completions': ['']}})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    child = read_pid(tmp_path / "worker")
    if function == "dozes":
        read_pid(tmp_path / "pid")
    parent.kill()
    parent.wait()
    assert gone_soon(child)
