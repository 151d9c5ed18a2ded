"""Cutting and filling up, beside the `tokenizers` library."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.tokenizers.lengths import pad, truncate, truncate_pair

ids = st.lists(st.integers(1, 9), max_size=20)


def theirs() -> Any:
    """A library's tokenizer that takes digits for ids."""
    tokenizers = pytest.importorskip("tokenizers", reason="the oracle is in the [hf] extra")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(10)}, unk_token="0"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return inner


def words(found: list[int]) -> str:
    """Ids as a text."""
    return " ".join(map(str, found))


@given(ids, st.integers(1, 12), st.integers(0, 11), st.sampled_from(["left", "right"]))
def test_windows_hold_everything_as_the_librarys_do(
    found: list[int], length: int, stride: int, side: str
) -> None:
    if stride >= length:
        with pytest.raises(UsageError, match="stride"):
            truncate(found, length, side=side, stride=stride)
        return
    windows = truncate(found, length, side=side, stride=stride)
    inner = theirs()
    inner.enable_truncation(length, stride=stride, direction=side)
    whole = inner.encode(words(found))
    assert windows == [whole.ids, *(part.ids for part in whole.overflowing)]
    assert all(len(window) <= length for window in windows)


@given(ids, ids, st.integers(0, 30), st.sampled_from(["longest_first", "only_first", "only_second"]))
def test_two_texts_share_the_room_as_the_librarys_do(
    a: list[int], b: list[int], length: int, strategy: str
) -> None:
    over = len(a) + len(b) - length
    if (strategy == "only_first" and over > len(a)) or (strategy == "only_second" and over > len(b)):
        with pytest.raises(UsageError, match="cannot take"):
            truncate_pair(a, b, length, strategy=strategy)
        return
    cut = truncate_pair(a, b, length, strategy=strategy)
    assert len(cut[0]) + len(cut[1]) == min(len(a) + len(b), length)
    assert a[: len(cut[0])] == cut[0]
    assert b[: len(cut[1])] == cut[1]
    # The library refuses to leave nothing of the one text that it may cut, and has no room at all of 0.
    if length and (strategy == "longest_first" or over < len(a if strategy == "only_first" else b)):
        inner = theirs()
        inner.enable_truncation(length, strategy=strategy)
        assert inner.encode(words(a), words(b)).ids == [*cut[0], *cut[1]]


@given(st.lists(ids, min_size=1, max_size=5), st.none() | st.integers(0, 9), st.none() | st.integers(1, 5))
@pytest.mark.parametrize("side", ["left", "right"])
def test_filling_up_is_the_librarys(
    side: str, batch: list[list[int]], length: int | None, multiple: int | None
) -> None:
    rows, masks = pad(batch, 0, length=length, multiple=multiple, side=side)
    inner = theirs()
    inner.enable_padding(direction=side, pad_id=0, pad_token="0", length=length, pad_to_multiple_of=multiple)
    found = inner.encode_batch([words(row) for row in batch])
    assert rows == [row.ids for row in found]
    assert masks == [row.attention_mask for row in found]


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(UsageError, match="left or right"):
        pad([[1]], 0, side="middle")
    with pytest.raises(UsageError, match="side"):
        truncate([1], 1, side="middle")
    with pytest.raises(UsageError, match="no truncation strategy"):
        truncate_pair([1], [2], 1, strategy="none")
    assert pad([], 0) == ([], [])
