"""What happens to rewards after the reward functions: the overlong penalty, and the shuffled control."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lineal.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class SoftOverlong:
    """Soft overlong penalty of DAPO (arXiv 2503.14476, eq. 13), added to a completion's reward.

    0 while |y| <= L - c, then ((L - c) - |y|) / c, and -1 beyond L, with L = `limit` and c = `buffer` tokens;
    |y| counts token ids, the end-of-text token included.
    Raises UsageError unless 0 < buffer <= limit.
    """

    limit: int
    buffer: int

    def __post_init__(self) -> None:
        if not 0 < self.buffer <= self.limit:
            raise UsageError(
                f"an overlong buffer of {self.buffer} tokens does not fit completions of at most "
                f"{self.limit}: choose --overlong-buffer between 1 and {self.limit}, or 0 to turn it off."
            )

    def __call__(self, length: int) -> float:
        """The penalty of a completion of `length` tokens, in [-1, 0]."""
        start = self.limit - self.buffer
        if length <= start:
            return 0.0
        if length > self.limit:
            return -1.0
        return (start - length) / self.buffer

    def __str__(self) -> str:
        return f"overlong(L={self.limit}, c={self.buffer})"


def shuffle_rewards(rewards: Sequence[T], seed: int, step: int) -> list[T]:
    """The same rewards, reordered by (seed, step) alone: a control from which nothing can be learned."""

    def place(index: int) -> bytes:
        return hashlib.blake2b(f"shuffle {seed} {step} {index}".encode(), digest_size=8).digest()

    return [rewards[index] for index in sorted(range(len(rewards)), key=place)]
