"""Worked numbers of byte-pair encoding: the five words hug, pug, pun, bun, hugs, and GPT's vocabulary by its merges."""

from __future__ import annotations

from array import array

from lineal.tokenizers.bpe import BPE, train_bpe

WORDS = {b"hug": 10, b"pug": 5, b"pun": 12, b"bun": 4, b"hugs": 5}


def small() -> BPE:
    """Three merges of the five words, with a token for what they can't say."""
    return train_bpe(WORDS, 11, initial="characters", special=["<unk>"], unknown="<unk>")


def spelled(model: BPE, word: str) -> list[bytes]:
    data = word.encode()
    return [model.tokens[token] for token in model.encode(data, array("i", [0, len(data)]))]


def test_the_three_merges() -> None:
    model = small()
    assert [model.tokens[a] + model.tokens[b] for a, b in model.merges] == [b"ug", b"un", b"hug"]
    assert model.tokens[1:] == (b"b", b"g", b"h", b"n", b"p", b"s", b"u", b"ug", b"un", b"hug")


def test_each_merge_is_the_most_frequent_pair_then() -> None:
    """ug occurs 20 times, then un 16, then h + ug 15."""
    for frequency, merges in ((20, 1), (16, 2), (15, 3)):
        found = train_bpe(WORDS, 100, initial="characters", min_frequency=frequency)
        assert len(found.merges) == merges
        assert len(train_bpe(WORDS, 100, initial="characters", min_frequency=frequency + 1).merges) < merges


def test_new_words() -> None:
    assert spelled(small(), "bug") == [b"b", b"ug"]
    assert spelled(small(), "mug") == [b"<unk>", b"ug"]


def test_a_vocabulary_is_its_alphabet_and_its_merges() -> None:
    """GPT: 478 symbols and 40,000 merges are 40,478 tokens; here on a text of as many symbols, with 1,000 merges."""
    letters = [chr(0x4E00 + i) for i in range(478)]
    counts = {"".join(letters[(7 * i + j * j) % 478] for j in range(12)).encode(): i + 1 for i in range(478)}
    model = train_bpe(counts, 40478, initial="characters", merges=1000)
    assert len(model.tokens) == 478 + 1000
    assert 478 + 40000 == 40478
