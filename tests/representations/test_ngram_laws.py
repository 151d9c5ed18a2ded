"""n-gram models against their definitions written with dictionaries, on any small texts; and what no smoothing may do."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.representations.ngram_counts import count_ngrams
from lineal.representations.ngrams import SMOOTHINGS, NGramModel, discounts

texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=7), min_size=1, max_size=6).filter(any)
Gram = tuple[str, ...]


def marked(documents: Sequence[Sequence[str]]) -> list[Gram]:
    return [("<s>", *document, "</s>") for document in documents]


def grams(documents: Sequence[Sequence[str]], length: int) -> Counter[Gram]:
    """How often each run of words occurs."""
    return Counter(
        words[i : i + length] for words in marked(documents) for i in range(len(words) - length + 1)
    )


class ByHand:
    """Interpolated Kneser-Ney as Chen and Goodman write it, with dictionaries."""

    def __init__(self, documents: Sequence[Sequence[str]], order: int, modified: bool) -> None:
        self.order = order
        self.outcomes = len({word for words in marked(documents) for word in words} | {"<unk>"}) - 1
        self.adjusted: list[dict[Gram, int]] = []
        self.discounts = []
        for length in range(1, order + 1):
            plain, longer = grams(documents, length), grams(documents, length + 1)
            before: dict[Gram, set[str]] = defaultdict(set)
            for gram in longer:
                before[gram[1:]].add(gram[0])
            counts = {
                gram: times if length == order or gram[0] == "<s>" else len(before[gram])
                for gram, times in plain.items()
                if gram != ("<s>",)
            }
            self.adjusted.append(counts)
            self.discounts.append(discounts(np.array([*counts.values(), 0.0]), modified))

    def p(self, word: str, context: Gram) -> float:
        """P(word | context), the context as long as the order lets it be."""
        context = context[max(0, len(context) - self.order + 1) :]
        counts, taken = self.adjusted[len(context)], self.discounts[len(context)]
        lower = self.p(word, context[1:]) if context else 1 / self.outcomes
        followers = {gram[-1]: times for gram, times in counts.items() if gram[:-1] == context}
        whole = sum(followers.values())
        if not whole:
            return lower
        own = followers.get(word, 0)
        left = sum(taken[min(times, 3)] for times in followers.values())
        return (own - taken[min(own, 3)]) / whole + left / whole * lower


@given(texts, st.integers(1, 4), st.booleans(), st.lists(st.sampled_from("abcdz"), max_size=5))
@settings(max_examples=60)
def test_kneser_ney_of_any_order_is_its_definition(
    documents: list[list[str]], order: int, modified: bool, asked: list[str]
) -> None:
    model = NGramModel.fit(documents, order, "modified-kneser-ney" if modified else "kneser-ney")
    hand = ByHand(documents, order, modified)
    words = ["<s>", *(word if word in model.index else "<unk>" for word in asked), "</s>"]
    expected = [math.log(hand.p(words[i], tuple(words[:i]))) for i in range(1, len(words))]
    np.testing.assert_allclose(model.logp(asked), expected, atol=1e-10)


@given(texts, st.integers(1, 4), st.floats(0.01, 5), st.lists(st.sampled_from("abcdz"), max_size=5))
def test_add_k_of_any_order_is_its_definition(
    documents: list[list[str]], order: int, k: float, asked: list[str]
) -> None:
    model = NGramModel.fit(documents, order, "add-k", k=k)
    words = ["<s>", *(word if word in model.index else "<unk>" for word in asked), "</s>"]
    for i, found in enumerate(model.logp(asked), 1):
        context = tuple(words[max(0, i - order + 1) : i])
        joint = grams(documents, len(context) + 1)
        whole = sum(times for gram, times in joint.items() if gram[:-1] == context and gram != ("<s>",))
        expected = (joint[(*context, words[i])] + k) / (whole + k * model.outcomes)
        assert found == pytest.approx(math.log(expected), abs=1e-10)


@given(
    texts,
    st.integers(1, 4),
    st.sampled_from(SMOOTHINGS),
    st.lists(st.sampled_from(["<s>", *"abcdz"]), max_size=5),
)
def test_any_context_has_a_distribution(
    documents: list[list[str]], order: int, smoothing: str, context: list[str]
) -> None:
    model = NGramModel.fit(documents, order, smoothing)
    p_V = model.distribution(context)
    assert p_V.sum() == pytest.approx(1, abs=1e-10) and p_V[0] == 0 and np.all(p_V[1:] > 0)


@given(texts, st.integers(1, 3))
def test_counts_of_each_length_are_those_of_runs(documents: list[list[str]], order: int) -> None:
    counts = count_ngrams(documents, order)
    size, names = len(counts.words), [(word,) for word in counts.words]
    before: list[Gram] = []
    for length, table in enumerate(counts.tables, 1):
        assert np.all(np.diff(table.key_N) > 0)
        if length > 1:
            names = [(*names[key // size], counts.words[key % size]) for key in table.key_N.tolist()]
        found = dict(zip(names, table.count_N.tolist()))
        assert {gram: times for gram, times in found.items() if times} == grams(documents, length)
        assert [gram[0] == "<s>" for gram in names] == table.starts_N.tolist()
        if length > 1:
            shorter = [before[node] for node in table.suffix_N.tolist()]
            assert shorter == [gram[1:] for gram in names]
        before = names


def test_perplexity_is_two_to_the_cross_entropy_of_its_words() -> None:
    model = NGramModel.fit([list("abab"), list("ab")], 2)
    documents = [list("ab"), list("bz"), []]
    every = np.concatenate([model.logp(document) for document in documents])
    found = model.perplexity(iter(documents))
    assert found.tokens == len(every) == 7 and found.unknown == 1
    assert found.perplexity == pytest.approx(2 ** (-every.mean() / math.log(2)))
    with pytest.raises(UsageError, match="no document to measure"):
        model.perplexity([])


def test_a_model_foretells_its_own_text_better_than_a_stranger_s() -> None:
    draws = np.random.default_rng(0)
    own = [[*"abc"[i % 3 :], *"abc"] * 3 for i in range(20)]
    other = [[str(word) for word in draws.choice(list("abc"), 9)] for _ in range(20)]
    for smoothing in SMOOTHINGS:
        model = NGramModel.fit(own, 3, smoothing)
        assert model.perplexity(own).perplexity < 0.7 * model.perplexity(other).perplexity


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_samples_are_made_of_known_words_and_end(smoothing: str) -> None:
    model = NGramModel.fit([list("abc"), list("abd"), list("xyz")], 3, smoothing, k=0.01)
    for seed in range(30):
        words = model.sample(["a"], seed=seed, max_words=6)
        assert len(words) <= 6 and set(words) <= set("abcdxyz")
    assert model.sample(["a"], seed=1, max_words=0) == []
    # After a word that was never seen the shorter contexts decide.
    assert set(model.sample(["never", "seen"], seed=2, max_words=4)) <= set("abcdxyz")


def test_the_mark_of_unknown_words_may_stand_in_a_text() -> None:
    model = NGramModel.fit([["a", "<unk>", "b"], ["a", "<unk>"]], 2)
    assert model.logp(["a", "zz"])[1] == model.logp(["a", "<unk>"])[1]
    with pytest.raises(DataError, match="Document 1 has the word '<s>'"):
        NGramModel.fit([["a"], ["<s>"]])
