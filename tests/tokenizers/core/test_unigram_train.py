"""The compiled steps of training and the same file as Python, against the plain steps on words as text."""

from __future__ import annotations

import importlib.util
import math
from array import array
from types import ModuleType

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.tokenizers.unigram_lattice import Lattice, lattice_cores
from lineal.tokenizers.unigram_train import PlainLearner, UnigramTraining, digamma, learn, losses, runs

FOLDER = lineal.tokenizers.core.__path__[0]


def as_python(name: str) -> ModuleType:
    """A core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{FOLDER}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["compiled", "python"])
def cores(request) -> tuple[ModuleType, ModuleType]:
    found = (
        lattice_cores()
        if request.param == "compiled"
        else (as_python("suffixes"), as_python("unigram_train"))
    )
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


letters = st.text(st.sampled_from("abcé"), min_size=1, max_size=20)
corpora = st.dictionaries(
    st.builds("{}{}".format, st.sampled_from(["", "▁"]), letters), st.integers(1, 9), min_size=1, max_size=20
)
trainings = st.builds(
    UnigramTraining, longest=st.sampled_from([1, 3, 16]), seeds=st.sampled_from([1, 10, 10**6])
)


def both(corpus, training, cores) -> tuple[PlainLearner, Lattice, list[str]]:
    words, alphabet = runs({word.encode(): count for word, count in corpus.items()}, training)
    return PlainLearner(words, alphabet, training), Lattice(words, alphabet, training, cores), alphabet


def alike(one: dict[str, float], two: dict[str, float]) -> bool:
    return one.keys() == two.keys() and all(abs(one[piece] - two[piece]) < 1e-9 for piece in one)


@given(corpus=corpora, training=trainings)
def test_seeds(cores, corpus, training) -> None:
    plain, lattice, _ = both(corpus, training, cores)
    assert alike(plain.pieces(), lattice.pieces()) and len(plain) == len(lattice)


@given(corpus=corpora, training=trainings)
def test_rounds_and_prunings(cores, corpus, training) -> None:
    plain, lattice, alphabet = both(corpus, training, cores)
    for _ in range(3):
        assert plain.improve() == pytest.approx(lattice.improve(), rel=1e-9)
        assert alike(plain.pieces(), lattice.pieces())
        size = max(len(alphabet), int(0.8 * len(plain)))
        worth = sorted(losses(plain._words, plain.pieces()).values(), reverse=True)
        # Sums in another order differ in their last digits, so equal losses may fall either way.
        assume(size >= len(worth) or worth[size - 1] - worth[size] > 1e-9 or worth[size - 1] == math.inf)
        plain.prune(size)
        lattice.prune(size)
        assert alike(plain.pieces(), lattice.pieces())


def test_a_word_whose_probability_no_number_holds(cores) -> None:
    """5,000 characters at about 1/30 each: 10^-7000, far below what a double can say."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    word = "".join(letters[(7 * at * at + at // 5) % 26] for at in range(5000))
    training = UnigramTraining(longest=1)
    words, alphabet = runs({word.encode(): 2, b"zebra": 1}, training)
    lattice = Lattice(words, alphabet, training, cores)
    scores = lattice.pieces()
    expected = sum(count * scores[letter] for text, count in words.items() for letter in text)
    assert lattice.improve() == pytest.approx(expected, rel=1e-9)
    total = sum(len(text) * count for text, count in words.items())
    for letter, score in lattice.pieces().items():
        count = sum(count * text.count(letter) for text, count in words.items())
        assert score == pytest.approx(digamma(count) - digamma(total), abs=1e-6)


def test_a_long_word_with_choices_keeps_its_count(cores) -> None:
    """All cuts have 3,000 characters, however they are weighed: expected counts times lengths add up to that."""
    word = "".join("abc"[(at * at // 7) % 3] for at in range(3000))
    training = UnigramTraining(longest=4)
    words, alphabet = runs({word.encode(): 1}, training)
    lattice = Lattice(words, alphabet, training, cores)
    chances = array("d", map(math.exp, lattice._scores))
    expected = array("d", bytes(8 * len(lattice)))
    where = lattice._words, lattice._counts, (lattice._first, lattice._lengths, lattice._tokens)
    lattice._steps.expect(*where, chances, expected, lattice._work, lattice._back)
    assert sum(count * size for count, size in zip(expected, lattice._sizes)) == pytest.approx(3000, rel=1e-9)


@given(x=st.floats(0.01, 1e6))
def test_digamma(cores, x) -> None:
    values = array("d", (x, x + 1))
    cores[1].digamma(values)
    assert values[0] == pytest.approx(digamma(x), rel=1e-12)
    assert values[1] - values[0] == pytest.approx(1 / x, rel=1e-5)


def test_a_whole_training(cores) -> None:
    corpus = {
        "▁" + word: 1 + at % 7
        for at, word in enumerate(["hug", "hugs", "pug", "pun", "bun", "banana", "bandana"])
    }
    training = UnigramTraining(shrink=0.8)
    plain, lattice, alphabet = both(corpus, training, cores)
    size = len(alphabet) + 4
    ours = [learn(learner, size, training, lambda done, total: None) for learner in (plain, lattice)]
    assert alike(*ours) and len(ours[0]) == size and set(alphabet) <= ours[0].keys()


def test_a_place_that_loses_its_pieces_is_left_empty(cores) -> None:
    first, lengths, tokens = array("i", [0, 2, 2, 5]), bytearray([1, 2, 1, 3, 4]), array("i", [0, 1, 2, 1, 0])
    assert cores[1].compact(first, lengths, tokens, array("i", [0, -1, 1])) == 3
    assert list(first) == [0, 1, 1, 3] and list(lengths[:3]) == [1, 1, 4] and list(tokens[:3]) == [0, 1, 0]
