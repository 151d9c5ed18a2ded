"""The format reward; it runs in a worker, because a regular expression can take exponential time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def matches(completions: Sequence[Any], pattern: str) -> list[float | None]:
    """1 where the whole completion matches the regular expression (`.` matches line ends too), else 0."""
    compiled = re.compile(pattern, re.DOTALL)
    texts = [c if isinstance(c, str) else "".join(m.get("content") or "" for m in c) for c in completions]
    return [float(compiled.fullmatch(text) is not None) for text in texts]
