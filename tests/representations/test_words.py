"""How text becomes words, a vocabulary, and a corpus of ids."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.representations.words import (
    END,
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


def test_letters_are_lower_case_without_marks() -> None:
    assert letters("It's 2 a.m.; naïve_Straße—Ω!") == ["it's", "2", "a", "m", "naïve", "straße", "ω"]
    assert letters("'quoted' rock'n'roll ''") == ["quoted", "rock'n'roll"]


def test_spaces_leave_words_as_they_are() -> None:
    assert spaces("  It's\t2 a.m.;\u00a0x ") == ["It's", "2", "a.m.;", "x"]
    assert set(SPLITTERS) == {"letters", "spaces"}


def test_a_sentence_is_a_line_or_a_document() -> None:
    documents = [["a b", "", "c"], ["d"]]
    assert list(sentences(documents, spaces)) == [["a", "b"], ["c"], ["d"]]
    assert list(sentences(documents, spaces, across_lines=True)) == [["a", "b", "c"], ["d"]]


@pytest.mark.parametrize("across", [False, True])
def test_what_is_too_long_is_cut(across: bool) -> None:
    found = list(sentences([["x " * (2 * LONGEST + 3)]], spaces, across))
    assert [len(words) for words in found] == [LONGEST, LONGEST, 3]


def test_the_most_frequent_come_first_and_equals_by_the_alphabet() -> None:
    found = Vocabulary.of(Counter(b=2, a=2, c=5, d=1), min_count=2)
    assert found.words == ("c", "a", "b")
    assert found.counts.tolist() == [5, 2, 2]
    assert (found.total, len(found), found.index()) == (9, 3, {"c": 0, "a": 1, "b": 2})
    assert Vocabulary.of(Counter(b=2, a=2, c=5), 1, max_words=2).words == ("c", "a")


@pytest.mark.parametrize(
    ("counted", "least", "said"),
    [
        (Counter(), 1, "no word in the text"),
        (Counter(only=7), 1, "one word only, 'only', 7 times"),
        (Counter(a=3, b=2), 5, r"0 of 2 words occur at least 5 times \(the most frequent, 'a', 3 times\).*--min-count"),
        (Counter(a=9, b=2), 5, "1 of 2 words"),
    ],
)  # fmt: skip
def test_too_few_words_are_refused_with_the_remedy(counted: Counter[str], least: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Vocabulary.of(counted, least)


def test_limits_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="min_count 0"):
        Vocabulary.of(Counter(a=1, b=1), 0)


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=9), max_size=9))
def test_a_corpus_is_its_sentences_without_the_words_left_out(texts: list[list[str]]) -> None:
    vocabulary = Vocabulary(("a", "c", "e"), np.array([3, 2, 1]))
    ids = np.concatenate([np.zeros(0, np.int32), *encode(texts, vocabulary)])
    expected = [[w for w in words if w in vocabulary.words] for words in texts]
    expected = [words for words in expected if words]
    found: list[list[str]] = [[]]
    for i in ids.tolist():
        if i == END:
            found.append([])
        else:
            found[-1].append(vocabulary.words[i])
    assert found[:-1] == expected and not found[-1]
    assert lengths(ids).tolist() == [len(words) for words in expected]


def test_words_are_counted() -> None:
    assert count_words([["a", "b"], ["a"]]) == Counter(a=2, b=1)
