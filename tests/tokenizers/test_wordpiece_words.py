"""WordPiece and word level at their limits: long words, the memory's edge, great vocabularies; training by brute force."""

from __future__ import annotations

import random
import warnings
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lineal.errors import DataError, LinealError
from lineal.tokenizers import matching, wordpiece, wordpiece_train
from lineal.tokenizers.corpus.counting import PieceCounts
from lineal.tokenizers.matching import MOST, Matcher, matching_core
from lineal.tokenizers.wordpiece import WordPiece, train_wordpiece
from lineal.tokenizers.words import WordLevel, train_words


def spans(pieces: list[bytes]) -> tuple[bytes, array[int]]:
    """Pieces one behind the other, as a splitter gives them."""
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return b"".join(pieces), array("i", [at for pair in pairwise(ends) for at in pair])


def greedy(vocabulary: Mapping[str, int], word: str, unknown: int, longest: int) -> list[int]:
    """The rule on characters, as it is told: the longest candidate first, one character less each time."""
    if len(word) > longest:
        return [unknown]
    found: list[int] = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            token = ("##" if start else "") + word[start:end]
            if token in vocabulary:
                found.append(vocabulary[token])
                break
        else:
            return [unknown]
        start = end
    return found


@pytest.fixture(params=["core", "python"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both forms of encoding."""
    if request.param == "python":
        monkeypatch.setattr(matching, "matching_core", lambda: None)
    elif matching_core() is None:
        pytest.skip("nothing was compiled at install")
    yield request.param


PARTS = ["a", "b", "é", "語", "😀", "\0", "#"]
TOKENS = st.lists(st.tuples(st.booleans(), st.text(PARTS, min_size=1, max_size=5)), max_size=25)


@pytest.mark.parametrize("near", [0, 5, 6, 7, 13])
def test_the_longest_match_of_every_length_around_the_memorys_limits(how: str, near: int):
    @given(TOKENS, st.lists(st.text(PARTS, max_size=6), min_size=1, max_size=10), st.randoms())
    def check(parts: list[tuple[bool, str]], words: list[str], chance: random.Random) -> None:
        names = dict.fromkeys(["?", *("##" * inside + text for inside, text in parts)])
        vocabulary = {token: i for i, token in enumerate(names)}
        model = WordPiece([token.encode() for token in vocabulary], unknown=0)
        words = [
            word + chance.choice("ab") * max(0, near - len(word.encode()) + chance.randint(-1, 1))
            for word in words
        ]
        chance.shuffle(words)
        for _ in range(2):
            expected = [index for word in words for index in greedy(vocabulary, word, 0, 100)]
            assert model.encode(*spans([word.encode() for word in words])) == expected

    check()


@given(TOKENS, st.text(PARTS, max_size=12))
def test_no_token_of_a_word_could_be_longer(parts: list[tuple[bool, str]], word: str):
    tokens = [b"?", *(b"##" * inside + text.encode() for inside, text in parts)]
    piece, known = word.encode(), set(tokens)
    found = WordPiece(tokens, unknown=0).segment(piece)
    if found == [(0, 0, len(piece))] and piece != b"?":
        return
    assert [start for _, start, _ in found] == [0, *(end for _, _, end in found)][: len(found)]
    assert b"".join(piece[start:end] for _, start, end in found) == piece
    for index, start, end in found:
        assert tokens[index] == b"##" * (start > 0) + piece[start:end]
        assert not any(
            b"##" * (start > 0) + piece[start:to] in known for to in range(end + 1, len(piece) + 1)
        )


@pytest.mark.parametrize("letter", ["a", "é", "語", "😀"])
def test_words_of_about_a_hundred_characters(how: str, letter: str):
    model = WordPiece(
        [b"?", letter.encode(), b"##" + letter.encode(), b"##" + (letter * 3).encode()], unknown=0
    )
    vocabulary = {token.decode(): i for i, token in enumerate(model.tokens)}
    words = [letter * length for length in (1, 2, 3, 4, 98, 99, 100, 101, 102)]
    expected = [greedy(vocabulary, word, 0, 100) for word in words]
    assert [model.encode(*spans([word.encode()])) for word in words] == expected
    assert expected[-3] != [0] and expected[-2:] == [[0], [0]]
    assert model.encode(*spans([word.encode() for word in words])) == [i for ids in expected for i in ids]


@pytest.mark.parametrize("length", range(5, 10))
def test_words_of_about_six_tokens_are_remembered_or_not(how: str, length: int):
    model = WordPiece([b"?", b"a", b"##a", b"##b"], unknown=0)
    word = b"a" + b"ab" * (length // 2) + b"a" * (length % 2)
    expected = [index for index, _, _ in model.segment(word)]
    assert len(expected) == 1 + length
    assert model.encode(*spans([word] * 5)) == expected * 5


def test_words_that_differ_by_nulls_or_in_the_last_byte_are_not_mistaken(how: str):
    words = [bytes(n) for n in range(1, 15)] + [b"a" + bytes(n) for n in range(14)]
    words += [bytes(n) + b"a" for n in range(14)] + [b"abcdefg" + bytes([n]) for n in range(256)]
    words += [b"abcdefghijkl" + bytes([n]) for n in range(256)]
    model = WordLevel([b"?", *dict.fromkeys(words)], unknown=0)
    shuffled = random.Random(1).choices(words, k=4000)
    expected = [model.tokens.index(word) for word in shuffled]
    assert model.encode(*spans(shuffled)) == expected
    assert model.encode(*spans(shuffled[::-1])) == expected[::-1]


def test_more_words_than_the_memory_has_room_for(how: str, monkeypatch: pytest.MonkeyPatch):
    for module in (matching, wordpiece):
        monkeypatch.setattr(module, "SLOTS", 64)
    words = [b"%d" % (i * 7919 % 1_000_003) for i in range(1000)]
    model = WordPiece([b"?", *(b"%d" % i for i in range(10)), *(b"##%d" % i for i in range(10))], unknown=0)
    expected = [1 + byte - 48 + 10 * (at > 0) for word in words for at, byte in enumerate(word)]
    assert model.encode(*spans(words)) == expected
    assert model.encode(*spans(words)) == expected


@pytest.mark.parametrize("size", [MOST, MOST + 1])
def test_the_greatest_ids(size: int):
    """The memory holds ids plus one in 21 bits; what goes beyond is left to the Python form."""
    tokens = [b"?"] + [b""] * (size - 3) + [b"##z", b"z"]
    assert (Matcher.of(tokens, b"##") is None) == (size > MOST or matching_core() is None)
    model = WordPiece(tokens, unknown=0)
    for _ in range(2):
        assert model.encode(*spans([b"zzz", b"z", b"zq"])) == [size - 1, size - 2, size - 2, size - 1, 0]
    words = WordLevel(tokens, unknown=None)
    for _ in range(2):
        assert words.encode(*spans([b"z", b"##z", b"z"])) == [size - 1, size - 2, size - 1]
        with pytest.raises(DataError, match="'zz' is not in the vocabulary"):
            words.encode(*spans([b"z", b"zz"]))


@given(st.lists(st.lists(st.text(PARTS, max_size=5), max_size=6), max_size=5), TOKENS)
def test_the_order_of_texts_changes_nothing(texts: list[list[str]], parts: list[tuple[bool, str]]):
    tokens = [b"?", *(b"##" * inside + text.encode() for inside, text in parts)]
    used = WordPiece(tokens, unknown=0)
    for text in [*texts, *texts[::-1]]:
        pieces = [word.encode() for word in text]
        assert used.encode(*spans(pieces)) == WordPiece(tokens, unknown=0).encode(*spans(pieces))


CORPORA = st.dictionaries(st.text("ab#é", min_size=1, max_size=6), st.integers(1, 4), min_size=1, max_size=8)
SCORES = {
    "likelihood": lambda both, left, right: Fraction(both, left * right),
    "frequency": lambda both, left, right: both,
}


def by_brute_force(counts: Mapping[str, int], size: int, score: str, least: int, prefix: str) -> list[str]:
    """Training on lists of strings: everything is counted again for each token."""
    words = [([word[0], *(prefix + c for c in word[1:])], count) for word, count in counts.items()]
    tokens = ["?", *sorted({c for word in counts for c in word})]
    tokens += [
        prefix + c for c in sorted({c for word in counts for c in word[1:]}) if prefix + c not in tokens
    ]
    while len(tokens) < size:
        symbols = Counter(symbol for word, count in words for symbol in word * count)
        pairs = Counter(pair for word, count in words for pair in list(pairwise(word)) * count)
        ranked = [
            (-SCORES[score](count, symbols[a], symbols[b]), -count, tokens.index(a), tokens.index(b))
            for (a, b), count in pairs.items()
            if count >= least
        ]
        if not ranked:
            break
        left, right = (tokens[at] for at in min(ranked)[2:])
        made = left + right.removeprefix(prefix)
        if made not in tokens:
            tokens.append(made)
        for word, _ in words:
            at = 0
            while at + 1 < len(word):
                if word[at : at + 2] == [left, right]:
                    word[at : at + 2] = [made]
                at += 1
    return tokens


def trained(
    counts: Mapping[bytes, int] | PieceCounts, size: int, score: str, least: int, prefix: bytes
) -> list[str]:
    """The same by `train_wordpiece`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = train_wordpiece(
            counts, size, score=score, special=["?"], unknown="?", min_frequency=least, prefix=prefix
        )
    return [token.decode() for token in model.tokens]


@pytest.mark.parametrize("core", [True, False], ids=["core", "python"])
@pytest.mark.parametrize("score", list(SCORES))
def test_training_is_the_rule(score: str, core: bool, monkeypatch: pytest.MonkeyPatch):
    if not core:
        monkeypatch.setattr(wordpiece_train, "_core", lambda: None)

    @given(CORPORA, st.integers(0, 20), st.integers(0, 3), st.sampled_from(["##", "", "é", "_"]))
    @example({"ab": 1, "ba": 1, "aab": 1, "bba": 1}, 20, 0, "##")
    @example({"abab": 2, "aaaa": 3, "aaa": 1}, 20, 0, "##")
    def check(counts: dict[str, int], more: int, least: int, prefix: str) -> None:
        assume(prefix != "é" or not any("é" in word for word in counts))
        # A word that begins as its own prefix does would give one token two meanings.
        assume(prefix != "##" or not any("##" in word for word in counts))
        room = len(by_brute_force(counts, 0, score, least, prefix))
        given = {word.encode(): count for word, count in counts.items()}
        expected = by_brute_force(counts, room + more, score, least, prefix)
        assert trained(given, room + more, score, least, prefix.encode()) == expected

    check()


@given(CORPORA, st.sampled_from(list(SCORES)), st.randoms())
def test_the_order_of_counts_changes_nothing(counts: dict[str, int], score: str, chance: random.Random):
    given = {word.encode(): count for word, count in counts.items()}
    shuffled = list(given.items())
    chance.shuffle(shuffled)
    expected = trained(given, 30, score, 0, b"##")
    assert trained(dict(shuffled), 30, score, 0, b"##") == expected
    assert trained(PieceCounts(given), 30, score, 0, b"##") == expected
    assert train_words(given, 30) == train_words(dict(shuffled), 30) == train_words(PieceCounts(given), 30)


@given(CORPORA, st.sampled_from(list(SCORES)))
def test_every_word_that_it_was_trained_on_is_known(counts: dict[str, int], score: str):
    given = [word.encode() for word in counts]
    tokens = trained(dict.fromkeys(given, 1), 30, score, 0, b"##")
    assert len(tokens) == len(set(tokens)) <= 30
    model = WordPiece([token.encode() for token in tokens], unknown=0)
    for word in given:
        assert 0 not in model.encode(*spans([word]))


@given(CORPORA, st.sampled_from(list(SCORES)))
def test_a_smaller_vocabulary_begins_a_larger_one(counts: dict[str, int], score: str):
    given = {word.encode(): count for word, count in counts.items()}
    whole = trained(given, 40, score, 0, b"##")
    least = len(by_brute_force(counts, 0, score, 0, "##"))
    for size in range(least, len(whole)):
        assert trained(given, size, score, 0, b"##") == whole[:size]


@pytest.mark.parametrize("score", list(SCORES))
def test_progress_goes_up_to_the_size(score: str):
    seen: list[tuple[int, int]] = []
    counts = {b"abcabc": 3, b"cab": 2, b"abc": 9}
    model = train_wordpiece(counts, 11, score=score, special=["[UNK]"], progress=lambda *at: seen.append(at))
    assert seen and seen[-1] == (11, 11) and len(model.tokens) == 11
    assert seen == sorted(seen) and {whole for _, whole in seen} == {11}


def test_a_special_token_that_the_words_would_make_is_there_once():
    for score in SCORES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = train_wordpiece({b"[UNK]": 9, b"[UN": 3}, 60, score=score, special=["[UNK]", "[PAD]"])
        assert len(set(model.tokens)) == len(model.tokens)
        assert model.tokens[:2] == (b"[UNK]", b"[PAD]")


@given(CORPORA, st.integers(2, 12), st.integers(0, 3))
def test_words_by_frequency(counts: dict[str, int], size: int, least: int):
    given = {word.encode(): count for word, count in counts.items()}
    assume(max(given.values()) >= least)
    kept = [word for word in given if given[word] >= least]
    ordered = sorted(sorted(kept), key=given.__getitem__, reverse=True)
    assert list(train_words(given, size, min_frequency=least).tokens) == [b"[UNK]", *ordered][:size]


@settings(max_examples=20)
@given(CORPORA, st.integers(2, 12), st.integers(0, 3))
def test_words_like_the_librarys_trainer(counts: dict[str, int], size: int, least: int):
    library = pytest.importorskip("tokenizers")
    assume(max(counts.values()) >= least)
    other = library.Tokenizer(library.models.WordLevel(unk_token="[UNK]"))
    other.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    trainer = library.trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=least, special_tokens=["[UNK]"], show_progress=False
    )
    other.train_from_iterator((f"{word} " * count for word, count in counts.items()), trainer)
    theirs = sorted(other.get_vocab().items(), key=lambda item: item[1])
    given = {word.encode(): count for word, count in counts.items()}
    ours = train_words(given, size, min_frequency=least).tokens
    assert [token.decode() for token in ours] == [token for token, _ in theirs]


@pytest.mark.parametrize("bad", ["\ud800", "a\udfff"])
def test_special_tokens_that_no_file_can_hold_are_refused(bad: str):
    for train in (train_words, train_wordpiece):
        with pytest.raises(LinealError, match=r"U\+D"):
            train({b"a": 3}, 40, special=[bad, "[UNK]"])
