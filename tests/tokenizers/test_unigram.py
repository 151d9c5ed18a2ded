"""The Unigram model: the best cut, unknown characters, n-best, samples, and SentencePiece's ids on real text."""

from __future__ import annotations

import gzip
import math
import pickle
import random
from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.tokenizers import unigram
from lineal.tokenizers.sentencepiece import (
    BYTE,
    CONTROL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
    read_model,
)
from lineal.tokenizers.unigram import Unigram

PIECES = {"<unk>": 0.0, "a": -2.0, "b": -2.5, "ab": -3.0, "ba": -4.0, "aba": -5.5, "▁": -3.0, "▁a": -2.75}
MODEL = Unigram([(text.encode(), score) for text, score in PIECES.items()], unknown=0)
IDS = {text: at for at, text in enumerate(PIECES)}


def whole(data: bytes) -> array[int]:
    return array("i", (0, len(data)))


def model_of(file: SentencePieceModel) -> Unigram:
    return Unigram(
        [(piece.text, piece.score) for piece in file.pieces],
        unknown=file.unknown,
        byte_fallback=file.byte_ids,
        user_defined=file.ids(USER_DEFINED),
        silent=file.ids(CONTROL, UNKNOWN, BYTE),
    )


def all_cuts(text: str) -> dict[tuple[int, ...], float]:
    """Every cut into pieces, and its score."""
    found = {}
    for marks in product([0, 1], repeat=max(0, len(text) - 1)):
        parts, start = [], 0
        for at, mark in enumerate([*marks, 1], 1):
            if mark:
                parts.append(text[start:at])
                start = at
        if all(part in PIECES for part in parts):
            found[tuple(IDS[part] for part in parts)] = sum(PIECES[part] for part in parts)
    return found


texts = st.text(st.sampled_from("ab▁"), min_size=1, max_size=9)


@given(text=texts)
def test_no_cut_is_better(text) -> None:
    data = text.encode()
    best = all_cuts(text)
    ids = MODEL.encode(data, whole(data))
    assert best[tuple(ids)] == max(best.values())


@given(text=texts, count=st.integers(1, 30))
def test_n_best_are_the_best_of_all(text, count) -> None:
    every = all_cuts(text)
    found = MODEL.n_best(text.encode(), count)
    assert [score for _, score in found] == pytest.approx(sorted(every.values(), reverse=True)[:count])
    assert len({tuple(ids) for ids, _ in found}) == len(found)
    assert all(every[tuple(ids)] == pytest.approx(score) for ids, score in found)
    assert every[tuple(found[0][0])] == max(every.values())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_samples_come_as_often_as_they_are_likely(alpha) -> None:
    text = "ababa"
    every = all_cuts(text)
    weights = {cut: math.exp(alpha * score) for cut, score in every.items()}
    total, draws = sum(weights.values()), 4000
    seen = Counter(
        tuple(MODEL.sample(text.encode(), whole(text.encode()), alpha, seed)) for seed in range(draws)
    )
    assert seen.keys() <= every.keys()
    for cut, weight in weights.items():
        share = weight / total
        assert abs(seen[cut] / draws - share) < 5 * math.sqrt(share * (1 - share) / draws) + 1e-9


def test_a_seed_gives_the_same_sample() -> None:
    data = ("▁ab" * 20).encode()
    first = MODEL.sample(data, whole(data), 0.1, 3)
    assert first == MODEL.sample(data, whole(data), 0.1, 3)
    assert any(MODEL.sample(data, whole(data), 0.1, seed) != first for seed in range(9))
    assert MODEL.sample(data, whole(data), 200.0, 1) == MODEL.encode(data, whole(data))


def test_of_equal_cuts_the_one_with_the_longest_last_piece_stays() -> None:
    model = Unigram([(b"u", -1.0), (b"g", -1.0), (b"p", -1.0), (b"pu", -2.0), (b"ug", -2.0)])
    assert [model.tokens[token] for token, _, _ in model.segment(b"pug")] == [b"p", b"ug"]


def test_unknown_characters() -> None:
    data = "a日本b😀".encode()
    assert MODEL.segment(data) == [(1, 0, 1), (0, 1, 7), (2, 7, 8), (0, 8, 12)]
    apart = Unigram(MODEL.pieces, unknown=0, fuse_unknown=False)
    assert apart.segment(data) == [(1, 0, 1), (0, 1, 4), (0, 4, 7), (2, 7, 8), (0, 8, 12)]
    assert [token for token, _, _ in Unigram(MODEL.pieces, silent=[0]).segment(data)] == [1, 2]
    fallback = Unigram(
        [*MODEL.pieces, *((b"<0x%02X>" % byte, 0.0) for byte in range(256))],
        unknown=0,
        byte_fallback=range(8, 264),
    )
    assert [token - 8 for token, _, _ in fallback.segment("日".encode())] == list("日".encode())
    for model in (MODEL, apart, fallback):
        assert model.encode(data, whole(data)) == [token for token, _, _ in model.segment(data)]


def test_silent_pieces_are_never_made_and_user_defined_always() -> None:
    pieces = [(b"a", -1.0), (b"aa", -0.1), (b"aaa", -50.0)]
    assert [token for token, _, _ in Unigram(pieces).segment(b"aaa")] == [0, 1]
    assert [token for token, _, _ in Unigram(pieces, silent=[1]).segment(b"aaa")] == [0, 0, 0]
    assert [token for token, _, _ in Unigram(pieces, user_defined=[2]).segment(b"aaa")] == [2]


@pytest.mark.parametrize("name", ["test_model.model", "test_ja_model.model"])
def test_ids_are_the_library_s_on_real_text(data, name) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    path = data / "tok_sentencepiece" / name
    theirs, file = sentencepiece.SentencePieceProcessor(model_file=str(path)), read_model(path)
    normaliser, ours = file.text_normaliser, model_of(file)
    documents = [gzip.decompress(path.read_bytes()).decode() for path in (data / "ntrex").glob("*.gz")]
    documents += [
        gzip.decompress((data / "wagahai_ja" / "wagahaiwa_nekodearu.txt.gz").read_bytes()).decode()[:60000]
    ]
    for document in [*documents, *(line for text in documents for line in text.split("\n")[:100])]:
        normal = normaliser.convert(document.encode())
        assert ours.encode(normal, whole(normal)) == theirs.encode(document)


def test_ids_are_the_library_s_on_any_text(data) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    path = data / "tok_sentencepiece" / "test_ja_model.model"
    theirs, file = sentencepiece.SentencePieceProcessor(model_file=str(path)), read_model(path)
    ours = model_of(file)

    @given(text=st.text(st.sampled_from("the. 0,x日本のé▁"), max_size=40))
    def check(text: str) -> None:
        normal = file.text_normaliser.convert(text.encode())
        assert [token for token, _, _ in ours.segment(normal)] == theirs.encode(text)
        best = ours.n_best(normal, 3)
        scores = [sum(ours.scores[token] for token in ids) for ids, _ in best if 0 not in ids]
        assert scores == sorted(scores, reverse=True)

    check()


def test_the_plain_form_serves_where_nothing_is_compiled(monkeypatch) -> None:
    monkeypatch.setattr(unigram, "compiled", lambda core: None)
    model = Unigram(MODEL.pieces, unknown=0)
    data = "▁ab日aba".encode()
    assert model._free is None
    assert model.encode(data, whole(data)) == MODEL.encode(data, whole(data))


def test_threads_share_a_model() -> None:
    draw = random.Random(2)
    documents = ["".join(draw.choices("ab▁é", k=3000)).encode() for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda data: MODEL.encode(data, whole(data)), documents))
    assert found == [[token for token, _, _ in MODEL.segment(data)] for data in documents]


def test_it_travels_between_processes() -> None:
    MODEL.encode(b"ab", whole(b"ab"))
    again = pickle.loads(pickle.dumps(MODEL))
    assert again == MODEL and again.encode(b"aba", whole(b"aba")) == MODEL.encode(b"aba", whole(b"aba"))
    assert hash(again) == hash(MODEL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unknown": 9}, "id 9"),
        ({"silent": [-1]}, "id -1"),
        ({"byte_fallback": [0, 1]}, "256"),
        ({"pieces": [(b"a", math.nan)]}, "nan"),
        ({"pieces": [(b"a", 0.0), (b"b", 0.0), (b"a", 1.0)]}, "twice"),
    ],
)
def test_what_cannot_be_a_vocabulary_is_refused(arguments, message) -> None:
    with pytest.raises(UsageError, match=message):
        Unigram(**{"pieces": MODEL.pieces, **arguments})


@pytest.mark.parametrize("text", ["a" * 100_000, "日" * 50_000, "▁" * 100_000, "ab" * 50_000 + "x" * 50_000])
def test_one_giant_word(text) -> None:
    data = text.encode()
    ids = MODEL.encode(data, whole(data))
    kept = b"".join(MODEL.tokens[token] for token in ids if token)
    assert kept == "".join(character for character in text if character in "ab▁").encode()
