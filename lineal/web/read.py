"""A run folder as someone sees it from outside: tolerant, read-only, without torch.

A run that is being written, was killed, or has a damaged line is still shown, as far as it can be read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineal.errors import RunError
from lineal.train.lock import lock_owner

Record = dict[str, Any]


@dataclass(frozen=True)
class RunView:
    """What a run folder says.

    recipe, options: what was asked for (options by group, as in the configuration). record: all of config.json.
    metrics, timing, samples: the lines of the logs. damaged: lines that could not be read.
    """

    path: Path
    recipe: str
    options: Mapping[str, Mapping[str, Any]]
    record: Record
    metrics: list[Record] = field(default_factory=list)
    timing: list[Record] = field(default_factory=list)
    samples: list[Record] = field(default_factory=list)
    damaged: int = 0

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def step(self) -> int:
        """The last step that was logged; 0 when none was."""
        return max((int(line["step"]) for line in self.metrics), default=0)

    @property
    def state(self) -> str:
        """running, done, stopped (`lineal resume` goes on), or empty (nothing was saved)."""
        if lock_owner(self.path) is not None:
            return "running"
        if (self.path / "final").is_dir():
            return "done"
        saved = any(p.is_dir() and p.suffix != ".tmp" for p in (self.path / "checkpoints").glob("step-*"))
        return "stopped" if saved else "empty"

    def option(self, name: str) -> Any:
        """An option by its name, in whichever group has it; None when there is none."""
        return next((group[name] for group in self.options.values() if name in group), None)

    def names(self) -> list[str]:
        """The names of all numbers in metrics.jsonl, in the order they first appear."""
        seen: dict[str, None] = {}
        for line in self.metrics:
            seen |= {name: None for name, value in line.items() if _number(value)}
        seen.pop("step", None)
        return list(seen)

    def series(self, name: str, log: str = "metrics") -> tuple[tuple[float, float], ...]:
        """The (step, value) pairs of one number, nan where it was not finite."""
        lines: list[Record] = getattr(self, log)
        return tuple((float(line["step"]), float(line[name])) for line in lines if _number(line.get(name)))

    def values(self, name: str, log: str = "metrics") -> list[float]:
        """The finite values of one number."""
        return [value for _, value in self.series(name, log) if math.isfinite(value)]

    def first(self, name: str) -> float | None:
        """Its first finite value."""
        return next(iter(self.values(name)), None)

    def last(self, name: str) -> float | None:
        """Its last finite value."""
        return next(reversed(self.values(name)), None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_run(path: Path | str) -> RunView:
    """Read a run folder; raises RunError for a folder that holds no run."""
    path = Path(path)
    file = path / "config.json"
    try:
        record = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise RunError(
            f"{path} holds no run (no config.json); lineal list shows the runs there are."
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({error}).") from error
    asked = record.get("config") if isinstance(record, dict) else None
    if not isinstance(asked, dict) or not isinstance(asked.get("recipe"), str):
        raise RunError(f"{file} is not a run's: it names no recipe. A model folder is no run.")
    groups = asked.get("options")
    options = {k: v for k, v in groups.items() if isinstance(v, dict)} if isinstance(groups, dict) else {}
    logs, damaged = {}, 0
    for name in ("metrics", "timing", "samples"):
        logs[name], bad = read_log(path / f"{name}.jsonl")
        damaged += bad
    return RunView(path, asked["recipe"], options, record, **logs, damaged=damaged)


def read_log(path: Path) -> tuple[list[Record], int]:
    """The lines of a .jsonl log that can be read, and how many cannot; a missing file has none.

    null stands for a number that was not finite where the line says so. A last line that has no end yet is left out.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return [], 0
    records, damaged = [], 0
    for line in lines:
        try:
            record = json.loads(line)
            _ = int(record["step"])
        except (ValueError, TypeError, KeyError, RecursionError):
            damaged += 1
            continue
        if record.pop("non_finite", False):
            record = {name: math.nan if value is None else value for name, value in record.items()}
        records.append(record)
    return records, damaged


def find_runs(folder: Path | str) -> list[RunView]:
    """The runs in a folder (or the folder itself, when it is one), oldest first; others are passed over."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    runs = []
    for path in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        try:
            runs.append(read_run(path))
        except RunError:
            continue
    return sorted(runs, key=lambda run: str(run.record.get("created", "")))
