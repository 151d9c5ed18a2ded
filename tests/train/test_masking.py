"""What is hidden: how much of it, what becomes of it, whole words, and that a row's draws are its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import ModelError
from lineal.tokenizers import CharTokenizer
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.training import Learning, train
from lineal.train.masking import Masking, Vocabulary, mask_rows

WORDS = Vocabulary(
    pad=0, cls=2, sep=3, mask=4, inside=np.array([i >= 60 for i in range(100)]), ordinary=np.arange(5, 100)
)


def rows(count: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of ordinary tokens between [CLS] and [SEP]."""
    token_BT = np.random.default_rng(seed).integers(5, 100, (count, length))
    token_BT[:, 0], token_BT[:, -1] = WORDS.cls, WORDS.sep
    maskable_BT = np.ones((count, length), dtype=bool)
    maskable_BT[:, [0, -1]] = False
    return token_BT, maskable_BT


def test_of_what_is_hidden_80_10_10() -> None:
    token_BT, maskable_BT = rows(4000, 42)
    hidden_BT, chosen_BT = mask_rows(token_BT, maskable_BT, np.arange(4000), WORDS, Masking(0.15, 99), 7, 0)
    assert (chosen_BT.sum(1) == 6).all()
    assert not chosen_BT[~maskable_BT].any()
    assert (hidden_BT[~chosen_BT] == token_BT[~chosen_BT]).all()
    now, before = hidden_BT[chosen_BT], token_BT[chosen_BT]
    # Of the random tenth one in 95 is what stood there.
    assert np.mean(now == WORDS.mask) == pytest.approx(0.8, abs=0.01)
    assert np.mean(now == before) == pytest.approx(0.1 + 0.1 / 95, abs=0.01)
    other = now[(now != WORDS.mask) & (now != before)]
    assert set(other) == set(WORDS.ordinary.tolist())
    assert np.mean(chosen_BT[:, 1:-1], axis=0) == pytest.approx(np.full(40, 0.15), abs=0.025)


@pytest.mark.parametrize("whole", [False, True])
def test_a_row_is_hidden_the_same_whatever_stands_beside_it(whole: bool) -> None:
    token_BT, maskable_BT = rows(12, 30)
    how, number_B = Masking(0.2, 99, whole), np.arange(100, 112)
    together = mask_rows(token_BT, maskable_BT, number_B, WORDS, how, 3, 1)
    for row in (0, 5, 11):
        part = slice(row, row + 1)
        alone = mask_rows(token_BT[part], maskable_BT[part], number_B[part], WORDS, how, 3, 1)
        for one, all_rows in zip(alone, together, strict=True):
            assert (one[0] == all_rows[row]).all()
    # Wider batches have more columns.
    wide = [np.pad(x, ((0, 0), (0, 5))) for x in (token_BT, maskable_BT)]
    again = mask_rows(wide[0], wide[1], number_B, WORDS, how, 3, 1)
    assert (again[0][:, :30] == together[0]).all() and not again[1][:, 30:].any()


@pytest.mark.parametrize("draw", [(4, 1), (3, 2)])
def test_another_seed_or_variant_hides_other_pieces(draw: tuple[int, int]) -> None:
    token_BT, maskable_BT = rows(4, 30)
    first = mask_rows(token_BT, maskable_BT, np.arange(4), WORDS, Masking(), 3, 1)[1]
    assert (mask_rows(token_BT, maskable_BT, np.arange(4), WORDS, Masking(), *draw)[1] != first).any()


@given(st.integers(3, 40), st.sampled_from([0.05, 0.15, 0.5, 1.0]), st.integers(1, 30), st.booleans())
def test_at_least_one_and_never_too_many(length: int, rate: float, most: int, whole: bool) -> None:
    token_BT, maskable_BT = rows(3, length, length)
    chosen_BT = mask_rows(token_BT, maskable_BT, np.arange(3), WORDS, Masking(rate, most, whole), 0, 0)[1]
    wanted = min(most, max(1, int((length - 2) * rate + 0.5)), length - 2)
    assert (chosen_BT.sum(1) <= wanted).all() if not whole else (chosen_BT.sum(1) >= 1).all()
    if not whole:
        assert (chosen_BT.sum(1) == wanted).all()


def test_words_are_hidden_whole() -> None:
    token_BT, maskable_BT = rows(200, 40)
    chosen_BT = mask_rows(token_BT, maskable_BT, np.arange(200), WORDS, Masking(0.3, 99, True), 0, 0)[1]
    for token_T, chosen_T in zip(token_BT, chosen_BT, strict=True):
        for place in range(2, 39):
            if WORDS.inside[token_T[place]]:
                assert chosen_T[place] == chosen_T[place - 1]
    assert 0.2 < chosen_BT[:, 1:-1].mean() <= 0.31


def test_a_vocabulary_knows_its_special_tokens() -> None:
    tokenizer = train("wordpiece", texts=["a fine film was fined"] * 5, learning=Learning(vocab_size=40))
    assert isinstance(tokenizer, Pipeline)
    words = Vocabulary.of(tokenizer)
    assert (words.pad, words.cls, words.sep, words.mask) == (0, 2, 3, 4)
    assert words.ordinary.tolist() == list(range(5, tokenizer.vocab_size))
    assert [
        tokenizer.tokens[i].startswith(b"##") for i in range(tokenizer.vocab_size)
    ] == words.inside.tolist()
    with pytest.raises(ModelError, match="needs one with"):
        Vocabulary.of(CharTokenizer.train("abc"))
    plain = train("bpe", texts=["a b c"] * 9, learning=Learning(vocab_size=260))
    with pytest.raises(ModelError, match=r"has no \[PAD\], \[CLS\], \[SEP\], \[MASK\]"):
        Vocabulary.of(plain)
