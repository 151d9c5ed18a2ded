"""Cutting and filling up sequences of ids. Nothing here happens by itself: `encode` returns all of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lineal.errors import UsageError

LEFT, RIGHT = "left", "right"


@dataclass(frozen=True)
class Truncation:
    """How a tokenizer's file would cut: kept for writing, and the defaults of `truncate`.

    length: ids in all, those of the template among them. stride: ids that windows share. keep: the end that is cut
    ("left" or "right"). strategy: of two texts the longer one first, or only the first or second.
    """

    length: int
    stride: int = 0
    side: str = RIGHT
    strategy: str = "longest_first"


@dataclass(frozen=True)
class Padding:
    """How a tokenizer's file would fill up: kept for writing, and the defaults of `pad`.

    length: None for the longest of a batch. multiple: lengths are rounded up to it.
    """

    id: int
    token: str
    length: int | None = None
    multiple: int | None = None
    side: str = RIGHT
    type: int = 0


def truncate(ids: Sequence[int], length: int, *, side: str = RIGHT, stride: int = 0) -> list[list[int]]:
    """Windows of at most `length` ids that together hold all; the first is what truncation keeps.

    Each window begins `length - stride` after the one before; from the end backwards when `side` is "left".
    Raises UsageError unless 0 <= stride < length and side is "left" or "right".
    """
    if not 0 <= stride < length or side not in (LEFT, RIGHT):
        raise UsageError(
            f"cannot cut to {length} ids with stride {stride} on side {side!r}: the stride must be under the length, "
            "the side left or right."
        )
    found, step = list(ids), length - stride
    if side == RIGHT:
        starts = range(0, max(len(found) - stride, 1), step)
        return [found[start : start + length] for start in starts]
    ends = range(len(found), min(stride, len(found) - 1), -step)
    return [found[max(end - length, 0) : end] for end in ends]


def truncate_pair(
    first: Sequence[int],
    second: Sequence[int],
    length: int,
    *,
    side: str = RIGHT,
    strategy: str = "longest_first",
) -> tuple[list[int], list[int]]:
    """Two texts that have together at most `length` ids.

    strategy: "longest_first" takes from the longer one until both are equally long, then from both; "only_first" and
    "only_second" from that one. UsageError when that text is too short for it.
    """
    a, b = list(first), list(second)
    over = len(a) + len(b) - length
    if over <= 0:
        return a, b
    if strategy == "longest_first":
        lengths = _share(len(a), len(b), max(length, 0))
    elif strategy in ("only_first", "only_second"):
        lengths = (len(a) - over, len(b)) if strategy == "only_first" else (len(a), len(b) - over)
    else:
        raise UsageError(f"no truncation strategy {strategy!r}: longest_first, only_first or only_second.")
    if min(lengths) < 0:
        raise UsageError(
            f"{strategy} cannot take {over} ids from a text that has fewer: allow more than {length} or cut both."
        )
    return _keep(a, lengths[0], side), _keep(b, lengths[1], side)


def _share(first: int, second: int, length: int) -> tuple[int, int]:
    short = min(first, second, length // 2)
    if first <= second:
        return short, min(second, length - short)
    return min(first, length - short), short


def _keep(ids: list[int], length: int, side: str) -> list[int]:
    return ids[:length] if side == RIGHT else ids[len(ids) - length :]


def pad(
    batch: Sequence[Sequence[int]],
    fill: int,
    *,
    length: int | None = None,
    multiple: int | None = None,
    side: str = RIGHT,
) -> tuple[list[list[int]], list[list[int]]]:
    """Sequences of one length, and a mask in which 1 is an id and 0 is filling.

    length: None for the longest; a sequence that is longer stays as it is. multiple: lengths are rounded up to it.
    """
    if side not in (LEFT, RIGHT) or (multiple is not None and multiple < 1):
        raise UsageError(
            f"cannot pad on side {side!r} to a multiple of {multiple}: left or right, 1 or more."
        )
    wide = max(map(len, batch), default=0) if length is None else length
    wide = -(-wide // multiple) * multiple if multiple else wide
    rows: list[list[int]] = []
    masks: list[list[int]] = []
    for ids in batch:
        room = max(wide - len(ids), 0)
        row, mask = [fill] * room, [0] * room
        rows.append([*ids, *row] if side == RIGHT else [*row, *ids])
        masks.append([1] * len(ids) + mask if side == RIGHT else mask + [1] * len(ids))
    return rows, masks
