"""Evaluation as laws: what scaling, turning and reordering leave as it is; spellings, files as they come, gensim's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.representations import analogies
from lineal.representations.analogies import (
    Question,
    Score,
    analogy,
    evaluate_analogies,
    read_questions,
    totals,
)
from lineal.representations.neighbours import near, nearest
from lineal.representations.similarity import Pair, evaluate_similarity, read_pairs, spearman
from lineal.representations.vectors import Vectors, unit_rows

SPELLED = ["king", "King", "KING", "man", "Man", "woman", "queen", "Queen", "apple", "Woman", "pear", "QUEEN"]


def drawn(count: int = 40, dimensions: int = 5, seed: int = 0) -> Vectors:
    matrix = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return Vectors([f"w{i}" for i in range(count)], matrix)


def spelled(seed: int) -> Vectors:
    """Words of which some differ in capitals only; their vectors are near each other."""
    draws, places = np.random.default_rng(seed), {}
    rows = []
    for word in SPELLED:
        middle = places.setdefault(word.upper(), draws.standard_normal(4))
        rows.append(middle + 0.3 * draws.standard_normal(4))
    return Vectors(SPELLED, np.array(rows, np.float32))


@pytest.mark.parametrize("method", ["add", "mul"])
@pytest.mark.parametrize("seed", range(12))
def test_other_spellings_of_a_question_are_no_answers(seed: int, method: str) -> None:
    """Beside "king" the nearest word is often "King", which gensim does not count as an answer."""
    some = spelled(seed)
    words = ("king", "man", "woman", "queen", "apple", "pear")
    questions = [
        Question(a, b, c, d)
        for a in words
        for b in words
        for c in words
        for d in words
        if len({a, b, c, d}) == 4
    ]
    found = evaluate_analogies(some, {"all": questions}, method=method)[0]
    right = 0
    for question in questions:
        asked = {question.a, question.b, question.c}
        ranked = analogy(some, question.a, question.b, question.c, count=99, method=method)
        right += next(w.lower() for w, _ in ranked if w.lower() not in asked) == question.answer
    assert (found.covered, found.right) == (len(questions), right)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fold", [True, False])
def test_gensim_counts_the_same_answers_over_mixed_capitals(seed: int, fold: bool, tmp_path: Path) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors(4)
    some = spelled(seed)
    keyed.add_vectors(some.words, some.matrix)
    words = ("king", "Man", "WOMAN", "queen", "apple", "Pear")
    lines = [
        f"{a} {b} {c} {d}"
        for a in words
        for b in words
        for c in words
        for d in words
        if len({a, b, c, d}) == 4
    ]
    (tmp_path / "q").write_text(": all\n" + "\n".join(lines) + "\n")
    _, theirs = keyed.evaluate_word_analogies(str(tmp_path / "q"), restrict_vocab=None, case_insensitive=fold)
    ours = evaluate_analogies(some, read_questions(tmp_path / "q"), restrict=None, fold=fold)[0]
    assert ours.right == len(theirs[0]["correct"])
    assert ours.covered == len(theirs[0]["correct"]) + len(theirs[0]["incorrect"])


def test_answers_come_in_blocks_of_any_size(monkeypatch) -> None:
    some, draws = drawn(30), np.random.default_rng(1)
    questions = [Question(*(some.words[i] for i in draws.choice(30, 4, replace=False))) for _ in range(70)]
    whole = evaluate_analogies(some, {"s": questions})[0]
    monkeypatch.setattr(analogies, "SCORES", 300)
    assert evaluate_analogies(some, {"s": questions})[0] == whole


@given(st.integers(0, 99), st.sampled_from(["add", "mul"]))
@settings(max_examples=20)
def test_lengths_and_turns_change_no_answer(seed: int, method: str) -> None:
    some, draws = drawn(20, 4, seed), np.random.default_rng(seed)
    turn = np.linalg.qr(draws.standard_normal((4, 4)))[0]
    longer = some.matrix.astype(np.float64) * draws.uniform(0.1, 10, (20, 1)) @ turn
    other = Vectors(some.words, longer.astype(np.float32))
    one, two = (analogy(v, "w0", "w1", "w2", count=17, method=method) for v in (some, other))
    assert len(one) == 17 and {w for w, _ in one} == {f"w{i}" for i in range(3, 20)}
    np.testing.assert_allclose([dict(two)[w] for w, _ in one], [s for _, s in one], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("count", [0, -1])
def test_no_answers_can_not_be_asked_for(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} answers"):
        analogy(drawn(), "w0", "w1", "w2", count=count)


def test_an_analogy_of_all_words_has_no_answer() -> None:
    assert analogy(drawn(3), "w0", "w1", "w2") == []
    assert near(drawn(3), ["w0", "w1", "w2"]) == []


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 99))
def test_hidden_rows_are_never_neighbours(size: int, count: int, seed: int) -> None:
    some, draws = drawn(size, 3, seed), np.random.default_rng(seed)
    hidden = draws.random(size) < 0.4
    rows, scores = nearest(some, some.matrix[:2], count, hidden)
    assert rows.shape == scores.shape == (min(2, size), min(count, int((~hidden).sum())))
    assert not hidden[rows].any() and np.all(np.diff(scores, axis=1) <= 0)
    for found in rows:
        assert len(set(found.tolist())) == len(found)


def test_a_sum_of_words_is_of_their_directions() -> None:
    some = Vectors(["a", "b", "x", "y"], np.array([[100, 0], [0, 1], [1, 1], [1, 0.01]], np.float32))
    assert [word for word, _ in near(some, ["a", "b"])] == ["x", "y"]
    assert near(some, "a", minus=["a"])[0][1] == 0
    assert near(some, [], minus=["a"], count=1)[0][0] == "b"


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=25, unique=True), st.integers(0, 99))
def test_spearman_sees_ranks_only(values: list[float], seed: int) -> None:
    one = np.array(values)
    other = np.random.default_rng(seed).permutation(one)
    rho = spearman(one, other)
    assert rho is not None and -1 - 1e-12 <= rho <= 1 + 1e-12
    assert spearman(other, one) == pytest.approx(rho)
    assert spearman(np.argsort(np.argsort(one)).astype(np.float64), other) == pytest.approx(rho)
    assert spearman(-one, other) == pytest.approx(-rho)
    assert spearman(one, one) == pytest.approx(1)


def test_rows_at_length_one_keep_zeros_and_huge_numbers() -> None:
    rows = np.array([[0, 0], [3e38, 3e38], [1e-38, 0], [-3, 4]], np.float32)
    expected = [[0, 0], [0.5**0.5, 0.5**0.5], [1, 0], [-0.6, 0.8]]
    for block in (1, 3, 100):
        np.testing.assert_allclose(unit_rows(rows, block), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "one two 1\nthree four 2.5\n",
        "\ufeffone two 1\r\nthree four 2.5\r\n",
        "# a remark\n\nword1 word2 score\none two 1\nthree four 2.5\n",
        "one;two;1\n\nthree;four;2.5",
        "a\tb\tPOS\tSimLex999\n# x\none\ttwo\tN\t1\nthree\tfour\tV\t2.5\n",
        "one,two,1,extra\nthree,four,2.5,\n",
    ],
)
def test_pairs_are_read_however_they_are_written(text: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(text.encode())
    assert read_pairs(tmp_path / "p") == [Pair("one", "two", 1.0), Pair("three", "four", 2.5)]


def test_a_second_line_without_a_number_is_no_head(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("word1 word2 score\nword1 word2 rating\n")
    with pytest.raises(DataError, match="p:2: the score 'rating' is no finite number"):
        read_pairs(tmp_path / "p")
    (tmp_path / "p").write_text("a\tb\tPOS\tSimLex999\none\ttwo\tN\n")
    with pytest.raises(DataError, match="p:2: 3 fields"):
        read_pairs(tmp_path / "p")


def test_questions_are_read_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(
        "\ufeff: first  part\r\na b c d\r\n\r\n:second\n e\tf g  h \n: first part\ni j k l\n".encode()
    )
    found = read_questions(tmp_path / "q")
    assert list(found) == ["first part", "second"]
    assert found["first part"] == [Question("a", "b", "c", "d"), Question("i", "j", "k", "l")]


def test_totals_are_sums_and_kinds_are_named_only_where_there_are_two() -> None:
    one, other = Score("capitals", 10, 8, 4, {"x"}), Score("gram1", 5, 5, 1, {"y"})
    assert [t.name for t in totals([one])] == ["total"] == [t.name for t in totals([other, other])]
    whole = totals([one, other])[-1]
    assert (whole.asked, whole.covered, whole.right, whole.unknown) == (15, 13, 5, {"x", "y"})
    assert whole.accuracy == 5 / 13 and whole.coverage == 13 / 15
    assert one.unknown == {"x"}
    assert totals([])[-1].coverage == 0 and totals([])[-1].accuracy is None


def test_similarity_of_words_with_one_rank_is_undefined_and_of_repeated_words_told_once() -> None:
    some = drawn(4)
    pairs = [Pair("w0", "w1", 1), Pair("w2", "w3", 1), Pair("zz", "w1", 3), Pair("zz", "yy", 4)]
    found = evaluate_similarity(some, pairs)
    assert found.rho is None and found.with_zeros is not None and found.unknown == ("zz", "yy")
    assert evaluate_similarity(some, []).coverage == 0
