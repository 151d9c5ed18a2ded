"""Training of vectors as laws: corpora that a core must not be given, orders and memories that change nothing, worked steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.representations import glove, near, steps, word2vec
from lineal.representations.draws import ALWAYS, epoch_key, place_key
from lineal.representations.glove import Glossary, Glove
from lineal.representations.huffman import huffman
from lineal.representations.near import PAIR, count, merged, pairs_of, shuffled
from lineal.representations.subwords import Subwords
from lineal.representations.word2vec import Embedding, Word2Vec, aligned, padded, start_rows
from lineal.representations.words import END, LONGEST, Vocabulary

VOCABULARY = Vocabulary(tuple("abcdef"), np.array([60, 50, 40, 30, 20, 10]))
SMALL = Word2Vec(dim=6, window=2, negatives=2, sample=0, rate=0.1)


def ids_of(*sentences: list[int]) -> np.ndarray:
    return np.array([i for sentence in sentences for i in (*sentence, END)], np.int32)


def drawn(size: int = 400, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    ids = draws.integers(0, 6, size).astype(np.int32)
    ids[draws.random(size) < 0.1] = END
    ids[-1] = END
    return ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([0, 6, END], np.int32), "the id 6 is none of 6 words"),
        (np.array([0, -2, END], np.int32), "the id -2 is none of 6 words"),
        (np.zeros((2, 2), np.int32), r"not int32 \[2, 2\]"),
        (np.zeros(LONGEST + 1, np.int32), "a sentence has 10,001 words: cut it after 10,000"),
        (np.append(np.int32(END), np.zeros(LONGEST + 1, np.int32)).astype(np.int32), "a sentence has 10,001"),
    ],
)
def test_a_corpus_that_the_core_would_read_beyond_its_tables_is_refused(ids: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Embedding(SMALL, VOCABULARY, ids)


@pytest.mark.parametrize("ids", [np.zeros(0, np.int32), ids_of([]), ids_of([3]), ids_of([0], [1], [2])])
@pytest.mark.parametrize("output", ["negative", "tree", "softmax"])
def test_a_corpus_without_neighbours_teaches_nothing(ids: np.ndarray, output: str) -> None:
    model = Embedding(dataclasses.replace(SMALL, output=output), VOCABULARY, ids)
    before = model.vectors()
    assert model.train(0, 0, len(ids)) == (0, 0)
    assert np.array_equal(model.vectors(), before) and model.finite()


def test_the_longest_sentence_and_one_without_an_end_are_learned() -> None:
    if word2vec.core() is None:
        pytest.skip("nothing was compiled at install, and only the core has tables of fixed length")
    whole = np.tile(np.arange(6, dtype=np.int32), LONGEST)[:LONGEST]
    for ids in (whole, np.append(whole, np.int32(END)).astype(np.int32)):
        model = Embedding(dataclasses.replace(SMALL, dynamic=False), VOCABULARY, ids)
        assert model.train(0, 0, len(ids))[1] == 2 * (LONGEST - 1) + 2 * (LONGEST - 2)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_can_not_train(threads: int) -> None:
    with pytest.raises(UsageError, match=f"{threads} threads"):
        Embedding(SMALL, VOCABULARY, drawn()).train(0, 0, 10, threads)
    with pytest.raises(UsageError, match=f"{threads} threads"):
        Glossary(Glove(dim=3), 2, np.zeros(1, PAIR)).train(0, 1, threads)


@pytest.mark.parametrize(("row", "column"), [(0, 2), (2, 0), (-1, 0), (0, -5)])
def test_co_occurrences_of_other_words_are_refused(row: int, column: int) -> None:
    pairs = np.array([(0, 1, 1.0), (row, column, 1.0)], PAIR)
    with pytest.raises(DataError, match="a co-occurrence of word"):
        Glossary(Glove(dim=3), 2, pairs)


@given(st.integers(0, 3), st.integers(0, 2), st.integers(1, 4))
@settings(max_examples=15)
def test_subsampling_and_windows_are_those_of_their_places(seed: int, epoch: int, window: int) -> None:
    """Each window by itself: a hash of (seed, epoch, place) says whether a word is kept and how far it looks."""
    model = Embedding(dataclasses.replace(SMALL, window=window, sample=0.05), VOCABULARY, drawn(120), 3, seed)
    keep, key = model.job.keep, epoch_key(seed, epoch)
    assert keep.min() < ALWAYS
    expected, start = [], 0
    for end in np.flatnonzero(model.ids == END):
        kept = [p for p in range(start, end) if place_key(key, p) >> 32 < keep[model.ids[p]]]
        for i, place in enumerate(kept):
            reach = window - ((place_key(key, place) & 0xFFFF) * window >> 16)
            assert 1 <= reach <= window
            around = [*kept[max(0, i - reach) : i], *kept[i + 1 : i + 1 + reach]]
            if around:
                expected.append((int(model.ids[place]), [int(model.ids[p]) for p in around]))
        start = end + 1
    found = [(w.centre, w.around) for w in steps.windows(model.job, model.ids, 0, 120, epoch)]
    assert found == expected


def test_a_first_step_by_hand() -> None:
    """Output rows at 0: each gain is half the rate, inputs stay, and the outputs become shares of the input."""
    method = Word2Vec(dim=4, window=1, negatives=1, sample=0, rate=0.5, final_rate=0.5, dynamic=False)
    model = Embedding(method, VOCABULARY, ids_of([0, 1]), 1, seed=3)
    x = model.state()["inputs"].copy()
    loss, predicted = model.train(0, 0, 1)
    y = model.state()["outputs"]
    assert predicted == 2
    # The word to be predicted moves towards its neighbour, unless the same word was drawn for the other pair as a negative.
    key = epoch_key(3, 0)
    negatives = [steps.targets(model.job, word, place_key(key, word))[1][1:] for word in (0, 1)]
    expected = np.zeros_like(y)
    expected_loss = 0.0
    for word, other in ((0, 1), (1, 0)):
        rows, signs = [word, *negatives[word]], [1.0] + [-1.0] * len(negatives[word])
        scores = np.array(signs) * (expected[rows] @ x[other])
        gains = 0.5 * np.array(signs) / (1 + np.exp(scores))
        change = gains @ expected[rows]
        expected[rows] += np.outer(gains, x[other])
        x[other] += change
        expected_loss += np.log1p(np.exp(-scores)).sum()
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(model.state()["inputs"], x, atol=1e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)


@pytest.mark.parametrize("output", ["negative", "tree"])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_high_rate_stays_in_numbers_and_none_moves_nothing(output: str, rate: float) -> None:
    method = dataclasses.replace(SMALL, output=output, rate=rate, final_rate=rate)
    model = Embedding(method, VOCABULARY, drawn())
    before = model.vectors()
    loss, _ = model.train(0, 0, 400)
    assert np.isfinite(loss) and model.finite()
    assert np.array_equal(model.vectors(), before) == (rate == 0)


def test_a_number_that_is_none_is_seen_in_either_table() -> None:
    for name in ("inputs", "outputs"):
        for value in (np.nan, np.inf, -np.inf):
            model = Embedding(SMALL, VOCABULARY, drawn())
            assert model.finite()
            model.state()[name][2, 3] = value
            assert not model.finite()


@given(st.integers(1, 40), st.integers(1, 70))
def test_rows_begin_where_a_line_of_the_cache_does(rows: int, width: int) -> None:
    table = aligned(rows, width)
    assert (
        table.shape == (rows, padded(width)) and padded(width) % 16 == 0 and 0 <= padded(width) - width < 16
    )
    assert table.ctypes.data % 64 == 0 and not table.any() and table.flags.c_contiguous


def test_vectors_at_the_start_do_not_depend_on_how_many_there_are() -> None:
    few, many = start_rows(10, 5, 2), start_rows(40_000, 5, 2)
    assert np.array_equal(many[:10], few)
    assert len(np.unique(many[:, :5])) > 150_000
    assert np.abs(np.corrcoef(many[:-1, 0], many[1:, 0])[0, 1]) < 0.03


def test_subword_vectors_are_the_means_of_their_parts() -> None:
    method = dataclasses.replace(SMALL, subwords=Subwords(2, 3, 13))
    vocabulary = Vocabulary(("alpha", "beta", "be"), np.array([3, 2, 1]))
    model = Embedding(method, vocabulary, ids_of([0, 1, 2, 0], [2, 1]))
    model.train(0, 0, len(model.ids))
    table = model.state()["inputs"]
    assert table.shape == (3 + 13, 6)
    for i, word in enumerate(vocabulary.words):
        rows = [i, *(3 + bucket for bucket in Subwords(2, 3, 13).rows(word))]
        np.testing.assert_allclose(model.vectors()[i], table[rows].mean(0), rtol=1e-6)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=30))
def test_ways_hold_codes_and_nodes_of_the_right_range(counts: list[int]) -> None:
    tree = huffman(np.array(sorted(counts, reverse=True)))
    assert len(tree.ends) == len(counts) and len(tree.nodes) == tree.ends[-1] == len(tree.codes)
    assert set(np.unique(tree.codes)) <= {0, 1}
    assert tree.nodes.min() >= 0 and tree.nodes.max() == len(counts) - 2
    assert len(
        {(tuple(n), tuple(c)) for n, c in (tuple(map(tuple, tree.way(i))) for i in range(len(counts)))}
    ) == len(counts)


def pairs_in(ids: np.ndarray, window: int, symmetric: bool, memory: int) -> np.ndarray:
    found = np.concatenate(
        [np.zeros(0, PAIR), *pairs_of(merged(list(count(ids, window, symmetric, memory))), symmetric)]
    )
    return np.sort(found, order=["row", "column"])


@pytest.mark.parametrize("compiled", [True, False])
@given(st.integers(0, 50), st.integers(1, 9), st.booleans(), st.integers(1, 400))
@settings(max_examples=20)
def test_parts_of_a_corpus_sum_to_the_whole(
    compiled: bool, seed: int, window: int, symmetric: bool, cut: int
) -> None:
    """Counted in two halves, cut between sentences, and merged with any block: the same bits as counted at once."""
    ids = drawn(seed=seed)
    cut = int(np.flatnonzero(ids == END)[min(cut // 8, (ids == END).sum() - 1)]) + 1
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(near, "core", lambda: None)
        whole = list(merged(list(count(ids, window, symmetric))))
        parts = [*count(ids[:cut], window, symmetric), *count(ids[cut:], window, symmetric)]
    for block in (1, 7, 1000):
        again = list(merged(parts, block))
        for one, other in zip(zip(*whole), zip(*again)):
            assert np.array_equal(np.concatenate(one), np.concatenate(other))


@given(st.integers(0, 50), st.integers(1, 6))
@settings(max_examples=20)
def test_both_sides_are_one_side_and_its_mirror(seed: int, window: int) -> None:
    ids = drawn(200, seed)
    both, after = (pairs_in(ids, window, symmetric, 64) for symmetric in (True, False))
    dense = np.zeros((2, 6, 6))
    for table, pairs in zip(dense, (both, after)):
        table[pairs["row"], pairs["column"]] = pairs["count"]
    np.testing.assert_allclose(dense[0], dense[1] + dense[1].T, rtol=1e-6)
    assert np.array_equal(dense[0], dense[0].T)
    assert dense[1].sum() == pytest.approx(
        sum(1 / d for words in np.split(ids, np.flatnonzero(ids == END)) for i in range(len(words[words >= 0]))
            for d in range(1, min(window, i) + 1))
    )  # fmt: skip


def test_the_order_of_learning_is_the_same_in_any_memory_and_cut(tmp_path: Path) -> None:
    pairs = np.zeros(60_000, PAIR)
    pairs["row"], pairs["column"] = np.divmod(np.arange(60_000), 250)
    small = list(shuffled(iter(np.array_split(pairs, 7)), 5, tmp_path, memory=1))
    large = list(shuffled(iter([pairs[::-1].copy()]), 5, tmp_path, memory=64))
    assert len(small) == 64 and len(large) == 1
    assert np.array_equal(np.concatenate(small), large[0])
    assert list(shuffled(iter([]), 5, tmp_path)) == [] and not list(tmp_path.iterdir())


@given(st.integers(0, 99), st.floats(0.5, 50), st.floats(0.1, 1.5))
@settings(max_examples=20)
def test_glove_s_loss_is_its_formula(seed: int, x_max: float, alpha: float) -> None:
    """At rate 0 nothing moves, so that the sum of losses is the objective of eq. 8, halved."""
    draws = np.random.default_rng(seed)
    pairs = np.zeros(40, PAIR)
    pairs["row"], pairs["column"] = draws.integers(0, 5, (2, 40))
    pairs["count"] = np.exp(draws.normal(1, 2, 40))
    model = Glossary(Glove(dim=3, x_max=x_max, alpha=alpha, rate=0), 5, pairs, seed)
    for table in model.state().values():
        table[:] = np.abs(draws.normal(0, 1, table.shape)) + 0.1
    state = {name: table.astype(np.float64) for name, table in model.state().items()}
    i, k, x = pairs["row"], pairs["column"], pairs["count"].astype(np.float64)
    off = (
        (state["words"][i] * state["contexts"][k]).sum(1)
        + state["word_bias"][i, 0]
        + state["context_bias"][k, 0]
    )
    expected = (np.minimum(1, (x / x_max) ** alpha) * (off - np.log(x)) ** 2 / 2).sum()
    assert model.train(0, 40) == pytest.approx(expected, rel=1e-4)
    assert all(np.array_equal(table, state[name].astype(np.float32)) for name, table in model.state().items())


def test_glove_is_adagrad_of_torch_but_for_where_the_sum_is_taken() -> None:
    """torch divides by the sum with this step in it; a first step of many small gradients is the same to that order."""
    pairs = np.array([(0, 1, 3.0)], PAIR)
    model = Glossary(Glove(dim=4, x_max=1, rate=1e-3), 2, pairs)
    word, context = (torch.tensor(table[0 if i == 0 else 1, :4].copy(), requires_grad=True)
                     for i, table in enumerate((model.words, model.contexts)))  # fmt: skip
    optimiser = torch.optim.SGD([word, context], lr=1e-3)
    loss = 0.5 * (word @ context - float(np.log(3))) ** 2
    loss.backward()
    optimiser.step()
    model.train(0, 1)
    np.testing.assert_allclose(model.words[0, :4], word.detach(), rtol=1e-5)
    np.testing.assert_allclose(model.contexts[1, :4], context.detach(), rtol=1e-5)
    assert not np.array_equal(model.words[0, 16:20], np.ones(4)) or model.size == 16


@pytest.mark.parametrize("plain", [True, False])
def test_no_pairs_are_no_loss(plain: bool, monkeypatch) -> None:
    if plain:
        monkeypatch.setattr(glove, "core", lambda: None)
    model = Glossary(Glove(dim=3), 2, np.array([(0, 1, 2.0)], PAIR))
    assert model.train(0, 0) == 0 == model.train(1, 1)


def test_the_plain_form_trains_where_nothing_was_compiled(monkeypatch) -> None:
    made: list[Callable] = []
    for name in ("compiled", "plain"):
        if name == "plain":
            monkeypatch.setattr(word2vec, "core", lambda: None)
        model = Embedding(SMALL, VOCABULARY, drawn(60))
        model.train(0, 0, 60)
        made.append(model.vectors)
    np.testing.assert_allclose(made[0](), made[1](), rtol=2e-4, atol=2e-5)
