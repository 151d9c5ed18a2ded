"""The child's side of `worker.py`: run by its path, standard library only, so that a worker starts in a
blink.

Requests and replies are JSON lines over two pipes of their own. Standard output and error belong to the
user's code and are captured by the parent. Nothing here imports lineal, torch or numpy.
"""

from __future__ import annotations

import array
import base64
import contextlib
import faulthandler
import importlib.util
import inspect
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

TEXT_LIMIT = 1000
"""Characters of an error's own message that travel to the parent."""

CALLBACKS = ("trainer_state", "log_metric", "log_extra")
"""Offered to every reward function besides prompts, completions, completion_ids and the data's columns."""


class Nonsense(Exception):
    """What a reward function returned cannot be read as rewards."""


class BadRow(Exception):
    """A value in the data's columns that a reward cannot use."""


class Misfit(Exception):
    """The function cannot be found, or cannot be called with what there is."""


def read_rewards(returned: Any, count: int) -> tuple[list[float | None], dict[int, str]]:
    """The rewards of one call (None: not applicable), and for each sample whose reward is none what it is.

    Raises Nonsense when `returned` is no list of `count` values.
    """
    if not isinstance(returned, (list, tuple)):
        hint = " (call .tolist() on it)" if hasattr(returned, "tolist") else ""
        raise Nonsense(f"returned {_kind(returned)}{hint} where a list of {count} numbers is needed")
    if len(returned) != count:
        raise Nonsense(f"returned {len(returned)} rewards for {count} completions")
    rewards: list[float | None] = []
    faults: dict[int, str] = {}
    for index, value in enumerate(returned):
        reward = None
        if value is not None:
            try:
                reward = _number(value)
            except Nonsense as error:
                faults[index] = str(error)
        rewards.append(reward)
    return rewards, faults


def _number(value: Any) -> float:
    if not hasattr(value, "__float__"):
        raise Nonsense(f"{_kind(value)}, not a number")
    try:
        number = float(value)
    except Exception as error:
        raise Nonsense(f"{_kind(value)} that is no number ({type(error).__name__})") from error
    if math.isnan(number):
        raise Nonsense("nan (None says that a reward does not apply)")
    if math.isinf(number):
        raise Nonsense("an infinite number")
    return number


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def accepted(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered keyword arguments that the function takes: all of them if it has `**kwargs`.

    Raises Misfit, naming what there is, when the function needs one that is not offered.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return offered
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind in (*named, inspect.Parameter.POSITIONAL_ONLY)
        and (name not in offered or parameter.kind is inspect.Parameter.POSITIONAL_ONLY)
    ]
    if needed:
        columns = ", ".join(name for name in offered if name not in CALLBACKS)
        raise Misfit(f"needs the argument {needed[0]!r}, and there are only {columns}")
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return offered
    return {n: v for n, v in offered.items() if n in parameters and parameters[n].kind in named}


def run_function(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """The function's result; an `async` one is awaited."""
    result = function(**arguments)
    if inspect.iscoroutine(result):
        import asyncio

        return asyncio.run(result)
    return result


def pack_ids(rows: list[list[int]]) -> dict[str, Any]:
    """Rows of token ids as JSON that is cheap to write and read (plain lists cost more than the call)."""
    flat = b"".join([array.array("i", row).tobytes() for row in rows])
    return {"lengths": [len(row) for row in rows], "data": base64.b64encode(flat).decode("ascii")}


def unpack_ids(packed: dict[str, Any]) -> list[list[int]]:
    """The rows that `pack_ids` packed."""
    flat = array.array("i", base64.b64decode(packed["data"])).tolist()
    rows, start = [], 0
    for length in packed["lengths"]:
        rows.append(flat[start : start + length])
        start += length
    return rows


def score(function: Callable[..., Any], arguments: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """One call of a reward function: its values, the faulty ones, and what it logged."""
    count, metrics, extra = len(arguments["completions"]), {}, {}

    def log_metric(name: str, value: float) -> None:
        metrics.setdefault(str(name), []).append(_number(value))

    def log_extra(column: str, values: list[Any]) -> None:
        extra[str(column)] = [str(value)[:TEXT_LIMIT] for value in values]

    offered = {
        **arguments,
        "trainer_state": SimpleNamespace(**state),
        "log_metric": log_metric,
        "log_extra": log_extra,
    }
    values, faults = read_rewards(run_function(function, accepted(function, offered)), count)
    means = {name: sum(logged) / len(logged) for name, logged in metrics.items()}
    return {"values": values, "faults": faults, "metrics": means, "extra": extra}


def load_function(path: str, name: str) -> Callable[..., Any]:
    """The function `name` of the Python file `path`, which may import its neighbours."""
    spec = importlib.util.spec_from_file_location(f"_lineal_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise Misfit("is no Python file: its name must end in .py")
    folder = Path(path).resolve().parent
    if folder != Path(__file__).resolve().parent:
        sys.path.insert(0, str(folder))
        sys.path.append(os.getcwd())
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise Misfit(f"has no function {name!r}; it has {_functions(module)}")
    return function


def _functions(module: ModuleType) -> str:
    own = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
    return ", ".join(own[:10]) or "none"


def describe(error: BaseException, path: str) -> dict[str, str]:
    """An exception as a kind (misfit, nonsense, badrow, raised) and a clause that ends the sentence "the function"."""
    try:
        message = " ".join(str(error).split())[:TEXT_LIMIT]
    except Exception:
        message = "(its message cannot be printed)"
    if isinstance(error, (Misfit, Nonsense, BadRow)):
        return {"kind": type(error).__name__.lower(), "message": message}
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == path else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f" at line {line}" if line else ""
    return {"kind": "raised", "message": f"raised {type(error).__name__}{place}: {message}".rstrip(": ")}


def _guard(lifeline: int) -> None:
    """Leave a process behind that kills this whole group when the parent is gone, however it went.

    It is forked twice, so that the user's own `os.wait()` never sees it; a C loop that never releases the
    interpreter cannot stop it.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(lifeline)
        return
    if os.fork():
        os._exit(0)
    os.closerange(0, lifeline)
    os.closerange(lifeline + 1, 256)
    while True:
        with contextlib.suppress(InterruptedError):
            if not os.read(lifeline, 1):
                os.killpg(0, signal.SIGKILL)


def _limit_memory(size: int) -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _answer(function: Callable[..., Any], request: dict[str, Any], path: str) -> dict[str, Any]:
    with contextlib.suppress(Exception):
        faulthandler.dump_traceback_later(request["alarm"], file=2)
    try:
        if "state" in request:
            if "ids" in request:
                request["arguments"]["completion_ids"] = unpack_ids(request["ids"])
            return score(function, request["arguments"], request["state"])
        return {"value": run_function(function, request["arguments"])}
    except BaseException as error:
        return {"failure": describe(error, path)}
    finally:
        faulthandler.cancel_dump_traceback_later()


def _send(replies: int, reply: dict[str, Any]) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    data = memoryview((json.dumps(reply) + "\n").encode())
    while data:
        data = data[os.write(replies, data) :]


def main(settings: dict[str, Any]) -> None:
    """Load the function, say so, then answer one request after the other until the parent hangs up."""
    requests, replies, path = settings["requests"], settings["replies"], settings["path"]
    home = os.getpid()
    _guard(settings["lifeline"])
    for descriptor in (requests, replies):
        os.set_inheritable(descriptor, False)
    if settings["memory"]:
        _limit_memory(settings["memory"])
    try:
        function = load_function(path, settings["function"])
    except BaseException as error:
        _send(replies, {"failure": describe(error, path)})
        return
    _send(replies, {"ready": True})
    with os.fdopen(requests, "rb", buffering=1 << 20) as stream:
        for line in stream:
            reply = _answer(function, json.loads(line), path)
            if os.getpid() != home:  # a child that the user's function forked and let return
                os._exit(0)
            _send(replies, reply)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
