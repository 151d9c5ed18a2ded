"""The parts of words, as fastText cuts and hashes them."""

from __future__ import annotations

import numpy as np
import pytest

from lineal.errors import UsageError
from lineal.representations.subwords import Subwords, fnv


def test_ngrams_of_the_paper_s_example() -> None:
    """Bojanowski et al., 2017, section 3.2: n = 3 of "where"."""
    assert Subwords(3, 3).ngrams("where") == ["<wh", "whe", "her", "ere", "re>"]
    assert set(Subwords().ngrams("as")) == {"<as", "as>", "<as>"}


def test_one_character_at_an_edge_is_no_ngram() -> None:
    assert Subwords(1, 2).ngrams("ab") == ["<a", "a", "ab", "b", "b>"]


def test_the_hash_takes_bytes_as_signed() -> None:
    assert fnv(b"") == 2166136261
    # Plain FNV-1a's published value for ASCII.
    assert fnv(b"foobar") == 0xBF9CF968
    assert (
        fnv("é".encode()) != 0x2D2B1A5F
        and fnv(b"\xff") == ((2166136261 ^ 0xFFFFFFFF) * 16777619) & 0xFFFFFFFF
    )


def test_gensim_hashes_alike() -> None:
    gensim = pytest.importorskip("gensim.models.fasttext_inner")
    for ngram in ("<as", "straße", "日本"):
        assert fnv(ngram.encode()) == gensim.ft_hash_bytes(ngram.encode())
    for word in ("where", "a", "日本語"):
        assert sorted(Subwords(3, 6, 1000).rows(word)) == sorted(
            gensim.ft_hash_bytes(part) % 1000 for part in gensim.compute_ngrams_bytes(word, 3, 6)
        )


def test_parts_begin_with_the_word_itself() -> None:
    ends, rows = Subwords(3, 3, 10).parts(["ab", "abc"])
    assert ends.tolist() == [3, 7]
    assert (rows[0], rows[3]) == (0, 1)
    assert all(2 <= row < 12 for row in (*rows[1:3], *rows[4:]))


def test_the_vector_of_an_unseen_word() -> None:
    how, table = Subwords(3, 3, 10), np.arange(20, dtype=np.float32).reshape(10, 2)
    np.testing.assert_allclose(how.vector("ab", table), table[how.rows("ab")].mean(0))
    assert not Subwords(5, 6, 10).vector("a", table).any()


@pytest.mark.parametrize("wrong", [(0, 3, 10), (4, 3, 10), (3, 6, 0)])
def test_limits_that_mean_nothing(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="n-grams of"):
        Subwords(*wrong)
