"""Pairs of texts: whole, within their documents, half of them true, and the same for the same draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError
from lineal.tokenizers import CharTokenizer
from lineal.train.sentence_pairs import (
    Documents,
    documents_of,
    encode_documents,
    make_pairs,
    segments,
)


def corpus(sizes: list[list[int]]) -> Documents:
    """Documents of segments of these lengths; every token is a number of its own."""
    flat = [size for document in sizes for size in document]
    at = np.concatenate(([0], np.cumsum(flat)))
    first = np.concatenate(([0], np.cumsum([len(document) for document in sizes])))
    return Documents(np.arange(at[-1], dtype=np.int32), at, first)


def document(data: Documents, token: int) -> int:
    """Which document a token stands in."""
    return int(np.searchsorted(data.at[data.first], token, side="right")) - 1


MANY = corpus([[3, 5, 8, 2, 7, 4]] * 150 + [[9, 9, 1]] * 50)


def test_half_of_the_pairs_are_true() -> None:
    pairs = make_pairs(MANY, 20, 0.1, 0, 0)
    assert pairs.random_N.mean() == pytest.approx(0.5, abs=0.05)
    assert len(pairs) > 300


def test_a_true_second_text_follows_and_another_comes_from_elsewhere() -> None:
    data = corpus([[4, 4, 4, 4, 4]] * 60)
    for (a, b, c, d), other in zip(
        make_pairs(data, 100, 0.0, 0, 0).place_N4.tolist(), make_pairs(data, 100, 0.0, 0, 0).random_N
    ):
        assert a < b and c < d
        assert document(data, a) == document(data, b - 1) and document(data, c) == document(data, d - 1)
        if other:
            assert document(data, c) != document(data, a)
        else:
            assert b == c


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=6),
    st.integers(2, 40),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.integers(0, 5),
)
def test_pairs_fit_and_hold_something(sizes: list, room: int, short: float, seed: int) -> None:
    data = corpus(sizes)
    if all(len(own) == 1 for own in sizes):
        with pytest.raises(DataError, match="no document has two sentences"):
            make_pairs(data, room, short, seed, 0)
        return
    pairs = make_pairs(data, room, short, seed, 0)
    a, b, c, d = pairs.place_N4.T
    assert (b > a).all() and (d > c).all() and (pairs.lengths() <= room).all()
    again = make_pairs(data, room, short, seed, 0)
    assert (again.place_N4 == pairs.place_N4).all() and (again.random_N == pairs.random_N).all()


def test_without_cutting_every_sentence_is_in_some_pair_of_some_variant() -> None:
    data = corpus([[4, 4, 4, 4, 4]] * 5)
    seen: set[int] = set()
    for variant in range(8):
        for a, b, c, d in make_pairs(data, 100, 0.0, 0, variant).place_N4.tolist():
            seen |= {*range(a, b), *range(c, d)}
    assert seen == set(range(100))


def test_variants_and_seeds_differ() -> None:
    first = make_pairs(MANY, 20, 0.1, 0, 0).place_N4
    for draw in ((0, 1), (1, 0)):
        other = make_pairs(MANY, 20, 0.1, *draw).place_N4
        assert other.shape != first.shape or (other != first).any()


def test_some_pairs_aim_at_less() -> None:
    whole, short = (make_pairs(MANY, 24, share, 0, 0).lengths() for share in (0.0, 1.0))
    assert short.mean() < whole.mean()


def test_text_is_cut_into_documents_and_sentences() -> None:
    text = "One is here. Two is not!\nThree?\n\n \nFour.\n\nFive"
    assert documents_of([text]) == ["One is here. Two is not!\nThree?", "Four.", "Five"]
    assert documents_of([text], 6) == ["One is here. Two is not!", "Three?\nFour.\nFive"]
    assert documents_of([text], 7) == ["One is here. Two is not!\nThree?", "Four.\nFive"]
    assert segments("One is here. Two is not!\n\nThree?", "lines") == ["One is here. Two is not!", "Three?"]
    assert segments('He said "No." Then he left. Mr. x 3.5 is', "sentences") == [
        'He said "No."',
        "Then he left.",
        "Mr. x 3.5 is",
    ]


def test_documents_become_ids_and_empty_ones_nothing() -> None:
    tokenizer = CharTokenizer.train("abc. ")
    data = encode_documents(["ab\nc", "\n", "a. b"], tokenizer, "lines")
    assert len(data) == 2 and data.first.tolist() == [0, 2, 3] and data.at.tolist() == [0, 2, 3, 7]
    assert tokenizer.decode(data.token_N.tolist()) == "abca. b"
    with pytest.raises(DataError, match="every document is empty"):
        encode_documents(["", "\n"], tokenizer, "lines")
