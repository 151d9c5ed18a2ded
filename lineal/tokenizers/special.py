"""Splitting text at the written forms of special tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def encode_with_special(
    text: str, special: Mapping[str, int], encode: Callable[[str], list[int]], pattern: re.Pattern[str]
) -> list[int]:
    """Ids of a text in which the written form of a special token stands for that token."""
    if pattern.search(text) is None:
        return encode(text)
    ids: list[int] = []
    for part in pattern.split(text):
        if part in special:
            ids.append(special[part])
        elif part:
            ids.extend(encode(part))
    return ids


def special_pattern(special: Mapping[str, int]) -> re.Pattern[str]:
    """A pattern that matches the special tokens, longest first, and keeps them when splitting."""
    return re.compile("(" + "|".join(re.escape(t) for t in sorted(special, key=len, reverse=True)) + ")")
