"""Training a Unigram model: its parts by hand, what it keeps, what it refuses, and SentencePiece beside it."""

from __future__ import annotations

import gzip
import math
from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.tokenizers import unigram_train
from lineal.tokenizers.corpus.counting import PieceCounts
from lineal.tokenizers.sentencepiece import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    Piece,
    build_model,
    model_bytes,
    parse_model,
)
from lineal.tokenizers.text.charsmap import SentencePieceNormaliser
from lineal.tokenizers.unigram import Unigram
from lineal.tokenizers.unigram_train import (
    UnigramTraining,
    best_cut,
    covering,
    digamma,
    expect,
    losses,
    maximise,
    prune,
    runs,
    seeds,
    train_unigram,
)

WORDS = {"▁hug": 10, "▁pug": 5, "▁pun": 12, "▁bun": 4, "▁hugs": 5}
COUNTS = {word.encode(): count for word, count in WORDS.items()}
ALPHABET = ["▁", "u", "g", "p", "n", "h", "s", "b"]
TRAINING = UnigramTraining()


def test_seeds_are_what_no_added_character_explains() -> None:
    found = seeds(WORDS, ALPHABET, TRAINING)
    longer = {piece for piece in found if len(piece) > 1}
    assert {"▁hug", "hug", "ug", "un", "▁pu", "▁hugs", "ugs", "▁pug", "▁bun"} <= longer
    assert not {"▁h", "hu", "▁hu", "▁b", "▁bu"} & longer, "each is always followed by the same character"
    assert set(ALPHABET) <= found.keys()
    assert math.fsum(map(math.exp, found.values())) == pytest.approx(1)
    assert found["ug"] - found["g"] == pytest.approx(math.log(2)), "as often, and twice as long"


def test_few_seeds_are_those_that_cover_most() -> None:
    found = seeds(WORDS, ALPHABET, UnigramTraining(seeds=2))
    assert {piece for piece in found if len(piece) > 1} == {"▁hug", "▁pu"} or len(found) == len(ALPHABET) + 2
    weights = {piece: score for piece, score in seeds(WORDS, ALPHABET, TRAINING).items() if len(piece) > 1}
    kept = {piece for piece in found if len(piece) > 1}
    assert min(weights[piece] for piece in kept) >= max(weights[piece] for piece in weights.keys() - kept)


def test_expected_counts_by_hand() -> None:
    """ab is ab (.1) or a|b (.2 * .3 = .06): shares .625 and .375."""
    pieces = {"a": math.log(0.2), "b": math.log(0.3), "ab": math.log(0.1)}
    expected, likelihood = expect({"ab": 8, "b": 2}, pieces)
    assert expected == pytest.approx({"a": 3.0, "b": 5.0, "ab": 5.0})
    assert likelihood == pytest.approx(8 * math.log(0.16) + 2 * math.log(0.3))


@given(counts=st.dictionaries(st.text(st.sampled_from("abc"), min_size=1, max_size=3), st.floats(0, 50)))
def test_maximising_drops_what_is_rare_but_no_character(counts) -> None:
    counts = {"a": 3.0} | counts
    found = maximise(counts)
    assert found.keys() == {piece for piece, count in counts.items() if count >= 0.5 or len(piece) == 1}
    assert sum(map(math.exp, found.values())) <= 1 + 1e-9


def test_rounds_without_the_prior_raise_the_likelihood() -> None:
    pieces, before = seeds(WORDS, ALPHABET, TRAINING), -math.inf
    for _ in range(8):
        expected, likelihood = expect(WORDS, pieces)
        assert likelihood >= before - 1e-9
        before, total = likelihood, sum(expected.values())
        pieces = {piece: math.log(count / total) for piece, count in expected.items() if count > 1e-12}


def test_digamma_by_known_values() -> None:
    euler = 0.57721566490153286
    assert digamma(1) == pytest.approx(-euler, abs=1e-9)
    assert digamma(0.5) == pytest.approx(-euler - 2 * math.log(2), abs=1e-9)
    assert digamma(4) == pytest.approx(1 + 1 / 2 + 1 / 3 - euler, abs=1e-9)


def test_losses_by_hand() -> None:
    """ab occurs 4 times as a piece; without it a and b are each 4 more: their counts and the total change alike."""
    pieces = {"a": -2.0, "b": -2.0, "ab": -1.0, "ba": -9.0, "bb": -3.5}
    found = losses({"ab": 4, "a": 1, "bb": 2}, pieces)
    total, grown = 4 + 1 + 2, 4 + 1 + 2 + 4
    assert found["ab"] == pytest.approx(4 * (math.log(4 / total) - math.log(5 / grown) - math.log(4 / grown)))
    assert found["ba"] == -1 and found["a"] == found["b"] == math.inf
    kept = prune({"ab": 4, "a": 1, "bb": 2}, pieces, 3)
    assert list(kept) == ["a", "b", "ab"] and prune({"ab": 4}, pieces, 9).keys() == {"a", "b", "ab"}


def test_of_equal_cuts_the_longest_last_piece_stays() -> None:
    assert best_cut("pug", {"p": -1, "pu": -2, "g": -1, "ug": -2, "u": -9})[0] == ["p", "ug"]
    assert best_cut("x", {"p": -1.0}) == ([], -math.inf)


def test_words_are_cut_between_kinds_of_characters() -> None:
    words = {"▁don't▁▁x1".encode(): 2, "日本語ab".encode(): 3, "カナ漢字".encode(): 1}
    found, _ = runs(words, TRAINING)
    assert found == {
        "▁don": 2, "'": 2, "t": 2, "▁": 2, "▁x": 2, "1": 2, "日本語": 3, "ab": 3, "カナ漢字": 1,
    }  # fmt: skip
    assert runs(words, UnigramTraining(mixed=True))[0].keys() == {
        "▁don't",
        "▁",
        "▁x1",
        "日本語ab",
        "カナ漢字",
    }


def test_rare_characters_are_left_out() -> None:
    seen = {"a": 90, "b": 9, "c": 1, "\0": 50}
    assert covering({"a": 90, "b": 9, "c": 1}, 0.95) == ["a", "b"]
    assert covering(seen, 1.0) == ["a", "b", "c"]
    words, alphabet = runs({b"aacaa": 10, b"b" * 50: 1}, UnigramTraining(coverage=0.8))
    assert alphabet == ["b", "a"] and words == {"aa": 20, "b" * 50: 1}


@pytest.mark.parametrize("form", ["compiled", "plain"])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_a_model_has_the_size_asked_for_and_every_character(form, byte_fallback, monkeypatch) -> None:
    if form == "plain":
        monkeypatch.setattr(unigram_train, "lattice_cores", lambda: None)
    size = 3 + 256 * byte_fallback + len(ALPHABET) + 3
    told = []
    model = train_unigram(COUNTS, size, byte_fallback=byte_fallback, progress=lambda *done: told.append(done))
    assert len(model.tokens) == size and model.tokens[:3] == (b"<unk>", b"<s>", b"</s>")
    assert {character.encode() for character in ALPHABET} <= set(model.tokens)
    scores = [score for _, score in model.pieces[size - len(ALPHABET) - 3 :]]
    assert scores == sorted(scores, reverse=True)
    assert told and all(done >= 0 and total >= 1 for done, total in told)
    data = "▁bug<s>é".encode()
    ids = model.encode(data, array("i", (0, len(data))))
    assert (1 in ids) is False and (0 in ids) is not byte_fallback


def test_counts_of_either_kind_give_the_same() -> None:
    assert train_unigram(PieceCounts(COUNTS), 16) == train_unigram(COUNTS, 16)


def test_a_corpus_that_has_not_enough_gives_what_it_has() -> None:
    model = train_unigram({b"ab": 3}, 100)
    assert set(model.tokens[3:]) <= {b"a", b"b", b"ab"} and {b"a", b"b"} <= set(model.tokens)


@pytest.mark.parametrize(
    ("counts", "size", "arguments", "error", "message"),
    [
        (COUNTS, 10, {}, UsageError, "at least 11"),
        ({}, 10, {}, DataError, "no words"),
        ({b"a": 0}, 10, {}, DataError, "no words"),
        ({b"\xff": 1}, 10, {}, DataError, "no UTF-8"),
        (COUNTS, 50, {"unknown": "<x>"}, UsageError, "none of the special"),
    ],
)
def test_what_cannot_be_trained_is_refused(counts, size, arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        train_unigram(counts, size, **arguments)


@pytest.mark.parametrize(
    "wrong",
    [
        {"longest": 0},
        {"longest": 300},
        {"shrink": 1.0},
        {"slack": 0.5},
        {"coverage": 0.0},
        {"steps": 0},
        {"seeds": 0},
    ],
)
def test_numbers_that_cannot_work_are_refused(wrong) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        UnigramTraining(**wrong)


def cost(model: Unigram, words: dict[bytes, int]) -> tuple[float, int]:
    """The score of the best cuts of all words, and how many tokens they have."""
    score = tokens = 0.0
    for word, count in words.items():
        path = model.path(word)
        score += count * sum(model.scores[token] for token, _, _ in path)
        tokens += count * len(path)
    return score, int(tokens)


def test_it_is_as_good_as_the_library_and_opens_there(data, tmp_path) -> None:
    library = pytest.importorskip("sentencepiece")
    text = gzip.decompress((data / "novels_en" / "valid.txt.gz").read_bytes()).decode()
    learned, held = text[:500_000].split("\n"), text[1_200_000:1_500_000].split("\n")
    (tmp_path / "corpus.txt").write_text("\n".join(learned))
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "theirs"),
        vocab_size=1000,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    theirs = parse_model((tmp_path / "theirs.model").read_bytes())
    normaliser = theirs.text_normaliser

    def words(lines: list[str]) -> dict[bytes, int]:
        found: Counter[str] = Counter()
        for line in lines:
            found.update("▁" + word for word in normaliser(line).split("▁")[1:])
        return {word.encode(): count for word, count in found.items()}

    model = train_unigram(words(learned), 1000)
    other = Unigram(
        [(piece.text, piece.score) for piece in theirs.pieces], unknown=0, silent=theirs.ids(CONTROL, UNKNOWN)
    )
    (ours_score, ours_tokens), (score, tokens) = (cost(each, words(held)) for each in (model, other))
    assert ours_score >= score and ours_tokens <= tokens * 1.005
    kinds = [UNKNOWN, CONTROL, CONTROL] + [NORMAL] * 997
    file = build_model(
        [Piece(text, score, kind) for (text, score), kind in zip(model.pieces, kinds)],
        SentencePieceNormaliser(normaliser.charsmap),
        name="nmt_nfkc",
    )
    opened = library.SentencePieceProcessor()
    opened.LoadFromSerializedProto(model_bytes(file))
    for line in held[:300]:
        encoded = normaliser.convert(line.encode())
        ids = model.encode(encoded, array("i", (0, len(encoded))))
        assert ids == opened.encode(line)
