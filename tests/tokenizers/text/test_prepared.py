"""Small parts that other libraries' files need."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.tokenizers.parts import Normaliser
from lineal.tokenizers.text.normalise import SpaceInFront
from lineal.tokenizers.text.prepared import MarkedWords, Prepared, ReplacePattern
from lineal.tokenizers.text.split import Whole

texts = st.text("a b▁\t\u3000é猫", max_size=20)


def check_alignment(part: Normaliser, text: str) -> None:
    """The text is the same, and positions never go back."""
    found, origins = part.align(text)
    assert found == part(text)
    assert len(origins) == len(found) + 1
    assert origins == sorted(origins)
    assert all(0 <= at <= len(text) for at in origins)
    for letter, at in zip(found, origins):
        assert letter == "▁" or letter == "*" or text[at] == letter


@given(texts)
@example("  ▁a b ")
@example("")
def test_words_are_marked(text: str) -> None:
    part = MarkedWords()
    check_alignment(part, text)
    assert part(text) == "".join(word if word[0] == "▁" else f"▁{word}" for word in text.split())


@given(texts)
@pytest.mark.parametrize("pattern", [" {2,}", r"\s+", "a", r"\A ", r"▁+\z", "[ab]+", "a|b"])
def test_matches_are_replaced(pattern: str, text: str) -> None:
    part = ReplacePattern(pattern, "**")
    check_alignment(part, text)
    assert part(text) == re.sub(pattern.replace(r"\z", r"\Z"), "**", text)


def test_what_is_put_in_is_no_pattern() -> None:
    assert ReplacePattern(r"\s+", r"\1\g<0>")("a  b") == r"a\1\g<0>b"


def test_white_space_is_unicodes() -> None:
    assert ReplacePattern(r"\s+", "")("a\x1c\u3000\x85 b") == "a\x1cb"


def test_a_pattern_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        ReplacePattern("(", "")


def test_equal_parts_are_equal() -> None:
    assert Prepared(SpaceInFront(), Whole()) == Prepared(SpaceInFront(), Whole())
    assert hash(ReplacePattern("a", "b")) == hash(ReplacePattern("a", "b"))
    assert Prepared(SpaceInFront(), Whole()).before == SpaceInFront()
