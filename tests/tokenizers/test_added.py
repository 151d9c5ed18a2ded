"""Added tokens: found as the `tokenizers` library finds them, and never by accident."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lineal.tokenizers.added import AddedToken, AddedTokens, Finder
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.text.normalise import Lowercase
from lineal.tokenizers.words import WordLevel

TOKENS = [
    AddedToken("<s>", 2),
    AddedToken("<s>x", 3, special=False),
    AddedToken("word", 4, special=False, single_word=True),
    AddedToken("left", 5, special=False, lstrip=True),
    AddedToken("right", 6, rstrip=True),
    AddedToken("Both", 7, special=False, lstrip=True, rstrip=True, normalised=True),
    AddedToken(" ", 8, special=False, normalised=True),
    AddedToken("é", 9, normalised=True, single_word=True),
]
PARTS = [
    "<s>",
    "x",
    "word",
    "left",
    "right",
    "Both",
    "both",
    " ",
    "\t",
    "\u3000",
    "\x1c",
    "é",
    "É",
    "_",
    "1",
    "²",
    "\u0301",
    "-",
]


def theirs(tokens: list[AddedToken], lower: bool) -> Any:
    """A library's tokenizer with these tokens, whose model knows no word."""
    tokenizers = pytest.importorskip("tokenizers", reason="the oracle is in the [hf] extra")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "ab": 1}, unk_token="?"))
    if lower:
        inner.normalizer = tokenizers.normalizers.Lowercase()
    for token in tokens:
        flags = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
        made = tokenizers.AddedToken(
            token.content, normalized=token.normalised, special=token.special, **flags
        )
        inner.add_special_tokens([made]) if token.special else inner.add_tokens([made])
    return inner


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("special", [False, True])
def test_they_are_found_as_the_library_finds_them(lower: bool, special: bool) -> None:
    other = theirs(TOKENS, lower)
    other.encode_special_tokens = not special
    model = WordLevel([b"?", b"ab"], unknown=0)
    one = Pipeline(model, normaliser=Lowercase() if lower else None, added=TOKENS)

    @given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
    @example("<s>x <s> xword word  left   right  x Both")
    @example("éa é éé É")
    @example("   ")
    def check(text: str) -> None:
        found = other.encode(text)
        assert one.encode(text, special=special) == found.ids
        mine = one.encode_with_offsets(text, special=special)
        assert (mine.ids, mine.offsets) == (found.ids, found.offsets)

    check()


def test_the_longest_wins_and_a_special_token_that_stays_text_hides_a_shorter_one() -> None:
    finder = Finder([AddedToken("ab", 0, special=False), AddedToken("abc", 1)])
    assert finder.cut("abcab", special=True) == [(0, 3, 1), (3, 5, 0)]
    assert finder.cut("abcab", special=False) == [(0, 3, -1), (3, 5, 0)]


def test_nothing_is_looked_for_where_nothing_may_be_found() -> None:
    assert not AddedTokens([]).any(special=True)
    quiet = AddedTokens([AddedToken("<s>", 0)])
    assert (quiet.any(special=False), quiet.any(special=True)) == (False, True)
    assert AddedTokens([AddedToken("x", 0, special=False)]).any(special=False)


def test_an_empty_form_is_never_found() -> None:
    assert Finder([AddedToken("x", 0)], [""]).cut("abc", special=True) == [(0, 3, -1)]
