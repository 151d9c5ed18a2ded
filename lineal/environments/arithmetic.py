"""The embedded task: sums and differences that generate themselves, so that a first run needs no data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from lineal.environments.text import Example, TextTask, share
from lineal.errors import UsageError

LEVELS = (1, 2, 3)
SAMPLED_PAIRS = 20_000
"""Pairs per operator that level 3 uses of its 500,500."""


@dataclass(frozen=True)
class Arithmetic:
    """`dd+dd=` and `dd-dd=` (never below zero), operands zero-padded, answered least significant digit first.

    level: digits of the operands; level 1 has sums only, level 3 a fixed sample of all pairs. natural:
    answers most significant digit first instead, which is much harder to learn left to right. held_out,
    validation: shares, chosen by a hash of the unordered pair and the operator, so that a+b and b+a are on
    the same side. A sum has two orders and a difference one, so training lists each difference twice: both
    operators are met equally often. (Met half as often, differences are hardly begun when sums are half
    right, and reinforcement then settles on wrong answers that are never explored again.)
    """

    level: int = 2
    natural: bool = False
    held_out: float = 0.10
    validation: float = 0.03

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise UsageError(f"--level {self.level} is not one of {', '.join(map(str, LEVELS))}.")
        if self.held_out < 0 or self.validation < 0 or self.held_out + self.validation >= 1:
            raise UsageError(
                f"shares of {self.held_out:g} held-out and {self.validation:g} validation prompts leave none "
                "to train on: their sum must be below 1."
            )

    def __call__(self) -> TextTask:
        """The task; the same for the same numbers, always."""
        parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
        for operator, low, high in self._pairs():
            place = share(f"arithmetic {operator} {low} {high}")
            part = 2 if place < self.held_out else 1 if place < self.held_out + self.validation else 0
            parts[part].append(self.example(operator, high, low))
            if operator == "+" and low != high:
                parts[part].append(self.example(operator, low, high))
            elif part == 0 and low != high:
                parts[part].append(self.example(operator, high, low))
        longest = max(len(e.completion) for part in parts for e in part)
        train, validation, held_out = (tuple(part) for part in parts)
        return TextTask(
            f"arithmetic-{self.level}{'-natural' if self.natural else ''}",
            train,
            validation,
            held_out,
            max_new_tokens=longest + 1,
            alphabet="0123456789+-=" if self.level > 1 else "0123456789+=",
        )

    def example(self, operator: str, a: int, b: int) -> Example:
        """The prompt of `a operator b` with its answer; columns: answer, operator, value (the result)."""
        value = a + b if operator == "+" else a - b
        answer = str(value) if self.natural else str(value)[::-1]
        prompt = f"{a:0{self.level}d}{operator}{b:0{self.level}d}="
        return Example(prompt, {"answer": answer, "operator": operator, "value": value}, answer)

    def _pairs(self) -> Iterator[tuple[str, int, int]]:
        """(operator, low, high) with low <= high."""
        size = 10**self.level
        for operator in "+" if self.level == 1 else "+-":
            if self.level < 3:
                for low in range(size):
                    for high in range(low, size):
                        yield operator, low, high
            else:
                yield from self._sampled(operator, size)

    def _sampled(self, operator: str, size: int) -> Iterator[tuple[str, int, int]]:
        seen: set[tuple[int, int]] = set()
        counter = 0
        while len(seen) < SAMPLED_PAIRS:
            digest = hashlib.blake2b(f"pair {operator} {counter}".encode(), digest_size=16).digest()
            a, b = (int.from_bytes(half, "big") % size for half in (digest[:8], digest[8:]))
            counter += 1
            pair = (min(a, b), max(a, b))
            if pair not in seen:
                seen.add(pair)
                yield operator, *pair


def arithmetic_task(level: int = 2, *, natural: bool = False) -> TextTask:
    """The embedded task of a level, with its default split."""
    return Arithmetic(level=level, natural=natural)()
