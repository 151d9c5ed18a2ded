"""Bags of words and TF-IDF as laws: what a part says of the whole, streams, refits, limits, and scikit-learn on any options."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.representations import term_tables
from lineal.representations.analysis import Analysis, char_ngrams, stripped, word_ngrams
from lineal.representations.counts import BagOfWords, fixed_vocabulary
from lineal.representations.one_hot import OneHot
from lineal.representations.term_tables import FlatTable, batches, table_for, word_kinds
from lineal.representations.tfidf import Tfidf, inverse_document_frequency, row_norms

sklearn = pytest.importorskip("sklearn.feature_extraction.text")
pytest.importorskip("scipy")

text = st.text(st.sampled_from("aabcde é_9東 \n.-'İß"), max_size=30)
texts = st.lists(text, min_size=1, max_size=7)
options = st.fixed_dictionaries(
    {"ngram_range": st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3)])},
    optional={
        "lowercase": st.booleans(),
        "strip_accents": st.sampled_from([None, "ascii", "unicode"]),
        "analyzer": st.sampled_from(["word", "char", "char_wb"]),
        "stop_words": st.sampled_from([None, ["aa", "bb"]]),
        "binary": st.booleans(),
        "min_df": st.sampled_from([1, 2, 0.3]),
        "max_df": st.sampled_from([1.0, 0.9, 3]),
    },
)


def both(ours: Any, theirs: Any, documents: list[str]) -> tuple[Any, Any] | None:
    """Fitted to documents; None where neither finds a term that it may keep."""
    try:
        other = theirs.fit_transform(documents)
    except ValueError:
        with pytest.raises((DataError, UsageError)):
            ours.fit_transform(documents)
        return None
    return ours.fit_transform(documents), other


@pytest.mark.filterwarnings("ignore:The parameter")
@given(texts, options, st.booleans())
@settings(max_examples=120)
def test_any_options_give_scikit_learns_numbers(
    documents: list[str], chosen: dict[str, Any], compiled: bool
) -> None:
    if chosen.get("analyzer", "word") != "word":
        chosen.pop("stop_words", None)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(term_tables, "term_core", lambda: None)
        ours = BagOfWords(**chosen)
        theirs = sklearn.CountVectorizer(**chosen)
        found = both(ours, theirs, documents)
        if found is None:
            return
        assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
        assert (found[0] != found[1]).nnz == 0
        chosen.pop("binary", None)
        weighed = both(Tfidf(**chosen), sklearn.TfidfVectorizer(**chosen), documents)
    assert weighed is not None
    np.testing.assert_allclose(weighed[0].toarray(), weighed[1].toarray(), atol=1e-12)


@given(texts, st.sampled_from([(1, 1), (1, 2), (2, 3)]))
def test_counts_are_those_of_a_counter(documents: list[str], ngrams: tuple[int, int]) -> None:
    bag = BagOfWords(ngram_range=ngrams, order="seen")
    terms = [Analysis(ngram_range=ngrams).terms()(document) for document in documents]
    if not any(terms):
        with pytest.raises(DataError, match="no term"):
            bag.fit(documents)
        return
    matrix = bag.fit_transform(documents)
    names = bag.get_feature_names_out().tolist()
    assert set(names) == {term for found in terms for term in found}
    for row, found in zip(matrix.toarray(), terms):
        assert {name: count for name, count in zip(names, row.tolist()) if count} == Counter(found)
    assert matrix.has_canonical_format


@given(texts, st.integers(1, 60))
def test_rows_do_not_depend_on_their_neighbours(documents: list[str], characters: int) -> None:
    """A document's row is the same alone, among others, in any order, and in blocks of any size."""
    fitted = BagOfWords(ngram_range=(1, 2)).fit([*documents, "aa bb"])
    whole = fitted.transform(documents).toarray()
    order = np.random.default_rng(characters).permutation(len(documents))
    assert np.array_equal(fitted.transform([documents[i] for i in order]).toarray(), whole[order])
    blocks = [block.toarray() for block in fitted.transform_blocks(iter(documents), characters)]
    assert np.array_equal(np.concatenate(blocks), whole)
    assert np.array_equal(fitted.transform(documents[:1]).toarray(), whole[:1])


@given(st.lists(text, min_size=1, max_size=12), st.integers(1, 40))
def test_batches_hold_all_documents_in_order(documents: list[str], size: int) -> None:
    made = list(batches(iter(documents), size))
    assert [document for batch in made for document in batch] == documents
    assert all(sum(map(len, batch[:-1])) < size for batch in made)


@given(texts)
def test_tfidf_rows_have_length_one_and_rare_terms_weigh_more(documents: list[str]) -> None:
    model = Tfidf(token_pattern=r"(?u)\b\w+\b")
    try:
        lengths = np.sqrt(model.fit_transform(documents).power(2).sum(axis=1))
    except DataError:
        return
    assert np.all(np.isclose(lengths, 1) | (lengths == 0))
    held = BagOfWords(vocabulary=model.vocabulary_, token_pattern=r"(?u)\b\w+\b", binary=True)
    documents_with = np.asarray(held.transform(documents).sum(axis=0)).ravel()
    order = np.argsort(documents_with)
    assert np.all(np.diff(model.idf_[order]) <= 1e-12)


@pytest.mark.parametrize("form", ["smooth", "textbook"])
def test_fit_transform_is_fit_then_transform_also_of_a_given_vocabulary(form: str) -> None:
    documents = ["aa bb aa", "bb cc", "dd"]
    for vocabulary in (None, ["bb", "aa"], {"aa": 1, "bb": 0}, {"cc", "aa"}):
        one, other = (Tfidf(form=form, vocabulary=vocabulary) for _ in range(2))
        np.testing.assert_array_equal(
            one.fit_transform(iter(documents)).toarray(),
            other.fit(iter(documents)).transform(documents).toarray(),
        )


def test_a_second_fit_forgets_the_first() -> None:
    for model in (BagOfWords(), Tfidf(), Tfidf(form="textbook"), OneHot()):
        once = type(model)(**model.get_params()).fit(["cc dd", "dd"]).transform(["dd"])
        again = model.fit(["aa bb", "bb", "aa"]).fit(["cc dd", "dd"]).transform(["dd"])
        assert np.array_equal(again.toarray(), once.toarray())


def test_a_term_that_no_document_had_is_an_error_where_its_weight_is_infinite() -> None:
    """ln(N / 0): the smooth form has a number for it, the others say so when such a term comes up."""
    ways: list[dict[str, Any]] = [
        {"form": "textbook"},
        {"smooth_idf": False},
        {"smooth_idf": False, "norm": None},
    ]
    for how in ways:
        model = Tfidf(vocabulary=["aa", "unicorn"], **how).fit(["aa", "aa bb"])
        assert np.isinf(model.idf_[1])
        assert np.isfinite(model.transform(["aa bb"]).toarray()).all()
        with pytest.raises(DataError, match="'unicorn' was in no document that fit saw"):
            model.transform(["bb", "aa unicorn"])
    assert np.isfinite(Tfidf(vocabulary=["aa", "zz"]).fit(["aa"]).transform(["zz"]).toarray()).all()


@pytest.mark.parametrize("most", [0, -3])
def test_a_limit_of_no_terms_is_refused(most: int) -> None:
    with pytest.raises(UsageError, match=f"max_features={most}"):
        BagOfWords(max_features=most).fit(["aa bb"])


@given(texts, st.integers(1, 4))
def test_the_terms_that_are_kept_are_the_most_frequent(documents: list[str], most: int) -> None:
    bag = BagOfWords()
    try:
        whole = bag.fit_transform(documents)
    except DataError:
        return
    times = dict(zip(bag.get_feature_names_out(), np.asarray(whole.sum(axis=0)).ravel().tolist()))
    expected = sorted(sorted(times, key=lambda term: (-times[term], term))[:most])
    assert BagOfWords(max_features=most).fit(documents).get_feature_names_out().tolist() == expected


def test_many_batches_count_as_one() -> None:
    draws = np.random.default_rng(0)
    documents = [" ".join(f"w{i}" for i in draws.geometric(0.02, 200)) for _ in range(600)]
    assert len(list(batches(documents))) > 1
    ours, theirs = (
        BagOfWords(min_df=3, ngram_range=(1, 2)),
        sklearn.CountVectorizer(min_df=3, ngram_range=(1, 2)),
    )
    assert (ours.fit_transform(documents) != theirs.fit_transform(documents)).nnz == 0
    assert (ours.fit(documents).transform(documents) != theirs.transform(documents)).nnz == 0


def test_documents_without_terms_are_rows_of_zeros() -> None:
    for model in (BagOfWords(), Tfidf(), Tfidf(form="textbook"), Tfidf(norm="l1")):
        matrix = model.fit_transform(["", "aa bb", " . ", "zz"])
        assert matrix.shape == (4, 3) and matrix[[0, 2]].nnz == 0
        assert model.transform([]).shape == (0, 3)
        assert model.transform(["unheard of", ""]).nnz == 0


def test_the_core_takes_texts_of_any_alphabet_in_turn() -> None:
    """Each highest character needs a larger table of kinds; words and counts stay the same over all of them."""
    table = table_for(Analysis())
    for number, word in enumerate(["plain", "naïve", "東京都", "𝔘𝔫𝔦", "plain", "\ud800ab"]):
        found = table.count([f"{word} aa"], True)
        assert found.count_N.tolist() == [1] * len(found.node_N), number
    assert table.terms()[:5] == ["plain", "aa", "naïve", "東京都", "𝔘𝔫𝔦"]
    assert [len(word_kinds(code)) for code in (0x7F, 0x80, 0x3000, 0x10000)] == [
        0x80,
        0x3000,
        0x10000,
        0x110000,
    ]


def test_more_terms_than_keys_have_room_for_are_refused(monkeypatch) -> None:
    core = term_tables.term_core()
    if core is None:
        pytest.skip("nothing was compiled at install")
    monkeypatch.setattr(term_tables, "MOST", 64)
    table = FlatTable(core, Analysis())
    with pytest.raises(DataError, match="More than 32 different words and n-grams: shorten ngram_range"):
        for i in range(200):
            table.count([f"word{i} other{i}"], True)


@given(st.lists(st.sampled_from("abc"), max_size=7), st.integers(1, 4), st.integers(0, 3))
def test_ngrams_are_all_runs(words: list[str], low: int, more: int) -> None:
    runs = [
        words[a:b]
        for n in range(low, low + more + 1)
        for a, b in ((i, i + n) for i in range(len(words) - n + 1))
    ]
    assert word_ngrams(words, low, low + more) == [" ".join(run) for run in runs]
    joined = "".join(words)
    assert char_ngrams(joined, low, low + more) == ["".join(run) for run in runs]


def test_accents_go_and_letters_stay() -> None:
    assert stripped("Œuvre naïve ﬁn Ångström", "unicode") == "Œuvre naive fin Angstrom"
    assert stripped("naïve 東京 ñ", "ascii") == "naive  n"
    assert stripped("plain", "ascii") == "plain"


def test_a_vocabulary_is_taken_as_it_is_given() -> None:
    assert fixed_vocabulary({"b", "a"}) == {"a": 0, "b": 1} == fixed_vocabulary({"b": 1, "a": 0})
    assert fixed_vocabulary(iter(["b", "a"])) == {"b": 0, "a": 1}
    for wrong, message in (
        ({"a": 0, "b": 0}, "must be 0 to 1"),
        ({"a": -1}, "0 to 0"),
        (["x", "y", "x"], "'x' twice"),
    ):
        with pytest.raises(DataError, match=message):
            fixed_vocabulary(wrong)
    with pytest.raises(UsageError, match="One string was given"):
        fixed_vocabulary("abc")


def test_the_two_factors_by_hand() -> None:
    in_V = np.array([1, 2, 4])
    np.testing.assert_allclose(inverse_document_frequency(in_V, 4, False, False), np.log([4, 2, 1]))
    np.testing.assert_allclose(
        inverse_document_frequency(in_V, 4, True, True), np.log(5 / np.array([2, 3, 5])) + 1
    )
    np.testing.assert_allclose(inverse_document_frequency(in_V, 4, True, False), np.log([4, 2, 1]) + 1)
    weights, pointer = np.array([3.0, 4.0, -2.0]), np.array([0, 0, 2, 2, 3, 3])
    assert row_norms(weights, pointer, "l2").tolist() == [1, 5, 1, 2, 1]
    assert row_norms(weights, pointer, "l1").tolist() == [1, 7, 1, 2, 1]


def test_one_hot_says_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="call fit first"):
        OneHot().get_feature_names_out()
    with pytest.raises(UsageError, match="call fit first"):
        OneHot().transform(["a"])
    for given_one in (OneHot().fit, OneHot().fit_transform, OneHot().fit(["a"]).transform):
        with pytest.raises(UsageError, match="One string was given"):
            given_one("abc")
    with pytest.raises(UsageError, match="unknown='ignore'"):
        OneHot(unknown="ignore").fit(["a"])
    with pytest.raises(UsageError, match="no option 'order'"):
        OneHot().set_params(order="seen")
    with pytest.raises(DataError, match="vocabulary is empty"):
        OneHot().fit([])


@given(st.lists(st.sampled_from(["a", "b", "c", "é"]), min_size=1, max_size=9))
def test_one_hot_is_scikit_learns_encoder(words: list[str]) -> None:
    encoder = pytest.importorskip("sklearn.preprocessing").OneHotEncoder(handle_unknown="ignore")
    names = sorted(set(words))
    theirs = encoder.fit(np.array(names)[:, None]).transform(np.array([*words, "zz"])[:, None])
    ours = OneHot(vocabulary=names, unknown="zeros").fit(words).transform([*words, "zz"])
    assert np.array_equal(ours.toarray(), theirs.toarray())
