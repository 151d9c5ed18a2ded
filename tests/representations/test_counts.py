"""Bags of words and TF-IDF: scikit-learn's numbers, compiled and not; limits, streams, pipelines, bad input."""

from __future__ import annotations

import importlib.util
import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.representations.core
from lineal.errors import DataError, LinealError, UsageError
from lineal.representations import counts, term_tables
from lineal.representations.analysis import Analysis, char_ngrams, char_ngrams_within_words, word_ngrams
from lineal.representations.counts import BagOfWords
from lineal.representations.one_hot import OneHot
from lineal.representations.term_tables import DictTable, FlatTable
from lineal.representations.tfidf import Tfidf

pytest.importorskip("scipy")

TEXTS = [
    "The quick brown fox jumps over the lazy dog",
    "the the THE dog's dogs; a I x_y 42 4",
    "",
    "naïve Café ŒUVRE 東京 東 … — straße İstanbul",
    "fox\x00dog fox\ndog\tcat\u00a0cat\x85bird \ud800 𝔘𝔫𝔦",
    "the quick dog",
]
OPTIONS = [
    {},
    {"ngram_range": (1, 2)},
    {"ngram_range": (2, 3)},
    {"ngram_range": (1, 4), "min_df": 2},
    {"stop_words": ["the", "dog", "don't", "Fox"], "ngram_range": (1, 2)},
    {"lowercase": False, "max_df": 0.5},
    {"strip_accents": "unicode"},
    {"strip_accents": "ascii", "binary": True},
    {"token_pattern": r"(?u)\b\w+\b"},
    {"token_pattern": r"(\w)\w*"},
    {"analyzer": "char", "ngram_range": (2, 3)},
    {"analyzer": "char_wb", "ngram_range": (1, 5)},
    {"vocabulary": ["fox", "the", "unicorn", "dog"]},
    {"vocabulary": {"quick dog": 1, "fox": 0}, "ngram_range": (1, 2)},
    {"analyzer": str.split},
]


def as_python() -> Any:
    """The core's source, run by the interpreter on plain memory views."""
    pytest.importorskip("cython")
    path = f"{lineal.representations.core.__path__[0]}/terms.py"
    spec = importlib.util.spec_from_file_location("terms_as_python", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return SimpleNamespace(
        count=lambda *arrays: module.count(*map(memoryview, arrays)),
        place=lambda *arrays: module.place(*map(memoryview, arrays)),
    )


@pytest.fixture(params=["compiled", "python"])
def core(request) -> Any:
    found = term_tables.term_core() if request.param == "compiled" else as_python()
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


def found_by(table: Any, texts: list[str], grow: bool = True) -> list[dict[str, int]]:
    """The counts of each document by term."""
    counted = table.count(texts, grow)
    terms, start, found = table.terms(), 0, []
    for end in counted.end_B:
        nodes, times = counted.node_N[start:end].tolist(), counted.count_N[start:end].tolist()
        found.append({terms[node]: count for node, count in zip(nodes, times)})
        assert len(found[-1]) == end - start
        start = end
    return found


def test_the_tables_agree(core) -> None:
    text = st.text(st.sampled_from("aab cdé_9東 \n.-𝔘"), max_size=40) | st.text(max_size=20)

    @given(
        st.lists(text, max_size=5),
        st.lists(text, max_size=3),
        st.sampled_from([(1, 1), (1, 3), (2, 3), (3, 3)]),
    )
    def check(texts: list[str], others: list[str], ngrams: tuple[int, int]) -> None:
        analysis = Analysis(ngram_range=ngrams, stop_words=["aa", "b."])
        plain, flat = DictTable(analysis), FlatTable(core, analysis)
        for part, grow in ((texts, True), (others, False), (others[:1], True)):
            assert found_by(plain, part, grow) == found_by(flat, part, grow)
        left, right = plain.count(texts, False), flat.count(texts, False)
        assert left.total_B.tolist() == right.total_B.tolist()
        documents = dict(zip(flat.terms(), flat.document_counts().tolist()))
        assert {t: n for t, n in documents.items() if n > 0} == dict(
            zip(plain.terms(), plain.document_counts().tolist())
        )

    check()


def test_long_words_and_many_of_them(core) -> None:
    texts = ["x" * n for n in range(2, 40)] + [f"{'y' * 30}{i}" for i in range(300)]
    plain, flat = DictTable(Analysis()), FlatTable(core, Analysis())
    assert found_by(plain, texts) == found_by(flat, texts)
    assert found_by(plain, [" ".join(texts)]) == found_by(flat, [" ".join(texts)])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_numbers_are_scikit_learns(options: dict, compiled: bool, monkeypatch) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    if not compiled:
        monkeypatch.setattr(term_tables, "term_core", lambda: None)
    for ours, theirs in ((BagOfWords, text.CountVectorizer), (Tfidf, text.TfidfVectorizer)):
        mine, other = ours(**options), theirs(**options)
        one, two = mine.fit_transform(TEXTS), other.fit_transform(TEXTS)
        assert mine.get_feature_names_out().tolist() == other.get_feature_names_out().tolist()
        np.testing.assert_allclose(one.toarray(), two.toarray(), atol=1e-12, rtol=1e-12)
        assert one.has_sorted_indices and one.dtype == two.dtype
        again = ["the fox unheard of", "quick dog", ""]
        np.testing.assert_allclose(
            mine.transform(again).toarray(), other.transform(again).toarray(), atol=1e-12
        )
        np.testing.assert_array_equal(mine.fit(TEXTS).transform(TEXTS).toarray(), one.toarray())


@pytest.mark.parametrize(
    "options",
    [
        {"sublinear_tf": True},
        {"norm": "l1"},
        {"norm": None},
        {"smooth_idf": False},
        {"use_idf": False},
        {"use_idf": False, "norm": None, "sublinear_tf": True},
    ],
    ids=str,
)
def test_the_switches_are_scikit_learns(options: dict) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    ours, theirs = Tfidf(**options), text.TfidfVectorizer(**options)
    np.testing.assert_allclose(
        ours.fit_transform(TEXTS).toarray(), theirs.fit_transform(TEXTS).toarray(), atol=1e-12
    )
    if options.get("use_idf", True):
        np.testing.assert_allclose(ours.idf_, theirs.idf_, atol=1e-12)


def test_real_reviews_have_scikit_learns_numbers(data) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    from lineal.tokenizers.corpus.documents import read_texts

    path = data / "imdb" / "test-4000.jsonl"
    path = path if path.exists() else path.with_name(f"{path.name}.gz")
    texts = [row for row, _ in zip(read_texts(path, rows=True), range(150))]
    for options in ({}, {"ngram_range": (1, 2), "min_df": 2, "max_df": 0.5}):
        ours, theirs = Tfidf(**options), text.TfidfVectorizer(**options)
        difference = abs(ours.fit_transform(texts) - theirs.fit_transform(texts)).max()
        assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
        assert difference < 1e-12


def test_a_pipeline_takes_it_and_searches_its_options() -> None:
    pytest.importorskip("sklearn")
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    texts = [f"good fine {i}" for i in range(10)] + [f"bad poor {i}" for i in range(10)]
    labels = [1] * 10 + [0] * 10
    pipeline = make_pipeline(Tfidf(min_df=1), LogisticRegression())
    assert pipeline.fit(texts, labels).score(texts, labels) == 1
    search = GridSearchCV(
        pipeline, {"tfidf__ngram_range": [(1, 1), (1, 2)], "tfidf__form": ["smooth", "textbook"]}, cv=2
    )
    assert search.fit(texts, labels).best_score_ == 1
    copy = clone(Tfidf(stop_words=["a"], form="textbook"))
    assert copy.get_params() == Tfidf(stop_words=["a"], form="textbook").get_params()
    with pytest.raises(UsageError, match="has no option 'nonsense'"):
        copy.set_params(nonsense=1)


def test_a_stream_gives_the_same_as_a_list() -> None:
    whole = Tfidf().fit_transform(TEXTS)
    streamed = Tfidf().fit(text for text in TEXTS)
    blocks = list(streamed.transform_blocks((text for text in TEXTS), characters=20))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate([b.toarray() for b in blocks]), whole.toarray())


def test_limits_keep_the_most_frequent() -> None:
    bag = BagOfWords(max_features=2).fit(["aa bb cc", "bb cc", "cc dd dd dd"])
    assert bag.get_feature_names_out().tolist() == ["cc", "dd"]
    # bb and aa are as frequent as each other: the first in the alphabet stays.
    assert BagOfWords(max_features=1).fit(["bb aa", "aa bb"]).vocabulary_ == {"aa": 0}
    assert BagOfWords(min_df=2, max_df=0.9).fit(["aa bb cc", "bb cc", "cc"]).vocabulary_ == {"bb": 0}


def test_terms_can_be_had_back() -> None:
    bag = BagOfWords(order="seen")
    assert bag.inverse_transform(bag.fit_transform(["zz aa zz", "", "aa"])) == [["zz", "aa"], [], ["aa"]]


@pytest.mark.parametrize(
    ("options", "texts", "message"),
    [
        ({}, "a text", "One string was given"),
        ({}, ["", " . "], "no term in 2 documents"),
        ({}, [], "no term in 0 documents"),
        ({"stop_words": ["aa"]}, ["aa"], "no term"),
        ({}, ["aa", 5], "Document 1 is int"),
        ({"min_df": 2, "max_df": 1}, ["aa"], "nothing is between"),
        ({"min_df": 3}, ["aa", "bb"], "nothing is between|No term"),
        ({"max_df": 0.5}, ["aa bb", "aa bb"], "No term of 2 documents is left"),
        ({"min_df": 1.5}, ["aa"], "min_df=1.5"),
        ({"max_df": 0}, ["aa"], "max_df=0"),
        ({"ngram_range": (2, 1)}, ["aa"], "ngram_range"),
        ({"analyzer": "sentence"}, ["aa"], "analyzer='sentence'"),
        ({"token_pattern": "("}, ["aa"], "is no pattern"),
        ({"token_pattern": "(a)(b)"}, ["aa"], "several groups"),
        ({"strip_accents": "all"}, ["aa"], "strip_accents"),
        ({"stop_words": "english"}, ["aa"], "give a list of words"),
        ({"order": "random"}, ["aa"], "order="),
        ({"vocabulary": []}, ["aa"], "vocabulary is empty"),
        ({"vocabulary": ["aa", "aa"]}, ["aa"], "'aa' twice"),
        ({"vocabulary": {"aa": 1}}, ["aa"], "must be 0 to 0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, texts: Any, message: str) -> None:
    with pytest.raises(LinealError, match=message):
        BagOfWords(**options).fit(texts)


def test_textbook_and_scikit_learns_switches_do_not_mix() -> None:
    with pytest.raises(UsageError, match="textbook' has no norm"):
        Tfidf(form="textbook", norm="l1").fit(["aa"])
    with pytest.raises(UsageError, match="form="):
        Tfidf(form="smoot").fit(["aa"])
    with pytest.raises(UsageError, match="norm="):
        Tfidf(norm="l3").fit(["aa"])
    with pytest.raises(UsageError, match="call fit first"):
        Tfidf().transform(["aa"])
    with pytest.raises(UsageError, match="call fit first"):
        Tfidf(vocabulary=["aa"]).transform(["aa"])


def test_without_scipy_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.sparse", None)
    monkeypatch.setitem(__import__("sys").modules, "scipy", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'lineal[counts]'")):
        counts.sparse()


def test_terms_of_a_text() -> None:
    assert word_ngrams(["a", "b", "c"], 1, 2) == ["a", "b", "c", "a b", "b c"]
    assert word_ngrams(["a"], 2, 3) == []
    assert char_ngrams("ab  c", 2, 3) == ["ab", "b ", " c", "ab ", "b c"]
    assert char_ngrams_within_words("ab c", 3, 4) == [" ab", "ab ", " ab ", " c "]


def test_one_hot_times_a_matrix_is_a_look_up() -> None:
    words = ["b", "a", "c", "a"]
    hot = OneHot().fit(words)
    rows = hot.transform(words)
    assert rows.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    matrix = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(rows @ matrix, matrix[[0, 1, 2, 1]])
    gradient = np.random.default_rng(1).standard_normal((4, 4))
    scattered = np.zeros((3, 4))
    np.add.at(scattered, [0, 1, 2, 1], gradient)
    np.testing.assert_allclose(rows.T @ gradient, scattered, atol=1e-15)
    with pytest.raises(DataError, match="Word 1, 'z', is not in the vocabulary"):
        hot.transform(["a", "z"])
    assert OneHot(unknown="zeros").fit(["a"]).transform(["z", "a"]).toarray().tolist() == [[0], [1]]
    assert hot.get_feature_names_out().tolist() == ["b", "a", "c"]
    assert json.dumps(hot.get_params()) == '{"vocabulary": null, "unknown": "refuse"}'
