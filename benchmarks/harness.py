"""How every benchmark prints and saves its figures: one JSON line each, exit 0 when all bars are met."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured figure: ours, the peer's (None without one), their ratio, and whether the bar is met."""

    figure: str
    ours: float
    peer: float | None
    unit: str
    bar: str
    ok: bool
    seeds: list[Any] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """As it is printed."""
        ratio = None if not self.peer else self.ours / self.peer
        return {
            "figure": self.figure, "ours": self.ours, "peer": self.peer, "ratio": ratio, "unit": self.unit,
            "bar": self.bar, "ok": self.ok, "seeds": self.seeds, **({"details": self.details} if self.details else {}),
        }  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """--json and --save, which every benchmark has."""
    parser.add_argument("--json", action="store_true", help="one JSON line per figure")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/NAME.json")


def report(name: str, figures: Iterable[Figure], arguments: argparse.Namespace) -> int:
    """Print each figure as it comes, save them when asked, and say whether all bars are met."""
    lines = []
    for figure in figures:
        line = figure.line()
        lines.append(line)
        text = json.dumps(line) if arguments.json else _plain(line)
        print(text, flush=True)
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps({**_where(), "figures": lines}, indent=1) + "\n")
    return 0 if lines and all(line["ok"] for line in lines) else 1


def _plain(line: dict[str, Any]) -> str:
    ratio = "" if line["ratio"] is None else f" ({line['ratio']:.2f}x of {line['peer']:.4g})"
    return f"{'ok  ' if line['ok'] else 'MISS'} {line['figure']:36} {line['ours']:.4g} {line['unit']}{ratio}; bar: {line['bar']}"


def _where() -> dict[str, Any]:
    import numpy
    import torch

    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {
        "date": time.strftime("%Y-%m-%d"), "commit": git.stdout.strip(), "command": " ".join(sys.argv),
        "machine": machine, "versions": versions,
    }  # fmt: skip
