"""Words: learned, carried over, and documents parted."""

from __future__ import annotations

import pytest

from lineal.errors import DataError, UsageError
from lineal.tokenizers import ByteTokenizer
from lineal.train.recurrent.text import parted
from lineal.train.recurrent.vocabulary import encoded, learn_words, origins, unknown_share, words_of


def test_words_are_lower_case_and_the_rare_are_unknown() -> None:
    tokenizer = learn_words(["The cat. The DOG, the cat!", "a dog"], 100, 2)
    assert {w.decode() for w in words_of(tokenizer) if w} == {"<unk>", "the", "cat", "dog"}
    assert tokenizer.decode(tokenizer.encode("THE dog")) == "the dog"
    (ids,) = encoded(["the bird"], tokenizer)
    assert ids[-1] == tokenizer.eos_id and unknown_share([ids], tokenizer) == pytest.approx(1 / 3)


def test_known_words_are_found_again_and_special_ones_stay() -> None:
    old = learn_words(["b b b a a c"], 100, 1)
    new = learn_words(["c c c d d a"], 100, 1)
    found = origins(new, old)
    assert found[:4] == [0, 1, 2, 3]
    old_words, new_words = words_of(old), words_of(new)
    for word, origin in list(zip(new_words, found, strict=True))[4:]:
        assert (origin is None) == (word == b"d")
        assert origin is None or old_words[origin] == word


def test_a_tokenizer_without_words_is_refused() -> None:
    with pytest.raises(UsageError, match="--vocabulary keep"):
        words_of(ByteTokenizer())


def test_empty_documents_are_left_out_and_nothing_is_refused() -> None:
    tokenizer = learn_words(["a b"], 10, 1)
    assert len(encoded(["a", "", "  ", "b"], tokenizer)) == 2
    with pytest.raises(DataError, match="every document is empty"):
        encoded([" "], tokenizer)


def test_the_last_documents_are_held_out() -> None:
    train, held = parted(["aaaa", "bbbb", "cccc", "dddd", "eeee"], 0.4)
    assert (train, held) == (["aaaa", "bbbb", "cccc"], ["dddd", "eeee"])
    train, held = parted(["one two three four five"], 0.5)
    assert "".join(train + held) == "one two three four five" and held[0].startswith(" ")
    assert parted(["aaaa", "bbbb"], 0.0) == (["aaaa", "bbbb"], [])
