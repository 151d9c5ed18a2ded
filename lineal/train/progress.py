"""What the user watches: a live bar in a terminal, plain lines anywhere else.

The bar shows steps done, rate, time left, a sparkline of the headline number, and the latest sample.
Completions are hostile text: control codes are removed and markup is never interpreted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from io import TextIOBase
from typing import TYPE_CHECKING, Any, TextIO

from lineal.train.console import clean
from lineal.train.metrics import sparkline

if TYPE_CHECKING:
    from rich.console import Group

SECONDS = 5.0
"""Between plain lines."""
REFRESH = 0.1
"""Seconds between two drawings of the live bar."""
SMOOTH = 0.1
"""Weight of the newest step in the rate."""


class Progress:
    """Progress of a run from step `start` to `total`; use it as a context manager and call `update` after
    each step.

    show: names of metrics to print, the first being the headline with its sparkline. stream: where to
    (default: standard error). live: draw a bar (default: when the stream is a terminal that can). every:
    seconds between plain lines. seconds: the run ends by then in any case (0: no limit).
    """

    def __init__(
        self,
        total: int,
        show: Sequence[str],
        *,
        start: int = 0,
        stream: TextIO | TextIOBase | None = None,
        live: bool | None = None,
        every: float | int = SECONDS,
        seconds: float | int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.show, self.done, self.every = total, tuple(show), start, every
        self.seconds = seconds
        self._stream: Any = stream or sys.stderr
        self._clock = clock
        self._live = _can_draw(self._stream) if live is None else live
        self._display: Any = None
        self._history: list[float] = []
        self._metrics: Mapping[str, Any] = {}
        self._sample = ""
        self._spacing = 0.0
        self._steps_seen = 0
        self._last_step = self._began = clock()
        self._last_shown = float("-inf")

    def __enter__(self) -> Progress:
        if self._live:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, force_terminal=True)
            self._display = Live(console=console, auto_refresh=False, transient=False)
            self._display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.update(self._panel(), refresh=True)
            self._display.__exit__(None, None, None)
            self._display = None

    def update(self, done: int, metrics: Mapping[str, Any], sample: str | None = None) -> None:
        """Say that `done` steps are done. sample: a completion to show, cleaned here."""
        now = self._clock()
        spacing = (now - self._last_step) / max(1, done - self.done)
        # The first step includes warm-up, so the second replaces it.
        self._steps_seen += 1
        weight = 1.0 if self._steps_seen <= 2 else SMOOTH
        self._spacing += weight * (spacing - self._spacing)
        self.done, self._last_step, self._metrics = done, now, metrics
        value = metrics.get(self.show[0]) if self.show else None
        if isinstance(value, int | float):
            self._history.append(float(value))
        if sample is not None:
            self._sample = clean(sample, 500)
        final = done >= self.total
        if self._display is not None:
            if final or now - self._last_shown >= REFRESH:
                self._last_shown = now
                self._display.update(self._panel(), refresh=True)
        elif final or now - self._last_shown >= self.every:
            self._last_shown = now
            print(self.line(), file=self._stream, flush=True)

    def line(self) -> str:
        """The plain line: `step 12/100  reward 0.431  kl 0.0012  1.9 steps/s  0:46 left`."""
        parts = [f"step {self.done}/{self.total}"]
        parts += [f"{name} {show_number(self._metrics[name])}" for name in self.show if name in self._metrics]
        return "  ".join(parts + self._pace())

    def _pace(self) -> list[str]:
        if not self._spacing:
            return []
        rate = 1 / self._spacing
        pace = f"{rate:.3g} steps/s" if rate >= 1 else f"{self._spacing:.3g} s/step"
        left = (self.total - self.done) * self._spacing
        if self.seconds:
            left = min(left, self.seconds - (self._clock() - self._began))
        return [pace, f"{show_seconds(left)} left" if self.done < self.total else self._elapsed()]

    def _elapsed(self) -> str:
        return f"{show_seconds(self._clock() - self._began)} in all"

    def _panel(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        # Text, not str: a str would be read as markup.
        top = Table.grid(padding=(0, 1))
        top.add_row(ProgressBar(total=max(1, self.total), completed=self.done, width=24), Text(self.line()))
        rows: list[Any] = [top]
        if self._history:
            rows.append(Text(f"{self.show[0]} {sparkline(self._history, 48)}"))
        if self._sample:
            rows.append(Text(self._sample, no_wrap=True, overflow="ellipsis", style="dim"))
        return Group(*rows)


def _can_draw(stream: Any) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def show_number(value: Any) -> str:
    """A number in four significant digits, nan as nan."""
    return f"{value:.4g}" if isinstance(value, float) else clean(str(value), 40)


def show_seconds(seconds: float | int) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
