"""Several runs side by side: one table of what differs and what came out, and their curves in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from lineal.errors import RunError
from lineal.train.files import replace_file
from lineal.train.progress import show_seconds
from lineal.web.page import escape, page, show, table
from lineal.web.panels import comparison
from lineal.web.read import RunView
from lineal.web.report import Judged, headline

UNINFORMATIVE = ("out", "quiet", "save_every", "keep_last", "keep_every")
"""Options that change nothing about what is learned."""


def labels_of(runs: Sequence[RunView]) -> list[str]:
    """A short name for each run: its folder's, or its whole path where two folders share one."""
    names = [run.name for run in runs]
    return [str(run.path) if names.count(run.name) > 1 else run.name for run in runs]


def comparison_rows(runs: Sequence[RunView]) -> list[list[str]]:
    """What came out, then each option that is not the same in all of them: name, then a value per run."""
    rows = [["recipe", *(run.recipe for run in runs)], ["steps", *(show(run.step) for run in runs)]]
    found = [{judged.label: judged for judged in headline(run)} for run in runs]
    for label in dict.fromkeys(name for each in found for name in each):
        rows.append([label, *(_change(each.get(label)) for each in found)])
    errors = [run.last("eval/error") for run in runs]
    if any(error is not None for error in errors):
        rows.append(["± standard error", *(show(error and _short(error)) for error in errors)])
    spent = [math.fsum(run.values("step_time", "timing")) for run in runs]
    rows.append(["training time", *(show_seconds(seconds) if seconds else "–" for seconds in spent)])
    rows.append(["tokens sampled", *(show(t and int(t)) for t in (run.last("num_tokens") for run in runs))])
    return rows + _differences(runs)


def _change(judged: Judged | None) -> str:
    if judged is None:
        return "–"
    end = show(_short(judged.end))
    return end if judged.start is None else f"{show(_short(judged.start))} → {end}"


def _short(value: float) -> float:
    return round(value, 4)


def _differences(runs: Sequence[RunView]) -> list[list[str]]:
    names = dict.fromkeys(name for run in runs for group in run.options.values() for name in group)
    rows = []
    for name in names:
        values = [run.option(name) for run in runs]
        if name not in UNINFORMATIVE and any(value != values[0] for value in values):
            rows.append([f"--{name.replace('_', '-')}", *map(show, values)])
    return rows


def write_comparison(runs: Sequence[RunView], path: Path) -> Path:
    """Write the page of several runs; raises RunError when there is no room for it."""
    labels = labels_of(runs)
    body = (
        f'<header><p class="soft">lineal compare</p><h1>{escape(" · ".join(labels))}</h1></header>'
        f"<h2>Side by side</h2>{table(['', *labels], comparison_rows(runs), 'numbers')}"
        f"<h2>Curves</h2>{comparison(runs, labels)}"
        '<footer class="soft">One seed each tells little: better means several seeds, and a gain of at least two '
        "standard errors.</footer>"
    )
    try:
        replace_file(path, page("lineal compare", body).encode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): choose another --out.") from error
    return path
