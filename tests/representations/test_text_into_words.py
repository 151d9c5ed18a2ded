"""Text into words and ids: marks of every script, unusual line ends, lines as long as books, and the vocabulary's limits."""

from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.representations import words as module
from lineal.representations.words import (
    LONGEST,
    SPLITTERS,
    Vocabulary,
    count_words,
    encode,
    lengths,
    letters,
    sentences,
    spaces,
)

texts = st.text(
    st.sampled_from("ab Z1_'’-.é\u0301\u0130\u2028\u0085\u00a0हिन्दी東𝔘\t")
    | st.characters(codec="utf-8", exclude_categories=("Cn", "Cs"))
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("cafe\u0301s, e\u0301te\u0301", ["cafe\u0301s", "e\u0301te\u0301"]),
        ("İstanbul", ["i\u0307stanbul"]),
        ("كَتَبَ", ["كَتَبَ"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("\u0301 a \u0301b", ["a", "b"]),
        ("x\u0301_y", ["x\u0301", "y"]),
        ("rock’n’roll dogs’ 'tis", ["rock’n’roll", "dogs", "tis"]),
        ("ΣΟΦΟΣ", ["σοφος" if "ΣΟΦΟΣ".lower() == "σοφος" else "σοφοσ"]),
        ("東京に 行く", ["東京に", "行く"]),
    ],
)
def test_marks_belong_to_the_letters_that_carry_them(text: str, expected: list[str]) -> None:
    assert letters(text) == expected


@given(texts)
def test_words_are_runs_of_letters_digits_and_marks_by_their_categories(text: str) -> None:
    """One character after another, with the categories of this Python; apostrophes are left to the test above."""
    text = text.replace("'", " ").replace("’", " ")
    found: list[str] = []
    inside = False
    for character in text.lower():
        mark = unicodedata.category(character)[0] == "M" or character in "\u200c\u200d"
        if (character.isalnum() and character != "_") or (mark and inside):
            found = [*found[:-1], found[-1] + character] if inside else [*found, character]
            inside = True
        else:
            inside = False
    assert letters(text) == found


@given(texts, st.sampled_from(sorted(SPLITTERS)))
def test_cutting_is_the_same_wherever_white_space_parts_the_text(text: str, name: str) -> None:
    cut = SPLITTERS[name]
    assert [word for part in text.split() for word in cut(part)] == cut(text)
    assert all(word and not any(map(str.isspace, word)) for word in cut(text))


@given(st.lists(texts, max_size=4), st.integers(1, 9), st.booleans())
def test_pieces_of_a_long_line_change_nothing(lines: list[str], piece: int, across: bool) -> None:
    whole = list(sentences([lines], spaces, across))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        assert list(sentences([lines], spaces, across)) == whole


@given(st.lists(st.integers(0, 7), max_size=5), st.booleans())
def test_sentences_are_cut_after_the_longest_that_may_be(sizes: list[int], across: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONGEST", 3)
        found = list(sentences([["x " * size for size in sizes]], spaces, across))
    expected: list[int] = []
    for size in [sum(sizes)] if across else sizes:
        expected += [3] * (size // 3) + [size % 3] * (size % 3 > 0)
    assert [len(words) for words in found] == expected


def test_a_book_on_one_line_is_read_in_one_go_over_it() -> None:
    """Each word is copied a few times at most; cutting the rest off anew for each sentence would copy it 500 times."""
    count = 500 * LONGEST

    class Line(str):
        touched = 0

        def split(self, *_: object) -> list[str]:  # type: ignore[override]
            raise AssertionError("the line was cut whole")

    found = sum(len(words) for words in sentences([[Line("a " * count)]], spaces))
    assert found == count


@pytest.mark.parametrize("mark", ["\u0085", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c"])
def test_odd_line_ends_part_words_and_not_sentences(mark: str) -> None:
    assert list(sentences([[f"one{mark}two"]], letters)) == [["one", "two"]]
    assert list(sentences([[f"one{mark}two"]], spaces)) == [["one", "two"]]


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), max_size=8),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_a_vocabulary_is_what_sorting_gives(texts: list[list[str]], least: int, most: int) -> None:
    counted = count_words(texts)
    assert counted == Counter(word for words in texts for word in words)
    kept = sorted((-n, word) for word, n in counted.items() if n >= least)[: most or None]
    if most == 1:
        with pytest.raises(UsageError, match="max_words 1: vectors need at least two"):
            Vocabulary.of(counted, least, most)
    elif len(kept) < 2:
        with pytest.raises(DataError, match=r"at least two|no word|one word only"):
            Vocabulary.of(counted, least, most)
    else:
        found = Vocabulary.of(counted, least, most)
        assert list(zip(-found.counts, found.words)) == kept
        assert found.total == sum(counted[word] for word in found.words)
        assert [found.index()[word] for word in found.words] == list(range(len(found)))


def test_a_negative_limit_of_words_is_refused() -> None:
    with pytest.raises(UsageError, match="max_words -1"):
        Vocabulary.of(Counter(a=5, b=5), 1, -1)


def test_ids_come_in_parts_of_whole_sentences() -> None:
    vocabulary = Vocabulary(("a", "b"), np.array([2, 1]))
    parts = list(encode([["a", "b"] * 3000, ["zz"], ["a"] * 9000, ["b"]], vocabulary))
    assert [len(part) for part in parts] == [6001 + 9001, 2] and all(part[-1] == -1 for part in parts)
    assert lengths(np.concatenate(parts)).tolist() == [6000, 9000, 1]
    assert lengths(np.zeros(0, np.int32)).tolist() == []
