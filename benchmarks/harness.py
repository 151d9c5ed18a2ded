"""What every benchmark shares: one JSON line per figure, the exit code, and the saved result.

    python benchmarks/NAME.py [--json] [--save]

prints, with --json, `{"figure", "ours", "peer", "ratio", "unit", "bar", "ok", "seeds"}` for each figure, and plain lines
without; it exits 0 when every figure is ok, else 1. --save writes the figures with date, commit, machine and
versions to benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

# tokenizers.py, beside this file, must not stand in for the library of that name; no other file here is imported.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    figure: what was measured. ours, peer: the two values (peer None where there is none). unit: of both.
    bar: what it must show, in words. ok: whether it does. ratio: ours / peer unless given.
    seeds: the seeds behind a trained figure. details: whatever else should be read beside it.
    """

    figure: str
    ours: float
    peer: float | None = None
    unit: str = ""
    bar: str = ""
    ok: bool = True
    ratio: float | None = None
    seeds: tuple[int, ...] = ()
    details: dict[str, Any] | None = None

    def line(self) -> dict[str, Any]:
        """The figure as the JSON object that is printed and saved."""
        ratio = self.ratio
        if ratio is None and self.peer:
            ratio = self.ours / self.peer
        return {
            "figure": self.figure,
            "ours": _rounded(self.ours),
            "peer": _rounded(self.peer),
            "ratio": _rounded(ratio),
            "unit": self.unit,
            "bar": self.bar,
            "ok": bool(self.ok),
            "seeds": list(self.seeds),
            **({"details": self.details} if self.details else {}),
        }


def main(
    name: str,
    measure: Callable[[argparse.Namespace], Iterable[Figure]],
    options: Callable[[argparse.ArgumentParser], Any] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Measure, print each figure as soon as it is there, and save it if asked to; the exit code.

    options: adds the benchmark's own arguments to the parser; `measure` gets them parsed.
    """
    parser = argparse.ArgumentParser(
        prog=f"benchmarks/{name}.py", description=sys.modules["__main__"].__doc__
    )
    parser.add_argument("--json", action="store_true", help="one JSON line per figure")
    parser.add_argument("--save", action="store_true", help=f"write benchmarks/results/{name}.json")
    if options is not None:
        options(parser)
    arguments = parser.parse_args(argv)
    lines = []
    for figure in measure(arguments):
        lines.append(figure.line())
        print(json.dumps(lines[-1]) if arguments.json else _sentence(lines[-1]), flush=True)
        lines[-1]["measured"] = now()
        if arguments.save:
            save(name, lines, vars(arguments), whole=False)
    if arguments.save:
        save(name, lines, vars(arguments))
    return 0 if lines and all(line["ok"] for line in lines) else 1


def save(
    name: str, lines: list[dict[str, Any]], arguments: dict[str, Any] | None = None, whole: bool = True
) -> Path:
    """Write figures to benchmarks/results/NAME.json, with where and when they were measured.

    Of --only some, or while they are not the whole, the other figures of the file stay as they were measured.
    """
    RESULTS.mkdir(exist_ok=True)
    options = {k: v for k, v in (arguments or {}).items() if k not in ("json", "save", "cells")}
    path, here = RESULTS / f"{name}.json", environment()
    if (options.get("only") or not whole) and path.exists():
        fresh, before = {line["figure"]: line for line in lines}, json.loads(path.read_text())
        old = [{"measured": before["date"], **line} for line in before["figures"]]
        lines = [fresh.pop(line["figure"], line) for line in old] + list(fresh.values())
    found = {"benchmark": name, **here, "options": options, "figures": lines}
    path.write_text(json.dumps(found, indent=2, default=str) + "\n")
    return path


def now() -> str:
    """The time, to a second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Date, commit, machine and versions."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "transformers", "trl", "lineal"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": now(),
        "commit": _commit(),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": versions,
    }


def interleaved(
    functions: dict[str, Callable[[], Any]], rounds: int, warm: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, the functions taking turns, so that a busy moment hits them alike.

    warm: calls of each before the first is timed.
    """
    for function in functions.values():
        for _ in range(warm):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def lineal(*words: str) -> None:
    """One command of the package in a process of its own, on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lineal", *words]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment)


@dataclass(frozen=True)
class Cell:
    """One training of a grid: an ordinary run of a recipe. options: words with values; switches: words without."""

    folder: Path
    recipe: str
    options: dict[str, str]
    switches: tuple[str, ...] = ()

    def run(self) -> Path:
        """Run it unless it is finished; resume it when it was interrupted. The folder."""
        if (self.folder / "final").exists():
            return self.folder
        if (self.folder / "config.json").exists():
            lineal("resume", str(self.folder))
        else:
            words = [word for pair in self.options.items() for word in pair]
            lineal("run", self.recipe, "--out", str(self.folder), "--quiet", *words, *self.switches)
        return self.folder


def run_cells(cells: Sequence[Cell], jobs: int = 1) -> list[Path]:
    """Every cell's folder, `jobs` of them running at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(Cell.run, cells))


def data() -> Path:
    """The folder of public data sets."""
    return Path(os.environ.get("LINEAL_TEST_DATA", "../shared/data"))


def text(name: str) -> str:
    """A text of the data sets, unzipped where it is."""
    path = data() / name
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")


def shakespeare() -> Path:
    """The text of tiny Shakespeare among the data sets."""
    return data() / "tinyshakespeare" / "input.txt"


def write_once(path: Path, content: str) -> Path:
    """A file, whole or not at all, unless it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(content)
        part.replace(path)
    return path


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    """Rows as JSONL, unless the file is there; its name."""
    return str(write_once(path, "".join(json.dumps(row) + "\n" for row in rows)))


def final(run: Path) -> dict[str, Any]:
    """The figures of a run's final evaluation."""
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    (found,) = [line for line in lines if line.get("eval/final")]
    return found


def accuracy(run: Path) -> float:
    """Of a run's final evaluation, in per cent."""
    return 100 * final(run)["eval/accuracy"]


@dataclass(frozen=True)
class Tuning:
    """Fine-tunings of a model on one task: `rows` of those to train on, chosen by each seed, and those to be judged by.

    options: of all of them. methods: what each method adds, as options and switches.
    """

    name: str
    train: Sequence[dict[str, Any]]
    judged: Sequence[dict[str, Any]]
    rows: int
    options: dict[str, str]
    methods: dict[str, tuple[dict[str, str], tuple[str, ...]]]

    def reached(self, folder: Path, seeds: Iterable[int], jobs: int) -> dict[str, list[float]]:
        """Accuracy by method, in the order of the seeds; cells that are done are not run again."""
        todo = self.cells(folder, seeds)
        found: dict[str, list[float]] = {method: [] for method in self.methods}
        for (method, _), run in zip(todo, run_cells(list(todo.values()), jobs), strict=True):
            found[method].append(accuracy(run))
        return found

    def cells(self, folder: Path, seeds: Iterable[int]) -> dict[tuple[str, int], Cell]:
        """By method and seed; a seed chooses rows, order and head alike for all methods."""
        found = {}
        name = self.name.partition(",")[0].replace(" ", "-")
        held = write_rows(folder / "data" / f"{name}-judged.jsonl", self.judged)
        for seed in seeds:
            chosen = random.Random(seed).sample(self.train, min(self.rows, len(self.train)))
            data = write_rows(folder / "data" / f"{name}-{seed}.jsonl", chosen)
            for method, (options, switches) in self.methods.items():
                own = {"--data": data, "--eval-data": held, "--seed": str(seed), "--threads": "1"}
                place = folder / f"{name}-{method.replace(' ', '-')}-{seed}"
                found[method, seed] = Cell(place, "finetune", {**own, **self.options, **options}, switches)
        return found


def gain(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Mean of paired differences, and its standard error."""
    each = [x - y for x, y in zip(a, b, strict=True)]
    return statistics.mean(each), statistics.stdev(each) / math.sqrt(len(each))


def compared(name: str, by_method: dict[str, list[float]], seeds: Iterable[int], bar: str = "") -> Figure:
    """The first method beside the second, and its gain over every other one, seed by seed; ok where there is no bar, or the
    gain over the second is 2 standard errors or more."""
    (first, ours), (_, peer), *_ = by_method.items()
    gains = {other: gain(ours, values) for other, values in by_method.items() if other != first}
    (mean, error), *_ = gains.values()
    details = {f"gain over {other}": f"{m:+.2f} ± {e:.2f}" for other, (m, e) in gains.items()}
    values = {method: [round(value, 2) for value in each] for method, each in by_method.items()}
    ok = not bar or (mean > 0 and mean >= 2 * error)
    return Figure(
        f"{name}: accuracy, fine-tuned beside from scratch", statistics.mean(ours), statistics.mean(peer), "%", bar, ok,
        seeds=tuple(seeds), details={**details, **values},
    )  # fmt: skip


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _sentence(line: dict[str, Any]) -> str:
    peer = "" if line["peer"] is None else f", peer {line['peer']:g}"
    ratio = "" if line["ratio"] is None else f", ratio {line['ratio']:.3g}"
    bar = f"  (bar: {line['bar']})" if line["bar"] else ""
    return f"{'ok  ' if line['ok'] else 'MISS'} {line['figure']}: {line['ours']:g}{peer} {line['unit']}{ratio}{bar}"


def _commit() -> str | None:
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
