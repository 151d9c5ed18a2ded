"""Neighbours, analogies, similarity, co-occurrence: worked by hand, by brute force, by gensim and scipy; coverage is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, LinealError, UsageError
from lineal.representations import neighbours, vectors
from lineal.representations.analogies import (
    Question,
    analogy,
    evaluate_analogies,
    read_questions,
    scores_of,
    totals,
)
from lineal.representations.neighbours import NeighbourIndex, near, nearest
from lineal.representations.similarity import Pair, evaluate_similarity, ranks, read_pairs, spearman
from lineal.representations.vectors import Vectors, unit_rows

# king - man + woman = queen exactly; "zero" has no direction.
ROYAL = Vectors(
    ["man", "woman", "king", "queen", "apple", "zero", "Paris"],
    np.array(
        [[1, 0, 0], [0, 1, 0], [1, 0, 2], [0, 1, 2], [3, 3, -1], [0, 0, 0], [-1, 0, 0.1]], dtype=np.float32
    ),
)


def drawn(count: int = 300, dimensions: int = 12, seed: int = 0) -> Vectors:
    matrix = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return Vectors([f"w{i}" for i in range(count)], matrix)


def test_vectors_are_looked_up_by_word() -> None:
    assert "king" in ROYAL and "King" not in ROYAL and len(ROYAL) == 7 and ROYAL.dimensions == 3
    assert ROYAL["king"].tolist() == [1, 0, 2]
    assert ROYAL.only(["queen", "man"]).matrix.tolist() == [[0, 1, 2], [1, 0, 0]]
    with pytest.raises(DataError, match="'King'; there is one of 'king'"):
        ROYAL["King"]
    with pytest.raises(DataError, match="did you mean 'queen'"):
        ROYAL["quen"]
    with pytest.raises(DataError, match="2 words can't share 3 vectors"):
        Vectors(["a", "b"], np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match="'a' has more than one vector"):
        _ = Vectors(["a", "b", "a"], np.zeros((3, 2), np.float32)).index


def test_the_cosine_of_a_zero_vector_is_zero() -> None:
    assert ROYAL.cosine("zero", "king") == 0 == ROYAL.cosine("zero", "zero")
    assert ROYAL.cosine("king", "king") == pytest.approx(1, abs=1e-15)
    assert (ROYAL.unit[5] == 0).all()
    assert dict(near(ROYAL, "zero", 6)) == {word: 0 for word in ROYAL.words if word != "zero"}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_neighbours_are_those_of_brute_force(block: int, kept: bool, monkeypatch) -> None:
    monkeypatch.setattr(neighbours, "SCORES", block)
    monkeypatch.setattr(vectors, "KEPT", 1 << 30 if kept else 0)
    some = drawn()
    some.matrix[100:110] = some.matrix[7]
    queries = drawn(5, 12, 1).matrix
    queries[0] = some.matrix[7]
    rows, scores = nearest(some, queries, 12)
    cosine = unit_rows(queries).astype(np.float64) @ unit_rows(some.matrix).astype(np.float64).T
    assert rows[0, :11].tolist() == [7, *range(100, 110)]
    for query in range(5):
        order = np.argsort(-cosine[query].astype(np.float32), kind="stable")[:12]
        np.testing.assert_allclose(scores[query], cosine[query][order], atol=1e-6)
        np.testing.assert_allclose(cosine[query][rows[query]], cosine[query][order], atol=1e-6)


def test_near_agrees_with_gensim(tmp_path: Path) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors(12)
    some = drawn()
    keyed.add_vectors(some.words, some.matrix)
    ours = near(some, ["w3", "w5"], 8, minus=["w9"])
    theirs = keyed.most_similar(positive=["w3", "w5"], negative=["w9"], topn=8)
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], atol=1e-5)
    added = keyed.most_similar_cosmul(positive=["w3", "w5"], negative=["w9"], topn=5)
    made = analogy(some, "w9", "w3", "w5", method="mul")
    assert [word for word, _ in made] == [word for word, _ in added]


def test_near_leaves_out_what_was_asked_and_what_there_is_not() -> None:
    found = near(ROYAL, "king", 100)
    assert [word for word, _ in found][:2] == ["queen", "man"] and len(found) == 6
    with pytest.raises(DataError, match="no vector of 'emperor'"):
        near(ROYAL, "emperor")
    with pytest.raises(UsageError, match="0 neighbours"):
        near(ROYAL, "king", 0)
    with pytest.raises(UsageError, match="Nothing was asked"):
        near(ROYAL, [])


def test_an_index_finds_most_of_the_true_neighbours() -> None:
    pytest.importorskip("faiss")
    some = drawn(2000, 16)
    index = NeighbourIndex(some)
    words = some.words[:50]
    hits = sum(
        len({w for w, _ in found} & {w for w, _ in near(some, word, 10)})
        for word, found in zip(words, index.near(words, 10))
    )
    assert hits >= 0.9 * 500


def test_an_analogy_is_answered_both_ways() -> None:
    for method in ("add", "mul"):
        assert analogy(ROYAL, "man", "king", "woman", count=1, method=method)[0][0] == "queen"
        assert not {"man", "king", "woman"} & {
            w for w, _ in analogy(ROYAL, "man", "king", "woman", count=9, method=method)
        }
    with pytest.raises(UsageError, match="method='sum'"):
        analogy(ROYAL, "man", "king", "woman", method="sum")


def test_the_two_scores_are_their_formulas() -> None:
    a, b, c = 0.5, 0.25, -0.5
    cosines = np.array([[a], [b], [c]], dtype=np.float32)
    assert scores_of(cosines, "add")[0] == pytest.approx(b - a + c)
    assert scores_of(cosines, "mul")[0] == pytest.approx((0.625 * 0.25) / (0.75 + 0.001))


def test_questions_are_scored_by_section_and_what_is_unknown_is_told() -> None:
    sections = {
        "family": [
            Question("Man", "king", "WOMAN", "Queen"),
            Question("man", "king", "woman", "apple"),
            Question("man", "emperor", "woman", "empress"),
        ],
        "gram1": [Question("big", "bigger", "small", "smaller")],
    }
    first, second = scores = evaluate_analogies(ROYAL, sections)
    assert (first.asked, first.covered, first.right, first.accuracy) == (3, 2, 1, 0.5)
    assert first.unknown == {"emperor", "empress"}
    assert (second.covered, second.accuracy, second.coverage) == (0, None, 0)
    assert [(t.name, t.asked, t.covered, t.right) for t in totals(scores)] == [
        ("semantic", 3, 2, 1),
        ("syntactic", 1, 0, 0),
        ("total", 4, 2, 1),
    ]
    assert evaluate_analogies(ROYAL, sections, fold=False)[0].covered == 1
    assert evaluate_analogies(ROYAL, sections, restrict=3)[0].covered == 0


@pytest.mark.parametrize("method", ["add", "mul"])
def test_accuracy_is_that_of_one_question_at_a_time(method: str) -> None:
    some = drawn(60, 4)
    draws = np.random.default_rng(2)
    questions = [Question(*(some.words[i] for i in draws.choice(60, 4, replace=False))) for _ in range(300)]
    score = evaluate_analogies(some, {"all": questions}, method=method)[0]
    right = sum(analogy(some, q.a, q.b, q.c, count=1, method=method)[0][0] == q.answer for q in questions)
    assert score.right == right > 0


def test_gensim_counts_the_same_answers(data, tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models")
    path = data / "word_eval" / "questions-words.txt"
    text = (
        path.read_text()
        if path.exists()
        else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes()).decode()
    )
    (tmp_path / "questions.txt").write_text(text)
    sections = read_questions(tmp_path / "questions.txt")
    assert len(sections) == 14 and sum(map(len, sections.values())) == 19544
    known = sorted({w for q in sections["family"] for w in (q.a, q.b, q.c, q.answer)})
    some = Vectors(known, drawn(len(known), 5).matrix)
    keyed = models.KeyedVectors(5)
    keyed.add_vectors(known, some.matrix)
    accuracy, theirs = keyed.evaluate_word_analogies(str(tmp_path / "questions.txt"), restrict_vocab=None)
    ours = totals(evaluate_analogies(some, sections, restrict=None))[-1]
    assert ours.right == len(theirs[-1]["correct"])
    assert ours.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b c d\n", r"q:1: a question before the first section"),
        (": s\na b c\n", r"q:2: 3 words"),
        (": s\na b c d\na b c d e\n", r"q:3: 5 words"),
        (": s\n", "no question"),
        ("", "no question"),
    ],
)
def test_broken_questions_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "q").write_text(content)
    with pytest.raises(DataError, match=message):
        read_questions(tmp_path / "q")


def test_spearman_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
    def check(pairs: list[tuple[int, int]]) -> None:
        one, other = np.array(pairs, dtype=np.float64).T
        np.testing.assert_array_equal(ranks(one), stats.rankdata(one))
        ours = spearman(one, other)
        if len(set(one)) == 1 or len(set(other)) == 1:
            assert ours is None
        else:
            assert ours == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)

    check()
    assert spearman(np.zeros(1), np.zeros(1)) is None


def test_similarity_tells_what_it_covers() -> None:
    pairs = [
        Pair("king", "queen", 9),
        Pair("MAN", "woman", 5),
        Pair("king", "emperor", 8),
        Pair("man", "Apple", 3),
    ]
    found = evaluate_similarity(ROYAL, pairs, "some")
    assert (found.asked, found.covered, found.coverage, found.unknown) == (4, 3, 0.75, ("emperor",))
    cosines = [ROYAL.cosine("king", "queen"), ROYAL.cosine("man", "woman"), 0.0, ROYAL.cosine("man", "apple")]
    assert found.rho == spearman(np.array([9.0, 5, 3]), np.array([cosines[0], cosines[1], cosines[3]]))
    assert found.with_zeros == spearman(np.array([9.0, 5, 8, 3]), np.array(cosines))
    assert evaluate_similarity(ROYAL, pairs, fold=False).covered == 1
    assert evaluate_similarity(ROYAL, [Pair("x", "y", 1)]).rho is None


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("EN-WS-353-ALL.txt", 353),
        ("EN-SIMLEX-999.txt", 999),
        ("EN-MEN-TR-3k.txt", 3000),
        ("EN-RG-65.txt", 65),
    ],
)
def test_the_files_in_use_are_read(data, name: str, count: int) -> None:
    pairs = read_pairs(data / "word_eval" / name)
    assert len(pairs) == count
    assert all(pair.one and pair.other for pair in pairs)


def test_files_with_a_head_are_read(tmp_path: Path) -> None:
    (tmp_path / "ws.csv").write_text("Word 1,Word 2,Human (mean)\nlove,sex,6.77\n")
    assert read_pairs(tmp_path / "ws.csv") == [Pair("love", "sex", 6.77)]
    (tmp_path / "simlex.txt").write_text("word1\tword2\tPOS\tSimLex999\nold\tnew\tA\t1.58\n")
    assert read_pairs(tmp_path / "simlex.txt") == [Pair("old", "new", 1.58)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b 1\na b\n", r"p:2: 2 fields"),
        ("a b 1\nc d high\n", r"p:2: the score 'high'"),
        ("a b 1\nc d nan\n", r"p:2: the score 'nan'"),
        ("one two score\n", "no pair"),
    ],
)
def test_broken_pairs_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p").write_text(content)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / "p")


def test_all_errors_are_ours() -> None:
    assert issubclass(DataError, LinealError)
