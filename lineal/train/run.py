"""The run folder: what was asked for, what happened, and everything needed to go on from there.

::

    RUN/config.json      the resolved options, versions, device and threads
    RUN/metrics.jsonl    one line per step: what the run computed; equal for equal runs, bit for bit
    RUN/timing.jsonl     one line per step: how long it took
    RUN/samples.jsonl    completions with their rewards
    RUN/checkpoints/     step-N/, each verified by its manifest
    RUN/buffers/         the rollout being trained on, with its rewards
    RUN/refused/         batches of steps that were refused because they were not finite
    RUN/final/           the model folder
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from lineal.errors import CheckpointError, RunError
from lineal.train import files
from lineal.train.checkpoint import (
    STATE,
    TENSORS,
    Checkpoint,
    encode_state,
    load_checkpoint,
    load_newest,
    remove_orphans,
    save_checkpoint,
    steps,
    tensor_chunks,
)
from lineal.train.console import warn
from lineal.train.lock import Lock
from lineal.train.manifest import write_folder
from lineal.train.metrics import encode_line
from lineal.train.signals import StopSignals
from lineal.train.versions import changed_versions, versions

CONFIG = "config.json"
LOGS = ("metrics", "timing", "samples")


class Run:
    """A run folder, locked and open for writing; use it as a context manager.

    Make one with `Run.create` (new), `Run.open` (to resume) or `Run.follow` (a process that is not the first
    of its group: it reads checkpoints, and writes nothing).
    """

    def __init__(self, path: Path, record: Mapping[str, Any], lock: Lock | None) -> None:
        self.path = path
        self.record = dict(record)
        self.config: dict[str, Any] = self.record["config"]
        self.device: dict[str, Any] = self.record["device"]
        self.signals = StopSignals()
        self._lock = lock
        self._logs = {name: files.AppendFile(path / f"{name}.jsonl") for name in LOGS} if lock else {}

    @classmethod
    def create(
        cls,
        path: Path | str,
        config: Mapping[str, Any],
        *,
        device: Mapping[str, Any] | None = None,
        keep_last: int = 2,
        keep_every: int = 0,
    ) -> Run:
        """A new run in a folder that holds none yet.

        config: the resolved options, JSON values. device: what `Device.to_json` says, so that a resumed run
        uses the same dtype and threads. Raises RunError for a folder that is in use, holds a run, or cannot
        be written.
        """
        path = Path(path)
        record = _record(config, device, keep_last, keep_every)
        with _explained(path, "cannot be made"):
            files.make_folder(path)
        lock = Lock(path)
        try:
            if (path / CONFIG).exists():
                raise RunError(
                    f"{path} already holds a run: `lineal resume {path}` continues it; or choose another "
                    "--out."
                )
            with _explained(path, "cannot be written"):
                files.replace_file(path / CONFIG, json.dumps(record, indent=2).encode() + b"\n")
                return cls(path, record, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """An existing run, to resume it; raises RunError for a folder that is in use or holds no run.

        One line warns when Python, torch or lineal are not the versions that started it.
        """
        path = Path(path)
        record = read_record(path)
        run = cls(path, record, Lock(path))
        for change in changed_versions(record.get("versions", {})):
            warn(f"{path} was started with {change}: it goes on, but may not end bit-identical.")
        return run

    @classmethod
    def follow(
        cls, path: Path | str, config: Mapping[str, Any], device: Mapping[str, Any] | None = None
    ) -> Run:
        """The run as another process of the same group sees it: no lock, and every write is a no-op."""
        return cls(Path(path), _record(config, device, 2, 0), None)

    def __enter__(self) -> Run:
        self.signals.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.signals.__exit__()
        self.close()

    def close(self) -> None:
        """Close the files and release the lock; closing twice is harmless."""
        for log in self._logs.values():
            log.close()
        if self._lock:
            self._lock.release()

    def record_device(self, device: Mapping[str, Any]) -> None:
        """Write the choice of device, dtype and threads into config.json, for a resumed run to reuse."""
        self.device = self.record["device"] = dict(device)
        if self._lock:
            with _explained(self.path, "cannot be written"):
                files.replace_file(self.path / CONFIG, json.dumps(self.record, indent=2).encode() + b"\n")

    @property
    def final(self) -> Path:
        """Where the finished model goes."""
        return self.path / "final"

    @property
    def refused(self) -> Path:
        """Where `Guard` saves refused batches."""
        return self.path / "refused"

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl; nothing in it may depend on the clock: equal runs, equal files."""
        self._append("metrics", {"step": step, **metrics})

    def time(self, step: int, timings: Mapping[str, Any]) -> None:
        """Append a line to timing.jsonl, with the time of day."""
        self._append("timing", {"step": step, "time": round(time.time(), 3), **timings})

    def sample(self, step: int, record: Mapping[str, Any]) -> None:
        """Append a line to samples.jsonl."""
        self._append("samples", {"step": step, **record})

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        if name in self._logs:
            with _explained(self._logs[name].path, "cannot be written"):
                self._logs[name].append(encode_line(record))

    def checkpoint(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Save a checkpoint, with the length of each log at this moment; rollout buffers up to it are
        dropped.

        Raises CheckpointError when it cannot be written; the one before is then still there.
        """
        if not self._lock:
            return
        # A durable checkpoint must not speak of lines that a power cut could take away.
        with _explained(self.path, "cannot be written"):
            for log in self._logs.values():
                log.sync()
        whole = {"state": dict(state), "lengths": {name: log.length for name, log in self._logs.items()}}
        keep = self.record["keep"]
        save_checkpoint(self.checkpoints, step, tensors, whole, keep["last"], keep["every"])
        self._drop_buffers(step)

    def restore(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, the logs cut back to it; None means: start from nothing."""
        if self._lock:
            # The kill may have come after the last save, which would have been the next to tidy up.
            for folder in (self.checkpoints, self.path / "buffers"):
                remove_orphans(folder)
        found = load_newest(self.checkpoints, report=warn if self._lock else _silent)
        lengths = found.state["lengths"] if found else {}
        for name, log in self._logs.items():
            wanted = lengths.get(name, 0)
            if log.length < wanted:
                warn(
                    f"{log.path} is {wanted - log.length} bytes shorter than at step {found and found.step}."
                )
            with _explained(log.path, "cannot be cut"):
                log.cut(wanted)
        if found is None:
            return None
        return Checkpoint(found.step, found.tensors, found.state["state"], found.path)

    def save_buffer(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> bool:
        """Keep the complete rollout of a step, so that a kill during its update does not sample it again.

        False, with a warning, when it could not be written: it can be sampled again, so training goes on.
        """
        if not self._lock:
            return False
        folder = self.path / "buffers"
        contents = {TENSORS: tensor_chunks(tensors), STATE: [encode_state(state)]}
        try:
            files.make_folder(folder, durable=False)
            self._drop_buffers(step - 1)
            # Not synced: a kill cannot take it, and after a power cut it shows as damaged and is sampled again.
            write_folder(folder / f"step-{step}", contents, {"step": step}, durable=False)
        except OSError as error:
            warn(f"the rollout of step {step} could not be saved ({error.strerror}); training goes on.")
            return False
        return True

    def load_buffer(self, step: int) -> Checkpoint | None:
        """The rollout saved for a step, or None; a damaged one is named, and sampled again by the caller."""
        path = self.path / "buffers" / f"step-{step}"
        if not path.is_dir():
            return None
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error} It will be sampled again.")
            return None

    def _drop_buffers(self, upto: int) -> None:
        folder = self.path / "buffers"
        for step in steps(folder):
            if step <= upto:
                with suppress(OSError):
                    files.remove_folder(folder / f"step-{step}")
        remove_orphans(folder)

    @contextmanager
    def final_folder(self) -> Iterator[Path]:
        """A folder to write the finished model into; it becomes `final/` if the block ends without error."""
        temporary = self.path / "final.tmp"
        with _explained(self.final, "cannot be written"):
            shutil.rmtree(temporary, ignore_errors=True)
            files.make_folder(temporary)
            yield temporary
            files.sync_tree(temporary)
            if self.final.exists():
                files.remove_folder(self.final)
            files.rename_folder(temporary, self.final)

    @property
    def stop_requested(self) -> bool:
        """True once SIGINT or SIGTERM arrived: checkpoint at the next safe point, then call `exit`."""
        return self.signals.received is not None

    def exit(self) -> NoReturn:
        """Leave after a stop request, with exit code 130 (SIGINT) or 143 (SIGTERM)."""
        raise SystemExit(self.signals.exit_code)


def _silent(_: str) -> None:
    """The first process of a group has said it already."""


def read_record(path: Path) -> dict[str, Any]:
    """What config.json says: config, device, versions, created, keep; RunError when there is no run."""
    file = path / CONFIG
    if not file.is_file():
        raise RunError(
            f"{path} holds no run (no {CONFIG}): nothing was trained there. Start one with `lineal run`."
        )
    try:
        record = json.loads(file.read_bytes())
        _ = record["config"], record["device"], record["keep"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is not what a run writes ({type(error).__name__}: {error}).") from error
    return record


def _record(
    config: Mapping[str, Any], device: Mapping[str, Any] | None, keep_last: int, keep_every: int
) -> dict[str, Any]:
    return {
        "config": dict(config),
        "device": dict(device or {}),
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "keep": {"last": keep_last, "every": keep_every},
    }


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """A system error inside becomes one line that names the file, the reason and what is not lost."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} {what} ({error.strerror or error}). What was saved before is untouched: free some space "
            "or fix the folder's permissions, then resume."
        ) from error
