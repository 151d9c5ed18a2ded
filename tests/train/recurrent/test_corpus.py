"""Sentences, types and vocabularies."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from lineal.errors import DataError
from lineal.models.char_cnn import BOS, EOS, character_ids
from lineal.train.recurrent.corpus import count_words, sentences, typed, vocabulary


def test_sentences_end_at_stops_before_capitals_and_at_empty_lines() -> None:
    text = 'The "end." Dr. Who went, e.g. home! 3 came\nback.\n\nno capital'
    assert [" ".join(s) for s in sentences(text)] == [
        'The " end . "',
        "Dr .",
        "Who went , e . g . home !",
        "3 came back .",
        "no capital",
    ]
    assert sentences("  \n\n ") == []


def test_a_vocabulary_is_the_special_words_and_the_most_frequent() -> None:
    counts = Counter({"b": 3, "a": 3, "c": 1, "d": 2})
    assert vocabulary(counts, 6) == ["<S>", "</S>", "<UNK>", "a", "b", "d"]


def test_documents_are_streams_of_types_with_marks() -> None:
    texts = [[["The", "cat"], ["the", "cat"]], [["cat"]]]
    corpus = typed(texts, vocabulary(count_words(texts), 4), 12)
    assert [d.tolist() for d in corpus.documents] == [[0, 2, 3, 1, 0, 4, 3, 1], [0, 3, 1]]
    assert corpus.target_U.tolist() == [0, 1, 2, 3, 2]
    assert torch.equal(corpus.character_UC.long(), character_ids([BOS, EOS, "The", "cat", "the"], 12))
    assert corpus.unknown_share() == pytest.approx(2 / 11)


def test_nothing_to_read_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        typed([[]], ["<S>", "</S>", "<UNK>"], 12)
