"""What the user sees: honest numbers, a bar in terminals, plain lines elsewhere, and no control by completions."""

from __future__ import annotations

import io
import re

import pytest

from lineal.train.progress import Progress, show_number, show_seconds


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(total: int = 10, **options):
    clock, stream = Clock(), options.pop("stream", io.StringIO())
    return Progress(total, ("reward", "kl"), stream=stream, clock=clock, **options), clock, stream


def test_plain_lines_every_few_seconds_and_at_both_ends():
    bar, clock, stream = progress(20, every=5.0)
    with bar:
        for step in range(1, 21):
            clock.now += 1
            bar.update(step, {"reward": step / 20, "other": 1})
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"step {n}/20" for n in (1, 6, 11, 16, 20)]
    assert lines[1] == "step 6/20  reward 0.3  1 steps/s  0:14 left"
    assert lines[-1] == "step 20/20  reward 1  1 steps/s  0:20 in all"


def test_metrics_come_in_their_order_and_nan_shows():
    bar, clock, stream = progress(2)
    clock.now += 4
    bar.update(1, {"kl": float("nan"), "reward": 0.123456})
    assert stream.getvalue() == "step 1/2  reward 0.1235  kl nan  4 s/step  0:04 left\n"


def test_the_first_step_does_not_spoil_the_rate():
    bar, clock, _ = progress(100)
    for spacing in (60.0, 1.0, 1.0):
        clock.now += spacing
        bar.update(bar.done + 1, {})
    assert "1 steps/s  1:37 left" in bar.line()


def test_a_resumed_run_counts_from_where_it_began():
    bar, clock, _ = progress(100, start=90)
    clock.now += 2
    bar.update(91, {})
    assert bar.line() == "step 91/100  2 s/step  0:18 left"


def test_a_bar_is_drawn_in_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    bar, clock, stream = progress(stream=Terminal())
    with bar:
        for step in range(1, 11):
            clock.now += 1
            bar.update(
                step, {"reward": step / 10}, sample="12+30=\x1b[2J42 [bold red]x[/bold red]\nsecond\rline"
            )
    drawn = stream.getvalue()
    assert "━" in drawn and "step 10/10" in drawn and "reward ▁▂▃▃▄▅▆▆▇█" in drawn
    assert "[bold red]x[/bold red]" in drawn, "markup is shown, not obeyed"
    assert "12+30=42" in drawn and "\x1b[2J" not in drawn and "second\rline" not in drawn
    assert drawn.endswith("\n") or "\x1b[?25h" in drawn, "the cursor is given back"


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_only_able_terminals_get_a_bar(monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    bar, clock, stream = progress(stream=Terminal())
    with bar:
        clock.now += 1
        bar.update(1, {"reward": 0.5})
    assert ("\x1b" in stream.getvalue()) == (term == "xterm")


def test_drawing_is_not_more_frequent_than_eyes_need(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    bar, clock, stream = progress(1000, live=True)
    with bar:
        for step in range(1, 501):
            clock.now += 0.001
            bar.update(step, {"reward": 0.5})
    assert len(re.findall(r"step \d+/1000", stream.getvalue())) < 12


def test_hostile_metric_values_are_cleaned():
    assert show_number("\x1b[31mx") == "x"
    assert (
        show_number(3) == "3"
        and show_number(0.00012346) == "0.0001235"
        and show_number(float("inf")) == "inf"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (86399, "23:59:59"), (-1, "0:00")],
)
def test_durations(seconds, shown):
    assert show_seconds(seconds) == shown


def test_a_time_limit_is_what_is_left_when_it_comes_first():
    bar, clock, _ = progress(1000, seconds=60)
    for _ in range(2):
        clock.now += 1
        bar.update(bar.done + 1, {})
    assert "0:58 left" in bar.line()
