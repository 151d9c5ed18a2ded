"""Other processes that count: each is told, in lines of JSON, what to do to texts and then one part of a file after another.

Nothing is pickled, and the program that asks is not imported again: a worker imports this package and the modules of the
normaliser and the splitter, whose fields it is sent. Its answer is what `PieceCounts.save` writes.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from io import BufferedIOBase
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lineal import errors
from lineal.errors import LinealError, UsageError
from lineal.tokenizers.corpus.counting import PieceCounts, count_part
from lineal.tokenizers.corpus.reading import Part
from lineal.tokenizers.parts import Normaliser, Splitter

START = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline()); "
    "from lineal.tokenizers.corpus.count_worker import serve; serve(sys.stdin.buffer, sys.stdout.buffer)"
)


def describe(value: Any) -> Any:
    """A part of a tokenizer as JSON: its class and its fields; raises UsageError where it is no dataclass of such."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {"tuple": [describe(item) for item in value]}
    kind = type(value)
    if not dataclasses.is_dataclass(value) or "<" in kind.__qualname__ or kind.__module__ == "__main__":
        raise UsageError(
            f"{value!r} can't be sent to another process: make it a dataclass of plain values in a module, "
            "or count with one worker."
        )
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    return {
        "class": [kind.__module__, kind.__qualname__],
        "fields": {name: describe(item) for name, item in fields.items()},
    }


def rebuild(value: Any) -> Any:
    """What `describe` described."""
    if not isinstance(value, dict):
        return value
    if "bytes" in value:
        return base64.b64decode(value["bytes"])
    if "tuple" in value:
        return tuple(map(rebuild, value["tuple"]))
    module, name = value["class"]
    kind: Any = import_module(module)
    for step in name.split("."):
        kind = getattr(kind, step)
    return kind(**{name: rebuild(item) for name, item in value["fields"].items()})


def serve(requests: BufferedIOBase, answers: BufferedIOBase) -> None:
    """A worker's life: how to count in the first line, then a part in each; an answer is its length in a line, then itself."""
    how = rebuild(json.loads(requests.readline()))
    for line in requests:
        path, *rest = json.loads(line)
        try:
            answer = count_part(Part(Path(path), *rest), *how).to_bytes()
        except LinealError as error:
            answer = json.dumps([type(error).__name__, str(error)]).encode()
        answers.write(b"%d\n" % len(answer) + answer)
        answers.flush()


class Worker:
    """A process that counts one part at a time."""

    def __init__(self, how: bytes):
        self.process = subprocess.Popen(
            [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.first = json.dumps(sys.path).encode() + b"\n" + how + b"\n"

    def count(self, part: Part) -> PieceCounts:
        """The pieces of a part; raises what was raised there, or LinealError when the process died."""
        requests, answers = self.process.stdin, self.process.stdout
        assert requests is not None and answers is not None
        try:
            requests.write(
                self.first + json.dumps([str(part.path), part.size, part.start, part.stop]).encode() + b"\n"
            )
            requests.flush()
            self.first = b""
            size = int(answers.readline())
            answer = answers.read(size)
        except (OSError, ValueError) as error:
            raise LinealError(
                f"A process that counted {part.path} ended (exit code {self.process.wait()}): if memory ran out, "
                "take fewer workers or a cap."
            ) from error
        found = PieceCounts.from_bytes(answer)
        if found is None:
            name, message = json.loads(answer)
            raise getattr(errors, name)(message)
        return found

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def counted(
    parts: Sequence[Part],
    normaliser: Normaliser | None,
    splitter: Splitter,
    workers: int,
    cap: int | None,
) -> Iterator[PieceCounts]:
    """The counts of each part, in order, by so many processes."""
    how = json.dumps(describe((normaliser, splitter, cap))).encode()
    idle: SimpleQueue[Worker] = SimpleQueue()
    started = [Worker(how) for _ in range(min(workers, len(parts)))]
    for worker in started:
        idle.put(worker)

    def count(part: Part) -> PieceCounts:
        worker = idle.get()
        try:
            return worker.count(part)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(len(started))
    try:
        yield from pool.map(count, parts)
    finally:
        for worker in started:
            worker.close()
        pool.shutdown(cancel_futures=True)
