"""Count models of language: they sum to one, agree with their definitions worked out by hand, and foretell real text."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lineal.errors import DataError, LinealError
from lineal.representations.ngrams import SMOOTHINGS, NGramModel, discounts
from lineal.tokenizers.corpus.documents import read_lines

TEXTS = [
    text.split()
    for text in ("the cat sat on the mat", "the dog sat", "a cat ran on", "the cat ran", "", "dog")
]


def there(path: Path) -> Path:
    """The file, or the zipped one beside it."""
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def all_words(model: NGramModel) -> list[str]:
    return model.counts.words


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "context",
    [[], ["<s>"], ["<s>", "the"], ["the", "cat"], ["no", "such"], ["<s>", "sat", "on", "the", "mat"]],
)
def test_probabilities_sum_to_one(smoothing: str, order: int, context: list[str]) -> None:
    p_V = NGramModel.fit(TEXTS, order, smoothing).distribution(context)
    assert p_V.sum() == pytest.approx(1, abs=1e-12)
    assert p_V[0] == 0 and (p_V[1:] > 0).all()


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_document_is_scored_by_its_distributions(smoothing: str, order: int) -> None:
    model = NGramModel.fit(TEXTS, order, smoothing)
    document = ["the", "dog", "flew", "on", "the", "cat"]
    marked = ["<s>", *document, "</s>"]
    expected = []
    for at in range(1, len(marked)):
        p_V = model.distribution(marked[:at])
        expected.append(math.log(p_V[model.index.get(marked[at], 2)]))
    np.testing.assert_allclose(model.logp(document), expected, atol=1e-12)


def test_add_k_is_its_definition() -> None:
    model = NGramModel.fit(TEXTS, 2, "add-k", k=0.5)
    # "the" stands four times before a word, twice before "cat"; 8 words, </s> and <unk> can follow.
    followers = Counter(
        after for text in TEXTS for word, after in zip(text, [*text[1:], "</s>"]) if word == "the"
    )
    assert followers == {"cat": 2, "mat": 1, "dog": 1}
    assert model.outcomes == 10
    p_V = model.distribution(["the"])
    assert p_V[model.index["cat"]] == pytest.approx((2 + 0.5) / (4 + 0.5 * 10))
    assert p_V[model.index["ran"]] == pytest.approx(0.5 / (4 + 0.5 * 10))
    assert model.distribution(["mat", "unheard"])[model.index["cat"]] == pytest.approx(1 / 10)


def test_kneser_ney_is_its_definition() -> None:
    model = NGramModel.fit(TEXTS, 2)
    marked = [["<s>", *text, "</s>"] for text in TEXTS]
    pairs = Counter(pair for text in marked for pair in itertools.pairwise(text))
    before = Counter(word for _, word in pairs)
    n1, n2 = (sum(count == times for count in pairs.values()) for times in (1, 2))
    d2 = n1 / (n1 + 2 * n2)
    m1, m2 = (sum(count == times for count in before.values()) for times in (1, 2))
    d1 = m1 / (m1 + 2 * m2)
    whole = sum(before.values())

    def single(word: str) -> float:
        return max(before[word] - d1, 0) / whole + d1 * len(before) / whole / model.outcomes

    def pair(context: str, word: str) -> float:
        of = [count for (one, _), count in pairs.items() if one == context]
        return max(pairs[context, word] - d2, 0) / sum(of) + d2 * len(of) / sum(of) * single(word)

    for context in ("the", "<s>", "cat"):
        p_V = model.distribution([context])
        for word in ("cat", "mat", "</s>", "<unk>", "on"):
            assert p_V[model.index[word]] == pytest.approx(pair(context, word), abs=1e-14)


def test_a_word_with_one_neighbour_is_rarely_expected_elsewhere() -> None:
    texts = [["San", "Francisco"]] * 20 + [["the", "cat"], ["a", "cat"], ["my", "cat"], ["your", "dog"]]
    model = NGramModel.fit(texts, 2)
    p_V = model.distribution(["my"])
    assert p_V[model.index["cat"]] > p_V[model.index["Francisco"]]
    assert (
        model.distribution(["dog"])[model.index["Francisco"]]
        < model.distribution(["dog"])[model.index["</s>"]]
    )


def test_discounts_are_those_of_chen_and_goodman() -> None:
    counts = np.array([1.0] * 40 + [2.0] * 15 + [3.0] * 8 + [4.0] * 5 + [9.0])
    y = 40 / 70
    assert discounts(counts, False).tolist() == [0, y, y, y]
    assert discounts(counts, True) == pytest.approx(
        [0, 1 - 2 * y * 15 / 40, 2 - 3 * y * 8 / 15, 3 - 4 * y * 5 / 8]
    )
    assert discounts(np.array([7.0]), False).tolist() == [0, 0.5, 0.5, 0.5]
    assert discounts(np.array([7.0]), True).tolist() == [0, 0.5, 1, 1.5]


def test_rare_words_are_unknown() -> None:
    model = NGramModel.fit(TEXTS, 2, min_count=2)
    assert set(all_words(model)) == {"<s>", "</s>", "<unk>", "the", "cat", "sat", "on", "dog", "ran"}
    found = model.perplexity([["the", "mat"], ["the", "cat"]])
    assert (found.tokens, found.unknown) == (6, 1)
    assert found.known < found.perplexity


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_samples_follow_the_distribution(smoothing: str) -> None:
    model = NGramModel.fit(TEXTS, 3, smoothing)
    drawn = Counter(
        (model.sample(["the"], seed=seed, max_words=1, unknown=True) or ["</s>"])[0] for seed in range(3000)
    )
    p_V = model.distribution(["<s>", "the"])
    for word, p in zip(all_words(model), p_V):
        assert abs(drawn[word] / 3000 - p) < 4.5 * math.sqrt(p * (1 - p) / 3000) + 1e-9, word


def test_a_sample_is_a_function_of_its_seed() -> None:
    model = NGramModel.fit(TEXTS, 3)
    assert model.sample(seed=3) == model.sample(seed=3)
    assert len({tuple(model.sample(seed=seed)) for seed in range(20)}) > 5
    assert len(model.sample(seed=1, max_words=2)) <= 2
    assert all("<unk>" not in model.sample(seed=seed) for seed in range(50))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"order": 0}, "order=0"),
        ({"smoothing": "kn"}, "smoothing='kn'"),
        ({"smoothing": "add-k", "k": 0.0}, "k=0"),
        ({"min_count": 100}, "No word occurs 100 times"),
    ],
)
def test_what_cannot_be_is_refused(how: dict, message: str) -> None:
    with pytest.raises(LinealError, match=message):
        NGramModel.fit(TEXTS, **how)


def test_bad_documents_are_named() -> None:
    with pytest.raises(LinealError, match="cut it into words"):
        NGramModel.fit(["the cat"])
    with pytest.raises(DataError, match="Document 1 has the word '</s>'"):
        NGramModel.fit([["a"], ["b", "</s>"]])
    with pytest.raises(DataError, match="no word in 2 documents"):
        NGramModel.fit([[], []])


def test_real_text_is_foretold_the_better_the_longer_the_context(data) -> None:
    train, held_out = (
        [line.split() for _, line in read_lines(there(data / "wikitext2" / name)) if line.strip()]
        for name in ("valid.txt", "test.txt")
    )
    held_out = held_out[:300]
    found = [NGramModel.fit(train, order, min_count=2).perplexity(held_out).perplexity for order in (1, 2, 3)]
    assert found[0] > 1.5 * found[1] > 1.5 * 0.9 * found[2]
    added = NGramModel.fit(train, 3, "add-k", k=0.1, min_count=2).perplexity(held_out).perplexity
    assert found[2] < 0.5 * added
