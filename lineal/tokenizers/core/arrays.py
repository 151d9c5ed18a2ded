"""Flat arrays for compiled cores."""

from __future__ import annotations

from array import array
from mmap import mmap
from typing import Any


def filled(kind: str, size: int, value: int = 0) -> memoryview:
    """An array of `size` times one value; kind is its type as `array` names it."""
    return memoryview(array(kind, [value]) * size)


def untouched(kind: Any, size: int) -> memoryview:
    """An array of zeros, `size` bytes, that takes no memory where nobody writes."""
    return memoryview(mmap(-1, size)).cast(kind)


def grown(kind: str, old: Any, size: int) -> memoryview:
    """A longer array that begins like the old one."""
    new = filled(kind, size)
    begin = memoryview(old)
    new[: len(begin)] = begin
    return new


def power(least: int) -> int:
    """The power of two that is at least this, and at least 2."""
    return 1 << max(least - 1, 1).bit_length()
