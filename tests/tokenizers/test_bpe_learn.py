"""The parts of BPE training: symbols in their order, the rule that merges, and what it is learned from."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.tokenizers.bpe_learn import (
    PRINTED,
    BPETraining,
    Words,
    cut,
    first_symbols,
    merge_pairs,
    replace,
    spell,
)
from lineal.tokenizers.corpus.counting import PieceCounts


def symbols(counts: dict[bytes, int], **options) -> list[bytes]:
    how = BPETraining(**options)
    return first_symbols(Words.of(counts), how).all


@given(st.text())
def test_text_is_cut_into_characters(text: str) -> None:
    assert cut(text.encode(), "characters") == [*map(str.encode, text)]


@given(st.binary())
def test_nothing_is_lost_by_cutting(piece: bytes) -> None:
    assert b"".join(cut(piece, "characters")) == piece
    assert cut(piece, "bytes") == [bytes([byte]) for byte in piece]


def test_bytes_are_ordered_as_they_are_printed() -> None:
    assert sorted(PRINTED) == [*range(256)]
    assert PRINTED[0] == ord("!") and PRINTED[188] == 0
    assert symbols({b"a": 1}) == [bytes([byte]) for byte in PRINTED]
    assert symbols({b"a": 1}, ties="bytes") == [bytes([byte]) for byte in range(256)]
    assert symbols({b" a\n": 1}, alphabet=b"") == [b"a", b"\n", b" "]


def test_special_tokens_and_bytes_to_fall_back_on_come_first() -> None:
    found = symbols({b"ba": 1}, initial="characters", special=["<s>", "</s>"], byte_fallback=True)
    assert found == [b"<s>", b"</s>", *(bytes([byte]) for byte in range(256)), b"a", b"b"]


def test_an_alphabet_is_kept_and_rare_characters_are_not() -> None:
    counts = {"aaab": 3, "bc": 2, "日": 1}
    pieces = {text.encode(): count for text, count in counts.items()}
    assert symbols(pieces, initial="characters", limit=2) == [b"a", b"b"]
    assert symbols(pieces, initial="characters", limit=2, alphabet=["日本"]) == ["日".encode(), "本".encode()]
    assert symbols(pieces, initial="characters", alphabet=["é"])[-2:] == ["é".encode(), "日".encode()]


def test_what_is_not_kept_is_left_out_of_words() -> None:
    how = BPETraining(initial="characters", limit=2, prefix=b"##")
    found = first_symbols(Words.of({b"axb": 2, b"aab": 1}), how)
    assert found.word(b"axb", how) == [b"a", b"##b"]
    assert {*found.all} == {b"a", b"b", b"##a", b"##b"}


def test_prefixes_and_suffixes_mark_where_a_symbol_stands() -> None:
    how = BPETraining(initial="characters", prefix=b"##", suffix=b"_")
    found = first_symbols(Words.of({b"abc": 1, b"a": 1}), how)
    assert found.all == [b"a", b"b", b"c", b"##b", b"##c_", b"a_"]
    assert found.word(b"abc", how) == [b"a", b"##b", b"##c_"]
    assert found.word(b"a", how) == [b"a_"]


@given(st.lists(st.sampled_from("ab"), max_size=12), st.sampled_from([(0, 1), (0, 0)]))
def test_a_pair_is_replaced_from_the_left_and_its_neighbours_are_counted(letters, pair) -> None:
    piece = ["ab".index(letter) for letter in letters]
    before = Counter(pairwise(piece))
    marks = {(0, 1): "ab", (0, 0): "aa"}
    expected = "".join(letters).replace(marks[pair], "X")
    changes = Counter()
    for near, sign in replace(piece, pair, 2):
        changes[near] += sign
    assert "".join("abX"[part] for part in piece) == expected
    after = Counter(pairwise(piece))
    for near in {*before, *after} - {pair}:
        assert before[near] + changes[near] == after[near]


def most_frequent(pieces: list[list[int]], counts: list[int]) -> tuple[int, int]:
    found: Counter[tuple[int, int]] = Counter()
    for piece, count in zip(pieces, counts):
        for pair in pairwise(piece):
            found[pair] += count
    return min(found, key=lambda pair: (-found[pair], pair))


@given(st.lists(st.text("abc", min_size=1, max_size=10), min_size=1, max_size=8))
def test_each_merge_is_the_most_frequent_pair_of_its_time(words) -> None:
    """Counted anew before every merge, as the paper's own program does."""
    counts = [i + 1 for i in range(len(words))]
    pieces = [["abc".index(letter) for letter in word] for word in words]
    how = BPETraining(initial="characters")
    tokens, merges = merge_pairs([[*piece] for piece in pieces], counts, [b"a", b"b", b"c"], 12, how)
    for number, pair in enumerate(merges):
        assert pair == most_frequent(pieces, counts)
        for piece in pieces:
            replace(piece, pair, 3 + number)
        assert tokens[3 + number] == spell(pair, tokens, b"")
    assert len(tokens) == 12 or all(len(piece) == 1 for piece in pieces)


def test_what_is_learned_from_may_come_flat_or_as_a_mapping() -> None:
    counts = {b"ab": 2, b"c": 3}
    for found in (Words.of(counts), Words.of(PieceCounts(counts))):
        assert [*found] == [b"ab", b"c"]
        assert found.counts == array("q", [2, 3])
        assert found.longest == 2
    assert [*Words.of({b"ab": 0, b"": 2, b"c": 1})] == [b"", b"c"]


@pytest.mark.parametrize("counts", [{}, {b"": 1}, {b"a": 0}, {b"a": 1, b"b": -2}])
def test_nothing_to_learn_from(counts) -> None:
    with pytest.raises(DataError):
        Words.of(counts)


@pytest.mark.parametrize(
    "options",
    [{"initial": "words"}, {"ties": "any"}, {"special": [""]}, {"unknown": "<unk>"}, {"byte_fallback": True}],
)
def test_options_that_do_not_go_together(options) -> None:
    with pytest.raises(UsageError):
        BPETraining(**options)
