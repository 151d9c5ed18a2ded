"""Hostile text cannot control a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.train.console import clean, note, warn


@given(st.text())
def test_nothing_that_controls_survives(text):
    shown = clean(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown if c not in SOFT)
    shown.encode("utf-8")


SOFT = {c for n in range(0x110000) if unicodedata.category(c := chr(n)) == "Cf" and clean(c) == c}
"""Format characters that change no direction and hide nothing, such as the soft hyphen."""


def test_bidirectional_overrides_are_not_soft():
    assert not SOFT & set("\u200e\u200f\u202a\u202e\u2066\u2069\u2028\ufeff\u200b")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain né 猫 😀", "plain né 猫 😀"),
        ("a\nb\r\nc\td", "a⏎b⏎c d"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice\x1b\\x", "x"),
        ("\x9b31mred", "red"),
        ("a\x00b\x08c\x7f", "a\ufffdb\ufffdc\ufffd"),
        ("\u202eevil", "\ufffdevil"),
        ("half \ud800", "half \ufffd"),
        ("over\rwrite", "over\ufffdwrite"),
        ("[bold]kept[/bold]", "[bold]kept[/bold]"),
    ],
)
def test_what_is_shown(text, shown):
    assert clean(text) == shown


def test_long_text_is_cut():
    assert clean("abcdef", 4) == "abc…" and clean("abcd", 4) == "abcd"


def test_lines_go_to_standard_error(capsys):
    warn("a\nb\x1b[31m")
    note("c")
    captured = capsys.readouterr()
    assert captured.err == "warning: a⏎b\nc\n" and captured.out == ""
