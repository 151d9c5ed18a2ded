"""Putting parts together: what is done when, offsets, names, batches and pairs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lineal.errors import DataError, ModelError, UsageError
from lineal.tokenizers import decode
from lineal.tokenizers.added import AddedToken
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.pipeline import Encoding, Pipeline
from lineal.tokenizers.settings import Settings
from lineal.tokenizers.template import Template
from lineal.tokenizers.text import normalise, split
from lineal.tokenizers.text.prepared import Prepared
from lineal.tokenizers.words import WordLevel

BYTES = [bytes([byte]) for byte in range(256)]
MERGES = [(ord("a"), ord("b")), (ord(" "), 256), (256, 256), (0xC3, 0xA9)]
TOKENS = [*BYTES, b"ab", b" ab", b"abab", "é".encode()]


def byte_level(**parts: object) -> Pipeline:
    """A byte-level BPE with a few merges and special tokens."""
    settings = Settings({"eos_token": "<e>", "bos_token": {"content": "<s>"}, "pad_token": "nothing"}, (7,))
    added = [AddedToken("<s>", 260), AddedToken("<e>", 261), AddedToken("new", 263, special=False)]
    given: dict = {
        "splitter": split.Gpt2(),
        "decoder": decode.ByteLevel(),
        "added": added,
        "settings": settings,
    }
    return Pipeline(BPE(TOKENS, MERGES, initial="bytes"), **{**given, **parts})


def test_names_and_sizes() -> None:
    tokenizer = byte_level(
        template=Template.parse("<s> $A <e>", "<s> $A <e> $B <e>", {"<s>": 260, "<e>": 261})
    )
    assert tokenizer.vocab_size == 264
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id) == (260, 261, None, None)
    assert tokenizer.stop_ids == (261, 7)
    assert tokenizer.prefix == (260,)
    assert tokenizer.encode_prompt("ab") == [260, 256]
    assert (tokenizer.token(257), tokenizer.token(262), tokenizer.token(260)) == (b" ab", b"", b"<s>")
    assert (tokenizer.id(" ab"), tokenizer.id(b"\xc3"), tokenizer.id("<e>"), tokenizer.id("?!")) == (
        257,
        195,
        261,
        None,
    )
    with pytest.raises(UsageError, match="there is no token 264"):
        tokenizer.token(264)


def test_the_end_may_be_named_elsewhere() -> None:
    assert byte_level(settings=Settings({}, (7,))).eos_id == 7


@given(st.text())
@example("ab <s>abab<e> né new")
@example("\x00\ufffd")
def test_bytes_lose_nothing(text: str) -> None:
    tokenizer = byte_level()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode(text, special=True)
    assert tokenizer.decode(ids, skip_special=False) == text
    assert tokenizer.decode(ids) == text.replace("<s>", "").replace("<e>", "")


def test_special_tokens_are_never_made_from_a_users_text() -> None:
    tokenizer = byte_level()
    assert not {260, 261} & set(tokenizer.encode("a<s><e>new"))
    assert tokenizer.encode("a<s><e>new", special=True) == [97, 260, 261, 263]
    assert tokenizer.encode("new") == [263]


def test_half_a_surrogate_pair_is_refused() -> None:
    for tokenizer in (byte_level(), byte_level(normaliser=normalise.Unicode("NFC"))):
        with pytest.raises(DataError, match=r"U\+D83D at character 1"):
            tokenizer.encode("a\ud83d")


@given(st.text("ab né\u0301<s>new "))
@example("ab é<s> abab")
def test_offsets_cover_the_text(text: str) -> None:
    tokenizer = byte_level()
    found = tokenizer.encode_with_offsets(text, special=True)
    assert found.ids == tokenizer.encode(text, special=True)
    assert found.tokens == [tokenizer.tokens[i] for i in found.ids]
    for token, (start, end) in zip(found.tokens, found.offsets):
        assert token in text[start:end].encode()
    covered = {at for start, end in found.offsets for at in range(start, end)}
    assert covered == set(range(len(text)))


def test_offsets_go_back_through_normalisers() -> None:
    steps = normalise.Chain((normalise.Unicode("NFD"), normalise.StripAccents(), normalise.Lowercase()))
    words = WordLevel([b"?", "▁cafe".encode(), "▁au".encode(), b"lait"], unknown=0)
    marked = Prepared(normalise.Metaspace(), split.SymbolSplit())
    tokenizer = Pipeline(words, normaliser=steps, splitter=marked)
    assert tokenizer.encode_with_offsets("CAFÉ au") == Encoding(
        [1, 2], [(0, 4), (4, 7)], ["▁cafe".encode(), "▁au".encode()]
    )


def test_offsets_can_leave_out_white_space() -> None:
    tokenizer = byte_level(template=Template(trim=True))
    assert tokenizer.encode_with_offsets(" ab ab  ").offsets == [(1, 3), (4, 6), (7, 7), (8, 8)]


def test_only_the_start_of_a_text_gets_a_symbol_in_front() -> None:
    words = WordLevel([b"?", "▁a".encode(), b"a", b"<s>"], unknown=0)
    first, always = (
        Pipeline(
            words,
            splitter=Prepared(normalise.Metaspace(prepend=how), split.SymbolSplit()),
            added=[AddedToken("<s>", 3)],
        )
        for how in ("first", "always")
    )
    assert first.encode("a<s>a", special=True) == [1, 3, 2]
    assert always.encode("a<s>a", special=True) == [1, 3, 1]
    assert first.encode("<s>a", special=True) == [3, 2]


def test_pairs_and_lengths() -> None:
    template = Template.parse("<s> $A <e>", "<s> $A <e> $B:1 <e>:1", {"<s>": 260, "<e>": 261})
    tokenizer = byte_level(template=template)
    assert tokenizer.encode_pair("ab", "c<s>") == (
        [260, 256, 261, 99, 60, 115, 62, 261],
        [0, 0, 0, 1, 1, 1, 1, 1],
    )
    assert tokenizer.encode_pair("abab", "xyz", length=5) == ([260, 258, 261, 120, 261], [0, 0, 0, 1, 1])
    assert tokenizer.frame([1, 2, 3], length=4) == ([260, 1, 2, 261], [0] * 4)
    assert tokenizer.frame([1, 2, 3], length=2) == ([260, 261], [0, 0])
    with pytest.raises(UsageError, match="the template alone has 2"):
        tokenizer.frame([1], length=1)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_threads_change_nothing(special: bool, plain: bool) -> None:
    tokenizer = byte_level(added=[AddedToken("<s>", 260)]) if plain else byte_level()
    texts = [f"ab <s> {i} né new" * (i % 7) for i in range(200)]
    expected = [tokenizer.encode(text, special=special) for text in texts]
    for threads in (1, 2, 5):
        assert tokenizer.encode_batch(texts, threads=threads, special=special) == expected
    with pytest.raises(UsageError, match="threads=0"):
        tokenizer.encode_batch(texts, threads=0)
    assert tokenizer.encode_batch([], threads=3) == []


def test_ids_far_apart_are_refused() -> None:
    for index in (1 << 40, -1):
        with pytest.raises(ModelError, match="the ids are damaged"):
            byte_level(added=[AddedToken("x", index)])


def test_a_stream_shows_whole_characters() -> None:
    tokenizer = byte_level()
    stream = tokenizer.stream()
    ids = tokenizer.encode("né 猫")
    assert "".join(stream.push(i) for i in ids) + stream.finish() == "né 猫"


def test_without_a_decoder_tokens_are_words() -> None:
    tokenizer = Pipeline(WordLevel([b"?", b"a", b"b"], unknown=0), splitter=split.WhitespaceSplit())
    assert tokenizer.decode(tokenizer.encode("a b c")) == "a b ?"


def test_importing_is_light() -> None:
    heavy = "{'torch', 'numpy', 'tokenizers', 'regex', 'sentencepiece', 'tiktoken', 'jinja2'}"
    code = f"import sys, lineal.tokenizers.files.huggingface; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
