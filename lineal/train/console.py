"""Text that is safe to show: completions and data are hostile, terminals obey control codes."""

from __future__ import annotations

import os
import re
import sys

# C0 and C1 controls, and the characters that reorder or hide what surrounds them.
UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])?|\x9b[0-?]*[ -/]*[@-~]"
)


def clean(text: str, width: int | None = None) -> str:
    """The text on one line without terminal control: escapes removed, line ends shown as ⏎, other controls as
    �.

    width: longest result; a longer one ends in ….
    """
    text = ESCAPES.sub("", text).replace("\r\n", "\n").replace("\n", "⏎").replace("\t", " ")
    text = UNSAFE.sub("\ufffd", text)
    if width is not None and len(text) > width:
        text = text[: max(0, width - 1)] + "…"
    return text


def warn(message: str) -> None:
    """One warning line on standard error; among several processes it says whose."""
    who = f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    print(f"warning: {who}{clean(message)}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """One line of information on standard error; of several processes only the first gives it."""
    if os.environ.get("RANK", "0") == "0":
        print(clean(message), file=sys.stderr, flush=True)
