"""WordPiece: the rule, the library, published vectors, and training by either score."""

from __future__ import annotations

import gzip
import pickle
import threading
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.tokenizers import matching, wordpiece_train
from lineal.tokenizers.corpus.counting import PieceCounts, count_texts
from lineal.tokenizers.text.normalise import Bert
from lineal.tokenizers.text.split import BertSplit
from lineal.tokenizers.wordpiece import WordPiece, characters, train_wordpiece
from lineal.tokenizers.wordpiece_train import Vocabulary, merge_plainly

TOKENS = [
    b"[UNK]",
    b"un",
    b"##aff",
    b"##able",
    b"##a",
    b"a",
    b"##\xc3\xa9t\xc3\xa9",
    b"\xe8\xaa\x9e",
    b"",
    b"##",
    b"#",
]
CLEAN, SPLIT = Bert(), BertSplit()
WORDS = st.text("unafbleé語té#", max_size=12)
VOCABULARY = st.lists(st.one_of(WORDS, WORDS.map("##{}".format)), max_size=30)


def spans(pieces: list[bytes]) -> tuple[bytes, array[int]]:
    """Pieces one behind the other, as a splitter gives them."""
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return b"".join(pieces), array("i", [at for pair in pairwise(ends) for at in pair])


@pytest.fixture(params=["core", "python"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both forms of encoding."""
    if request.param == "python":
        monkeypatch.setattr(matching, "matching_core", lambda: None)
    elif matching.matching_core() is None:
        pytest.skip("nothing was compiled at install")
    yield request.param


@pytest.fixture(scope="module")
def bert(data: Path) -> WordPiece:
    """The vocabulary of bert-base-uncased."""
    tokens = (data / "tok_bert" / "vocab.txt").read_bytes().splitlines()
    return WordPiece(tokens, unknown=tokens.index(b"[UNK]"))


def encode(model: WordPiece, text: str) -> list[int]:
    cleaned = CLEAN(text).encode()
    return model.encode(cleaned, SPLIT.spans(cleaned))


def test_longest_match_first():
    model = WordPiece(TOKENS, unknown=0)
    assert model.segment(b"unaffable") == [(1, 0, 2), (2, 2, 5), (3, 5, 9)]
    assert model.segment(b"unaffablex") == [(0, 0, 10)]
    assert model.segment("aété語".encode()) == [(0, 0, 9)]
    assert model.segment("語été".encode()) == [(7, 0, 3), (6, 3, 8)]
    assert model.segment(b"") == []


def test_a_longer_word_is_unknown(how: str):
    for longest, ids in ((3, [5, 4, 4]), (2, [0])):
        model = WordPiece(TOKENS, unknown=0, longest_word=longest)
        assert model.encode(*spans([b"aaa"])) == ids
    model = WordPiece(["é".encode(), "##é".encode()], unknown=0)
    assert model.encode(*spans(["é".encode() * 100])) == [0] + [1] * 99
    assert model.encode(*spans(["é".encode() * 101])) == [0]


@given(VOCABULARY, st.lists(WORDS), st.integers(1, 12), st.sampled_from([b"##", b"", "é".encode()]))
def test_the_core_is_the_rule(tokens: list[str], words: list[str], longest: int, prefix: bytes):
    model = WordPiece([b"?", *map(str.encode, tokens)], unknown=0, prefix=prefix, longest_word=longest)
    pieces = [word.encode() for word in words] * 2
    expected = [token for piece in pieces for token, _, _ in model.segment(piece)]
    assert model.encode(*spans(pieces)) == expected
    assert model.encode(*spans(pieces)) == expected


@given(VOCABULARY, WORDS)
def test_the_rule_is_the_librarys(tokens: list[str], word: str):
    library = pytest.importorskip("tokenizers").models
    model = WordPiece([b"?", *map(str.encode, tokens)], unknown=0)
    vocabulary = {token: i for i, token in enumerate(["?", *tokens])}
    other = library.WordPiece(vocabulary, unk_token="?", max_input_chars_per_word=100)
    expected = [(found.id, *found.offsets) for found in other.tokenize(word)] if word else []
    assert model.segment(word.encode()) == expected


def test_published_vectors(bert: WordPiece, data: Path, how: str):
    folder = data / "tok_llamacpp"
    texts = (folder / "ggml-vocab-bert-bge.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    rows = (folder / "ggml-vocab-bert-bge.gguf.out").read_text().split("\n")
    assert len(texts) == len(rows) == 47
    for text, row in zip(texts, rows):
        assert encode(bert, text) == [int(token) for token in row.split()]


def test_real_text_like_the_library(bert: WordPiece, data: Path):
    library = pytest.importorskip("tokenizers")
    other = library.BertWordPieceTokenizer(str(data / "tok_bert" / "vocab.txt"), lowercase=True)
    files = [*sorted((data / "ntrex").iterdir()), data / "novels_en" / "valid.txt.gz"]
    for file in files:
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode()[:150_000]
        for at in range(0, len(text), 1500):
            part = text[at : at + 1500]
            assert encode(bert, part) == other.encode(part, add_special_tokens=False).ids, (file, at)


def test_threads_do_not_disturb_each_other(bert: WordPiece, data: Path):
    text = (data / "tinyshakespeare" / "input.txt").read_bytes()[:100_000]
    found = SPLIT.spans(text)
    expected = bert.encode(text, found)
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(i for i in range(20) if bert.encode(text, found) != expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_giant_word_and_hostile_bytes(how: str):
    model = WordPiece([b"?", b"a", b"##a"], unknown=0)
    assert model.encode(*spans([b"a" * 1_000_000, b"a", b"\0", b"", b"\xff\xfe"])) == [0, 1, 0, 0]
    patient = WordPiece([b"?", b"a", b"##a"], unknown=0, longest_word=10**9)
    assert patient.encode(*spans([b"a" * 100_000])) == [1] + [2] * 99_999
    assert model.encode(b"", array("i")) == []


def test_of_equal_tokens_the_last_counts_and_gaps_are_never_found(how: str):
    model = WordPiece([b"?", b"a", b"", b"a", b"##", b"##b", b"##b"], unknown=0)
    assert model.encode(*spans([b"a", b"ab", b"a##"])) == [3, 3, 6, 0]


def test_equal_values_are_equal_and_travel_to_other_processes():
    model = WordPiece(TOKENS, unknown=0)
    assert model.encode(*spans([b"una"])) == [1, 4]
    there = pickle.loads(pickle.dumps(model))
    assert there == model == WordPiece(tuple(TOKENS), unknown=0) != WordPiece(TOKENS, unknown=1)
    assert there.encode(*spans([b"una"])) == [1, 4]
    assert len(pickle.dumps(model)) < 1000


def test_an_unknown_token_that_is_none():
    for unknown in (-1, len(TOKENS)):
        with pytest.raises(UsageError, match="no id of its"):
            WordPiece(TOKENS, unknown=unknown)


def test_characters():
    assert characters("aé語😀".encode()) == 4


CORPUS = {b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}


@pytest.mark.parametrize("score", ["frequency", "likelihood"])
def test_a_trained_vocabulary(score: str):
    pytest.importorskip("lineal.tokenizers.bpe")
    model = train_wordpiece(CORPUS, 30, score=score, special=["[PAD]", "[UNK]"])
    assert list(model.tokens[:4]) == [b"[PAD]", b"[UNK]", b"d", b"e"]
    assert model.unknown == 1
    assert len(model.tokens) == len(set(model.tokens)) == 30
    for word in CORPUS:
        assert 1 not in model.encode(*spans([word]))
    assert train_wordpiece(PieceCounts(CORPUS), 30, score=score, special=["[PAD]", "[UNK]"]) == model


def test_frequency_is_the_rule_with_counts_for_scores():
    pytest.importorskip("lineal.tokenizers.bpe")
    for size in range(25, 32):
        vocabulary = Vocabulary(CORPUS, [b"[UNK]"], b"##")
        merge_plainly(vocabulary, size, 0, lambda both, left, right: both)
        found = train_wordpiece(CORPUS, size, special=["[UNK]"]).tokens
        assert set(found) == set(vocabulary.tokens)


def counted(text: str) -> PieceCounts:
    return count_texts(text.splitlines(keepends=True), CLEAN, SPLIT, cap=None)


@pytest.mark.parametrize(
    ("name", "size"), [("tinyshakespeare/input.txt", 600), ("ntrex/newstest2019-ref.zho-CN.txt", 1400)]
)
def test_frequency_is_the_librarys_rule(data: Path, tmp_path: Path, name: str, size: int):
    """Token for token, once its characters have the library's ids.

    The library numbers those inside words in the order of a hash table, anew in each process, so that its own
    vocabularies differ from run to run where pairs tie. Ours are numbered by code point.
    """
    library = pytest.importorskip("tokenizers")
    path = data / name
    raw = path.read_bytes() if path.is_file() else gzip.decompress(Path(f"{path}.gz").read_bytes())
    text = raw.decode()[:30_000]
    (tmp_path / "text.txt").write_text(text)
    other = library.Tokenizer(library.models.WordPiece(unk_token="[UNK]"))
    other.normalizer = library.normalizers.BertNormalizer()
    other.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    other.train(
        [str(tmp_path / "text.txt")],
        library.trainers.WordPieceTrainer(vocab_size=size, special_tokens=["[UNK]"], show_progress=False),
    )
    theirs = [token for token, _ in sorted(other.get_vocab().items(), key=lambda item: item[1])]
    counts = counted(text)
    first = {token for token in theirs if len(token.removeprefix("##")) == 1}
    given = [b"[UNK]", *(token.encode() for token in theirs if token in first)]
    vocabulary = Vocabulary(counts, given, b"##")
    assert len(vocabulary.tokens) == len(given)
    merge_plainly(vocabulary, size, 0, lambda both, left, right: both)
    assert [token.decode() for token in vocabulary.tokens] == theirs


@pytest.mark.parametrize("least", [0, 3])
def test_training_by_frequency_is_the_rule(data: Path, least: int):
    pytest.importorskip("lineal.tokenizers.bpe")
    counts = counted((data / "multi30k" / "val.de").read_text()[:30_000])
    vocabulary = Vocabulary(counts, [b"[UNK]"], b"##")
    merge_plainly(vocabulary, 500, least, lambda both, left, right: both)
    found = train_wordpiece(counts, 500, special=["[UNK]"], min_frequency=least)
    assert list(found.tokens) == vocabulary.tokens


@pytest.mark.parametrize("core", [True, False])
def test_progress_and_an_early_end(core: bool, monkeypatch: pytest.MonkeyPatch):
    if not core:
        monkeypatch.setattr(wordpiece_train, "_core", lambda: None)
    seen: list[tuple[int, int]] = []
    counts = {b"ab": 2, b"c": 1}
    with pytest.warns(UserWarning, match="gives 6 tokens, not 100"):
        model = train_wordpiece(
            counts, 100, score="likelihood", special=["[UNK]"], progress=lambda *at: seen.append(at)
        )
    assert list(model.tokens) == [b"[UNK]", b"a", b"b", b"c", b"##b", b"ab"]
    assert seen == [(6, 100)]


def test_rare_pairs_are_left_alone():
    with pytest.warns(UserWarning, match="no pair is left"):
        model = train_wordpiece({b"ab": 5, b"cd": 2}, 50, score="likelihood", min_frequency=3)
    assert b"ab" in model.tokens and b"cd" not in model.tokens


def test_what_cannot_be_trained():
    with pytest.raises(UsageError, match="is not among the special tokens"):
        train_wordpiece(CORPUS, 40, special=["[PAD]"])
    with pytest.raises(UsageError, match="leaves no room"):
        train_wordpiece(CORPUS, 5)
    with pytest.raises(UsageError, match="give at least 19"):
        train_wordpiece(CORPUS, 18, score="likelihood", special=["[UNK]"])
    with pytest.raises(UsageError, match="frequency, likelihood"):
        train_wordpiece(CORPUS, 40, score="best")
    for score in ("frequency", "likelihood"):
        with pytest.raises(DataError, match="No piece"):
            train_wordpiece({b"": 3}, 40, score=score)
        with pytest.raises(DataError, match="no UTF-8"):
            train_wordpiece({b"a\xff": 3}, 40, score=score)
