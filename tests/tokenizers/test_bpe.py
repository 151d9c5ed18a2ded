"""Byte-pair encoding beside other libraries and published vectors, and what it refuses."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import random
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, ModelError, UsageError
from lineal.tokenizers import bpe, bpe_learn
from lineal.tokenizers.bpe import BPE, train_bpe
from lineal.tokenizers.bpe_learn import PRINTED
from lineal.tokenizers.corpus.counting import count_texts
from lineal.tokenizers.parts import Splitter
from lineal.tokenizers.text.split import Cl100k, Gpt2, WhitespaceSplit, Whole

SHOWN = {byte: chr(byte if i < 188 else 256 + i - 188) for i, byte in enumerate(PRINTED)}
"""The character that stands for each byte in GPT-2's files."""


def encode(model: BPE, text: str | bytes, splitter: Splitter | None = None) -> list[int]:
    """Ids of a text."""
    data = text.encode() if isinstance(text, str) else text
    return model.encode(data, (splitter or Gpt2()).spans(data))


def shown(token: bytes) -> str:
    return "".join(SHOWN[byte] for byte in token)


def read(path: Path) -> str:
    """A text file, packed or not."""
    packed = path.with_name(path.name + ".gz")
    return (
        gzip.decompress(packed.read_bytes()).decode()
        if packed.is_file()
        else path.read_text(encoding="utf-8")
    )


CORPORA = {
    "tinyshakespeare/input.txt": 3000,
    "ntrex/newstest2019-ref.zho-CN.txt": 3000,
    "ntrex/newstest2019-ref.jpn.txt": 3000,
    "novels_en/valid.txt": 8000,
}


@pytest.mark.parametrize("name,size", CORPORA.items())
def test_merges_and_ids_are_those_of_hugging_face(data: Path, name: str, size: int) -> None:
    lines = read(data / name)[:600_000].splitlines(keepends=True)
    same_as_hugging_face(lines, size)


def test_merges_of_random_corpora_are_those_of_hugging_face() -> None:
    for seed in range(5):
        draw = random.Random(seed)
        letters = draw.choice(["ab", "abcd ", "aé日😀 \n"])
        lines = ["".join(draw.choices(letters, k=draw.randint(1, 60))) for _ in range(100)]
        same_as_hugging_face(lines, 256 + 100 * seed)


def same_as_hugging_face(lines: list[str], size: int) -> None:
    """Train both, and compare all merges and the ids of every line."""
    tokenizers = pytest.importorskip("tokenizers")
    split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = split
    alphabet = split.alphabet()
    theirs.train_from_iterator(
        lines,
        tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False),
    )
    ours = train_bpe(count_texts(lines, None, Gpt2(), None), size)
    expected = json.loads(theirs.to_str())["model"]
    found = [[shown(ours.tokens[part]) for part in pair] for pair in ours.merges]
    assert found == [[*pair] for pair in expected["merges"]]
    assert {shown(token): i for i, token in enumerate(ours.tokens)} == expected["vocab"]
    for line in lines[::7]:
        assert encode(ours, line) == theirs.encode(line).ids


@pytest.mark.parametrize("longest", [2, 3, 5, 9])
def test_the_longest_token_is_that_of_hugging_face(longest: int) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = ["banana", "bandana", "ananas", "cabana", "abcabcabc", "aaaaaaaa"]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=40, max_token_length=longest, show_progress=False)
    theirs.train_from_iterator(words, trainer)
    ours = train_bpe(Counter(word.encode() for word in words), 40, initial="characters", longest=longest)
    assert [token.decode() for token in ours.tokens] == sorted(theirs.get_vocab(), key=theirs.token_to_id)


KINDS = {
    "characters": {"limit": 9},
    "unknown": {"special": ["<unk>"], "unknown": "<unk>", "limit": 9},
    "suffix": {"suffix": b"</w>", "special": ["<unk>"], "unknown": "<unk>", "limit": 9},
    "prefix": {"prefix": b"##", "special": ["<unk>"], "unknown": "<unk>", "limit": 9},
    "fallback": {"byte_fallback": True, "limit": 9},
}

AFFIXES = {"unk_token": "unknown", "continuing_subword_prefix": "prefix", "end_of_word_suffix": "suffix"}


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("options", KINDS.values(), ids=[*KINDS])
def test_ids_of_characters_are_those_of_hugging_face(options: dict, fuse: bool) -> None:
    """A vocabulary of ours, opened there."""
    tokenizers = pytest.importorskip("tokenizers")
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdeé日", k=draw.randint(1, 9))) for _ in range(300)]
    words += ["".join(draw.choices("xyz😀", k=3)) for _ in range(9)]
    ours = train_bpe(Counter(map(str.encode, words)), 500, initial="characters", **options)
    first, bytes_first = len(options.get("special", ())), "byte_fallback" in options
    names = [token.decode(errors="replace") for token in ours.tokens]
    settings = {name: options[key] for name, key in AFFIXES.items() if key in options}
    settings = {name: value if isinstance(value, str) else value.decode() for name, value in settings.items()}
    if bytes_first:
        names[first : first + 256] = [f"<0x{byte:02X}>" for byte in range(256)]
    theirs = tokenizers.models.BPE(
        {name: i for i, name in enumerate(names)},
        [(names[left], names[right]) for left, right in ours.merges],
        **settings,
        fuse_unk=fuse,
        byte_fallback=bytes_first,
    )
    ours = BPE(**{**ours.__reduce__()[1][0], "fuse_unknown": fuse})
    assert len(ours.merges) > 100
    for word in [*words, "zab", "azzzb", "xé日日zz", "abcde" * 40]:
        piece = word.encode()
        assert ours.encode(piece, array("i", [0, len(piece)])) == [
            token.id for token in theirs.tokenize(word)
        ]


def test_ranks_are_those_of_rustbpe(data: Path) -> None:
    rustbpe = pytest.importorskip("rustbpe")
    lines = read(data / "tinyshakespeare/input.txt")[:300_000].splitlines(keepends=True)
    theirs = rustbpe.Tokenizer()
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    theirs.train_from_iterator(iter(lines), 2000, pattern=pattern)
    ours = train_bpe(count_texts(lines, None, Gpt2(), None), 2000, ties="bytes")
    assert [*ours.tokens] == [bytes(token) for token, _ in theirs.get_mergeable_ranks()]


def test_codes_and_pieces_are_those_of_subword_nmt(data: Path) -> None:
    folder = data / "tok_subwordnmt"
    lines = (folder / "corpus.en").read_text(encoding="utf-8").split("\n")
    counts = Counter(word.encode() for line in lines for word in line.strip("\r\n ").split(" ") if word)
    model = train_bpe(
        counts, 10**6, initial="characters", suffix=b"</w>", ties="text", merges=1000, min_frequency=2
    )
    expected = (folder / "bpe.ref").read_text(encoding="utf-8").splitlines()
    assert expected[0] == "#version: 0.2"
    codes = [" ".join(model.tokens[part].decode() for part in pair) for pair in model.merges]
    assert codes == expected[1:]
    applied = (folder / "corpus.bpe.ref.en").read_text(encoding="utf-8").split("\n")
    for line, pieces in zip(lines, applied, strict=True):
        tokens = "".join(
            model.tokens[token].decode() + " " for token in encode(model, line, WhitespaceSplit())
        )
        assert [part.strip() for part in pieces.replace("@@ ", " ").split()] == tokens.replace(
            "</w>", ""
        ).split()
        assert tokens.replace(" ", "").replace("</w>", " ").split() == line.split()


@pytest.fixture(scope="module")
def gpt2(data: Path) -> BPE:
    folder = data / "tok_gpt2"
    byte_of = {char: byte for byte, char in SHOWN.items()}
    names = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    tokens = [b""] * len(names)
    for name, i in names.items():
        tokens[i] = name.encode() if name == "<|endoftext|>" else bytes(byte_of[char] for char in name)
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    pairs = [line.split(" ") for line in lines if line]
    merges = [(names[left], names[right]) for left, right in pairs]
    return BPE(tokens, merges, initial="bytes", silent=frozenset([names["<|endoftext|>"]]))


@pytest.fixture(scope="module")
def cl100k(data: Path) -> BPE:
    path = (
        Path(pytest.importorskip("os").environ.get("LINEAL_TEST_DATA", ""))
        / "tok_tiktoken/cl100k_base.tiktoken"
    )
    if not path.is_file():
        pytest.skip("LINEAL_TEST_DATA is not set: it names the folder of public data sets")
    rows = [line.split() for line in path.read_bytes().splitlines()]
    tokens = [base64.b64decode(token) for token, _ in rows]
    assert [int(rank) for _, rank in rows] == [*range(len(rows))]
    return BPE(tokens, (), initial="bytes", by_rank=True, ignore_merges=True)


def test_vectors_of_llama_cpp(data: Path, gpt2: BPE) -> None:
    folder = data / "tok_llamacpp"
    texts = (
        (folder / "ggml-vocab-gpt-2.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    )
    lines = (folder / "ggml-vocab-gpt-2.gguf.out").read_text(encoding="utf-8").split("\n")
    assert len(texts) == len(lines) == 47
    for text, line in zip(texts, lines):
        assert encode(gpt2, text) == [int(token) for token in line.split()]


def plans(data: Path, encoding: str) -> list[tuple[str, list[int]]]:
    """The texts and ids of one encoding of the test plans."""
    found = []
    for block in (
        (data / "tok_tiktoken/TestPlans.txt").read_text(encoding="utf-8").split("EncodingName: ")[1:]
    ):
        name, rest = block.split("\nSample: ", 1)
        text, ids = rest.rsplit("\nEncoded: ", 1)
        if name == encoding:
            found.append((text, json.loads(ids)))
    assert len(found) == 64
    return found


def test_test_plans(data: Path, gpt2: BPE, cl100k: BPE) -> None:
    for text, ids in plans(data, "r50k_base"):
        assert encode(gpt2, text) == ids
    for text, ids in plans(data, "cl100k_base"):
        assert encode(cl100k, text, Cl100k()) == ids


def test_ids_are_those_of_tiktoken(data: Path, cl100k: BPE) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    ranks = {token: i for i, token in enumerate(cl100k.tokens)}
    theirs = tiktoken.Encoding("cl100k", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    text = "".join(
        read(data / f"ntrex/newstest2019-{name}.txt")[:40_000] for name in ("ref.jpn", "ref.rus", "src.eng")
    )
    for start in range(0, len(text), 500):
        assert encode(cl100k, text[start : start + 500], Cl100k()) == theirs.encode_ordinary(
            text[start : start + 500]
        )
    word = random.Random(0).choices("abcdefgh", k=3000)
    assert encode(cl100k, "".join(word), Cl100k()) == theirs.encode_ordinary("".join(word))


@given(st.binary())
def test_nothing_is_lost(gpt2: BPE, content: bytes) -> None:
    ids = gpt2.encode(content, array("i", [0, len(content)]))
    assert b"".join(gpt2.tokens[token] for token in ids) == content


@given(st.text())
def test_segments_cover_their_piece(gpt2: BPE, text: str) -> None:
    piece = text.encode()
    found = gpt2.segment(piece)
    assert [token for token, _, _ in found] == gpt2.encode(piece, array("i", [0, len(piece)]))
    assert [start for _, start, _ in found] + [len(piece)] == [0] + [end for _, _, end in found]
    assert all(gpt2.tokens[token] == piece[start:end] for token, start, end in found)


def test_special_tokens_never_come_out_of_text(gpt2: BPE) -> None:
    name = b"<|endoftext|>"
    for model in (
        gpt2,
        BPE(gpt2.tokens, (), initial="bytes", by_rank=True, ignore_merges=True, silent=gpt2.silent),
    ):
        ids = model.encode(name, array("i", [0, len(name)]))
        assert not model.silent & {*ids}
        assert b"".join(model.tokens[token] for token in ids) == name
    trained = train_bpe({b"<s>": 100, b"<s>a": 50}, 300, special=["<s>"])
    assert 0 not in encode(trained, "<s>", Whole())


def test_several_texts_in_threads_are_as_one_by_one(gpt2: BPE) -> None:
    draw = random.Random(1)
    words = ["the", " cat", " sat", "\n\n", " on", " wonderfully", "日本語", "!" * 20]
    texts = ["".join(draw.choices(words, k=draw.choice([0, 3, 300, 9000]))).encode() for _ in range(120)]
    spans = [Gpt2().spans(text) for text in texts]
    expected = [gpt2.encode(text, places) for text, places in zip(texts, spans)]
    for threads in (1, 2, 5):
        assert gpt2.encode_batch(texts, spans, threads) == expected
    assert gpt2.encode_batch([], [], 2) == []
    with pytest.raises(UsageError):
        gpt2.encode_batch(texts, spans[1:], 2)


def small(**options) -> BPE:
    return train_bpe({b"abcabc": 5, b"abc": 3, b"cab": 1}, 300, **options)


def test_without_a_compiler_the_ids_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    like = small()
    for module in (bpe, bpe_learn):
        monkeypatch.setattr(module, "compiled", lambda name: None)
    other = small()
    assert other._core is None
    assert other == like
    texts = [b"abcab", b"ccc", b"abcab"]
    spans = [array("i", [0, len(text)]) for text in texts]
    assert other.encode_batch(texts, spans, 2) == like.encode_batch(texts, spans, 2)


def test_a_copy_is_equal_and_works() -> None:
    model = small()
    other = copy.deepcopy(model)
    assert other == model
    assert encode(other, "abcab") == encode(model, "abcab")


class TestDropout:
    """Merges left out at random."""

    text = b"abcabcab"
    spans = array("i", [0, 8])

    def test_none_is_the_rule(self) -> None:
        model = small()
        assert model.sample(self.text, self.spans, random.Random(0)) == model.encode(self.text, self.spans)

    def test_nearly_all_leaves_bytes(self) -> None:
        found = small(), small().sample(self.text, self.spans, random.Random(0), 1 - 1e-12)
        assert [found[0].tokens[token] for token in found[1]] == [bytes([byte]) for byte in self.text]

    def test_a_seed_repeats_and_the_text_stays(self) -> None:
        model = BPE(small().tokens, small().merges, initial="bytes", dropout=0.5)
        draws = [
            [model.sample(self.text, self.spans, random.Random(seed)) for seed in range(30)] for _ in range(2)
        ]
        assert draws[0] == draws[1]
        assert len({*map(tuple, draws[0])}) > 3
        for ids in [*draws[0], model.encode(self.text, self.spans)]:
            assert b"".join(model.tokens[token] for token in ids) == self.text

    def test_one_merge_is_left_out_as_often_as_said(self) -> None:
        model = train_bpe({b"ab": 1}, 257)
        source = random.Random(3)
        merged = [len(model.sample(b"ab", array("i", [0, 2]), source, 0.3)) == 1 for _ in range(400)]
        assert abs(sum(merged) / 400 - 0.7) < 0.1


WRONG = {
    "unknown": {"unknown": 9},
    "byte_fallback": {"byte_fallback": (0, 1)},
    "fallback with a suffix": {"byte_fallback": (0,) * 256, "suffix": b"_"},
    "silent": {"silent": frozenset([-1])},
    "by_rank": {"by_rank": True},
    "dropout": {"dropout": 1.0},
    "initial": {"initial": "words"},
}


@pytest.mark.parametrize("options", WRONG.values(), ids=[*WRONG])
def test_a_vocabulary_that_cannot_be_is_refused(options) -> None:
    with pytest.raises(ModelError):
        BPE([b"a", b"b", b"ab"], [(0, 1)], **{"initial": "bytes", **options})


def test_a_piece_outside_the_text_is_refused() -> None:
    with pytest.raises(DataError, match="outside"):
        small().encode(b"abc", array("i", [0, 4]))


REFUSED: dict[str, tuple[Mapping[bytes, int], int, dict, type[Exception], str]] = {
    "nothing": ({}, 300, {}, DataError, "no pieces"),
    "only empty": ({b"": 3}, 300, {}, DataError, "no pieces"),
    "all zero": ({b"a": 0}, 300, {}, DataError, "no pieces"),
    "negative": ({b"a": -1}, 300, {}, DataError, "-1"),
    "beyond 64 bits": ({b"a": 1 << 64}, 300, {}, DataError, "64 bits"),
    "too much": ({b"abcd": 1 << 61}, 300, {}, UsageError, "more than can be counted"),
    "too small": ({b"ab": 1}, 255, {}, UsageError, "256 tokens"),
    "no option": ({b"ab": 1}, 300, {"min": 3}, UsageError, "no option 'min'"),
    "ties": ({b"ab": 1}, 300, {"ties": "rust"}, UsageError, "ties='rust'"),
    "special twice": ({b"ab": 1}, 300, {"special": ["<s>", "<s>"]}, UsageError, "stands twice"),
    "special symbol": ({b"ab": 1}, 300, {"special": ["a"]}, UsageError, "symbol of the text"),
    "unknown": ({b"ab": 1}, 300, {"unknown": "<unk>"}, UsageError, "no special token"),
    "fallback": ({b"ab": 1}, 600, {"byte_fallback": True}, UsageError, "byte_fallback"),
}


@pytest.mark.parametrize("counts,size,options,kind,message", REFUSED.values(), ids=[*REFUSED])
def test_training_that_cannot_be_is_refused(counts, size: int, options, kind, message: str) -> None:
    with pytest.raises(kind, match=message):
        train_bpe(counts, size, **options)


def test_a_vocabulary_beyond_the_corpus_says_its_size() -> None:
    model = train_bpe({b"abab": 2}, 10**9)
    assert len(model.tokens) == 258
    assert model.tokens[256:] == (b"ab", b"abab")


def test_rare_pairs_are_not_merged() -> None:
    assert train_bpe({b"ab": 2, b"cd": 1}, 300, min_frequency=2).tokens[256:] == (b"ab",)


def test_progress_ends_with_the_merges_done() -> None:
    calls = []
    model = train_bpe({b"abcd" * 20: 1}, 400, progress=lambda *done: calls.append(done))
    assert calls[-1] == (len(model.merges), 144)
