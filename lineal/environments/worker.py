"""A persistent child process that runs one function of one Python file, and can always be stopped.

It has a process group of its own, a deadline for every call, and its output is captured and capped: a
function that raises, hangs (in C too), exits, forks or prints without end costs at most its deadline. That
bounds accidents, not malice: the child has the user's own rights.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineal.environments import worker_child


@dataclass(frozen=True)
class Limits:
    """What one worker may take: seconds per call, seconds to start, and bytes.

    output_bytes: the end of what the function prints that is kept per call. reply_bytes: the longest reply.
    memory_bytes: address space of the child (Linux); 0 sets none.
    """

    seconds: float = 60.0
    start_seconds: float = 120.0
    output_bytes: int = 1 << 16
    reply_bytes: int = 1 << 26
    memory_bytes: int = 0


class WorkerFailure(Exception):
    """A call that gave no result; the message is a clause that follows the function's name.

    kind: load (the file), misfit (its arguments), raised, badrow, nonsense, timeout, exit or reply (too long).
    """

    def __init__(self, kind: str, message: str, output: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.output = output


@dataclass
class _Output:
    """The end of what the child printed since the last call, and how much came before it."""

    limit: int
    tail: bytearray = field(default_factory=bytearray)
    dropped: int = 0

    def add(self, chunk: bytes) -> None:
        self.tail += chunk
        extra = len(self.tail) - self.limit
        if extra > 0:
            del self.tail[:extra]
            self.dropped += extra

    def text(self) -> str:
        text = self.tail.decode("utf-8", "replace")
        return f"[{self.dropped} bytes before this were dropped]\n{text}" if self.dropped else text


class Worker:
    """Calls `function` of the file `path` in a child process that is started when needed and killed when
    late.

    A child that is late or ends itself is gone with its whole group, and the next call starts a fresh one; one
    that raised is kept. Not for use from several threads.
    """

    def __init__(self, path: Path, function: str, limits: Limits | None = None) -> None:
        self.path, self.function, self.limits = Path(path).resolve(), function, limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = self._replies = -1
        self._output = _Output(self.limits.output_bytes)
        self._finalizer: weakref.finalize | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def output(self) -> str:
        """The end of what the function printed during the last call."""
        return self._output.text()

    def start(self) -> None:
        """Start the child and load the function; WorkerFailure says why that cannot be done."""
        if self._process is not None:
            return
        self._output = _Output(self.limits.output_bytes)
        self._spawn()
        self._talk(b"", self.limits.start_seconds, loading=True)

    def call(self, arguments: dict[str, Any], state: dict[str, Any] | None = None) -> dict[str, Any]:
        """The child's reply to one call with these keyword arguments (plain JSON values).

        With `state` the function is called as a reward function: the reply holds `values`, `faults` (sample
        -> what is wrong with its reward), `metrics` and `extra`; without, it holds `value`.
        Raises WorkerFailure.
        """
        seconds = self.limits.seconds
        request: dict[str, Any] = {"arguments": arguments, "alarm": max(seconds - 1.0, seconds * 0.6)}
        if state is not None:
            request["state"] = state
            if "completion_ids" in arguments:
                request["ids"] = worker_child.pack_ids(arguments["completion_ids"])
                request["arguments"] = {**arguments, "completion_ids": None}
        payload = (json.dumps(request) + "\n").encode()
        self.start()
        self._output = _Output(self.limits.output_bytes)
        return self._talk(payload, seconds, loading=False)

    def close(self) -> None:
        """Kill the child, its whole process group with it; harmless when there is none."""
        finalizer, self._finalizer, self._process = self._finalizer, None, None
        if finalizer is not None:
            finalizer()

    def _spawn(self) -> None:
        requests_out, self._requests = os.pipe()
        self._replies, replies_in = os.pipe()
        lifeline_out, lifeline = os.pipe()
        theirs = (requests_out, replies_in, lifeline_out)
        settings = {
            "requests": requests_out,
            "replies": replies_in,
            "lifeline": lifeline_out,
            "path": str(self.path),
            "function": self.function,
            "memory": self.limits.memory_bytes,
        }
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", worker_child.__file__, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=theirs,
                start_new_session=True,
                env={"PYTHONHASHSEED": "0", **os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace"},
            )
        except BaseException:
            for descriptor in (self._requests, self._replies, lifeline):
                os.close(descriptor)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        assert process.stdout is not None
        for descriptor in (self._requests, self._replies, process.stdout.fileno()):
            os.set_blocking(descriptor, False)
        self._process = process
        ours = (self._requests, self._replies, lifeline)
        self._finalizer = weakref.finalize(self, _end, process, ours, os.getpid())

    def _talk(self, payload: bytes, seconds: float, *, loading: bool) -> dict[str, Any]:
        """Send the payload, return the one reply; on anything else the child is killed."""
        try:
            reply = json.loads(self._exchange(memoryview(payload), seconds))
        except WorkerFailure as error:
            self.close()
            raise WorkerFailure("load" if loading else error.kind, str(error), error.output) from None
        except BaseException:
            self.close()
            raise
        failure = reply.get("failure")
        if failure is None:
            return reply
        if loading:
            self.close()
        raise WorkerFailure("load" if loading else failure["kind"], failure["message"], self.output)

    def _exchange(self, pending: memoryview, seconds: float) -> bytes:
        process = self._process
        assert process is not None and process.stdout is not None
        deadline, reply = time.monotonic() + seconds, bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            selector.register(process.stdout, selectors.EVENT_READ)
            if pending:
                selector.register(self._requests, selectors.EVENT_WRITE)
            while not reply.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._late(process, seconds)
                gone = process.poll() is not None
                ready = {key.fd for key, _ in selector.select(0 if gone else min(left, 0.2))}
                if process.stdout.fileno() in ready and not self._read_output():
                    selector.unregister(process.stdout)
                if self._requests in ready:
                    pending = self._write(pending)
                    if not pending:
                        selector.unregister(self._requests)
                chunk = _read(self._replies) if self._replies in ready else None
                if chunk == b"" or (gone and not ready):
                    raise self._gone(process)
                reply += chunk or b""
                if len(reply) > self.limits.reply_bytes:
                    raise WorkerFailure(
                        "reply", f"logged or returned more than {self.limits.reply_bytes} bytes"
                    )
        self._read_output()
        return bytes(reply)

    def _write(self, pending: memoryview) -> memoryview:
        try:
            return pending[os.write(self._requests, pending[: 1 << 16]) :]
        except BlockingIOError:
            return pending
        except BrokenPipeError:
            return memoryview(b"")

    def _read_output(self) -> bool:
        """Take over what was printed, at most one call's worth at a time; False at its end."""
        assert self._process is not None and self._process.stdout is not None
        for _ in range(64):
            chunk = _read(self._process.stdout.fileno())
            if chunk is None:
                return True
            if not chunk:
                return False
            self._output.add(chunk)
        return True

    def _late(self, process: subprocess.Popen[bytes], seconds: float) -> WorkerFailure:
        _kill_group(process)
        self._read_output()
        where = ""
        for file, line in re.findall(r'File "([^"\n]+)", line (\d+) in', self.output):
            if file == str(self.path):
                where = f", at line {line} of {self.path.name}"
                break
        return WorkerFailure("timeout", f"was still running after {seconds:g} s{where}", self.output)

    def _gone(self, process: subprocess.Popen[bytes]) -> WorkerFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        _kill_group(process)
        self._read_output()
        code = process.returncode
        if code is not None and code < 0:
            names = {int(s): s.name for s in signal.Signals}
            how = f"was ended by {names.get(-code, f'signal {-code}')}"
        else:
            how = f"ended its process with exit code {code}"
        return WorkerFailure("exit", how, self.output)


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5.0)


def _end(process: subprocess.Popen[bytes], descriptors: tuple[int, ...], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the owner ends: the worker is not its own
        return
    _kill_group(process)
    for descriptor in descriptors:
        os.close(descriptor)
    if process.stdout is not None:
        process.stdout.close()
