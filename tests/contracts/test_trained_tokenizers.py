"""What every kind of trained tokenizer promises, on texts that were chosen to break it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.tokenizers import Pipeline, Tokenizer, load_tokenizer
from lineal.tokenizers.files.huggingface import read_huggingface
from lineal.tokenizers.text.marks import WHITE
from lineal.tokenizers.text.normalise import Bert
from lineal.tokenizers.training import KINDS, Learning, train

NAMES = (
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    "<eos>",
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "<|endoftext|>",
)
# Written forms that mean something to one kind or another, and must be plain text to all of them.
MARKED = ("##", "##a", "</w>", "a</w>", "<0x41>", "<0x0A>", "Ġ", "Ċ", "é", "\u200d")
LINES = [
    "the cat sat on the mat, and the rat sat on the cat.\n",
    "A naïve Queen: 'hugs and mugs' cost 12 or 345 coins!\n",
    "don't do not won't; the  hound\tand the cat ...\n",
    f"{' '.join(NAMES)} {' '.join(MARKED)} {''.join(NAMES)} <0x41> <0x41><0x41> <s><s> [CLS][CLS]\n",
] * 4
KNOWN = sorted(set("".join(LINES)))
STRANGE = "日本👩‍👧ﬁ①İΣς\u0301\u0323\u2028\xa0\x00\x7f\ufffd\ufeff\u3000\U0001f600\U0010ffff각"
known = st.text(KNOWN, max_size=40)
strange = st.lists(
    st.one_of(st.sampled_from([*KNOWN, *STRANGE]), st.sampled_from(NAMES + MARKED)), max_size=25
).map("".join)
HARD = "  The café's\r\n\tdon't 日本 <s>[CLS]##a</w><0x41> 👩‍👧\x00\ufffd e\u0301 ﬁ "


def as_pipeline(made: Tokenizer, folder: Path) -> Tokenizer:
    """What the folder of a tokenizer says, put together from parts."""
    made.save(folder)
    return read_huggingface(folder)


SMALL, PIECES = Learning(vocab_size=400), Learning(vocab_size=480)


@dataclass(frozen=True)
class Case:
    """How one tokenizer is made, and the text that comes back when all characters are known.

    back: None where only ids can be compared, since decoding puts spaces of its own.
    """

    kind: str
    back: Callable[[str], str] | None
    learning: Learning = SMALL
    parts: bool = False


def same(text: str) -> str:
    """Nothing is lost."""
    return text


def spaced(text: str) -> str:
    """One space between words."""
    return " ".join(word for word in re.split(f"[{WHITE}]+", text) if word)


CASES = {
    "word": Case("word", lambda text: " ".join(re.findall(r"\w+|[^\w\s]+", text))),
    "char": Case("char", same),
    "char as parts": Case("char", same, parts=True),
    "byte": Case("byte", same),
    "byte as parts": Case("byte", same, parts=True),
    "bpe": Case("bpe", same),
    "char-bpe": Case("char-bpe", spaced),
    "wordpiece": Case("wordpiece", None),
    "wordpiece by likelihood": Case("wordpiece", None, Learning(vocab_size=300, score="likelihood")),
    "unigram": Case("unigram", lambda text: spaced(unicodedata.normalize("NFKC", text))),
    "sentencepiece": Case("sentencepiece", same, PIECES),
    "sentencepiece of pairs": Case("sentencepiece", same, replace(PIECES, algorithm="bpe")),
    "sentencepiece without bytes": Case("sentencepiece", same, replace(PIECES, byte_fallback=False)),
}
# A text that has the mark of a word's end in it can't be told from the mark itself.
WRITTEN = {"char-bpe": "</w>"}
# The library takes a text like <0x41> for the byte token where the model is Unigram, and so loses it; we don't.
TAKEN = {"sentencepiece": "<0x"}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    """Each tokenizer, trained once."""

    @cache
    def made(name: str) -> Tokenizer:
        case = CASES[name]
        found = train(case.kind, texts=LINES, learning=case.learning)
        return as_pipeline(found, tmp_path_factory.mktemp("parts")) if case.parts else found

    return made


@pytest.fixture(params=list(CASES), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    """The name of each case in turn."""
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name: str, make: Callable[[str], Tokenizer]) -> Tokenizer:
    """Each tokenizer in turn."""
    return make(name)


@pytest.fixture(scope="module")
def pipeline(tokenizer: Tokenizer) -> Pipeline:
    """Those that are made of parts."""
    if not isinstance(tokenizer, Pipeline):
        pytest.skip("has no parts")
    return tokenizer


@pytest.fixture(scope="module")
def saved(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of each tokenizer."""
    folder = tmp_path_factory.mktemp("saved")
    tokenizer.save(folder)
    return folder


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """The ids that no text may give: all special ones but that of unknown text."""
    named = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, *tokenizer.prefix}
    if isinstance(tokenizer, Pipeline):
        named |= tokenizer.special_ids
    return {index for index in named if index is not None} - {getattr(tokenizer, "unk_id", None)}


def test_known_text_comes_back_but_for_the_documented_loss(name: str, tokenizer: Tokenizer) -> None:
    back = CASES[name].back

    @given(known)
    @example("")
    @example(" ")
    @example("\n\n a\t\tb  ")
    @example("<0x41> <s>")
    def check(text: str) -> None:
        if WRITTEN.get(name, "\0") in text:
            return
        ids = tokenizer.encode(text)
        if back is not None and getattr(tokenizer, "unk_id", None) not in ids:
            assert tokenizer.decode(ids) == back(text)
        elif back is None:
            assert tokenizer.encode(tokenizer.decode(ids, skip_special=True)) == [
                index for index in ids if index != getattr(tokenizer, "unk_id", None)
            ]

    check()


def test_every_character_of_the_corpus_is_known(name: str, tokenizer: Tokenizer) -> None:
    if name == "word" or name.startswith("wordpiece"):
        pytest.skip("knows whole words, or words whose parts it has")
    assert getattr(tokenizer, "unk_id", None) not in tokenizer.encode("".join(LINES))


def test_lossless_kinds_lose_nothing_of_any_text(name: str, tokenizer: Tokenizer) -> None:
    if name not in ("byte", "byte as parts", "bpe"):
        pytest.skip("knows only the characters of its corpus")

    @given(st.text(), st.booleans())
    @example(HARD, True)
    def check(text: str, special: bool) -> None:
        assert tokenizer.decode(tokenizer.encode(text, special=special), skip_special=False) == text

    check()


def test_what_a_user_writes_is_text(tokenizer: Tokenizer) -> None:
    special = special_ids(tokenizer)
    assert special

    @given(strange)
    @example("".join(NAMES))
    @example(" ".join(NAMES))
    @example("x".join(NAMES))
    def check(text: str) -> None:
        ids = tokenizer.encode(text)
        assert not special & set(ids)
        assert all(0 <= index < tokenizer.vocab_size for index in ids)

    check()


def test_special_tokens_are_found_when_asked(tokenizer: Tokenizer) -> None:
    for index in special_ids(tokenizer) - set(tokenizer.prefix):
        written = tokenizer.decode([index], skip_special=False)
        assert tokenizer.encode(written, special=True) == [index]
        assert tokenizer.decode([index]) == ""
        assert index not in tokenizer.encode(written)
        assert tokenizer.encode(f"the{written}{written}cat", special=True).count(index) == 2


@given(text=strange)
@example(text=HARD)
@example(text="")
def test_the_folder_gives_the_same_ids(tokenizer: Tokenizer, saved: Path, text: str) -> None:
    again = opened(saved)
    for special in (False, True):
        ids = tokenizer.encode(text, special=special)
        assert again.encode(text, special=special) == ids
        assert again.decode(ids, skip_special=not special) == tokenizer.decode(ids, skip_special=not special)


@cache
def opened(folder: Path) -> Tokenizer:
    """The tokenizer of a folder."""
    return load_tokenizer(folder)


def test_the_folder_holds_plain_files_and_is_written_alike_each_time(
    tokenizer: Tokenizer, saved: Path, tmp_path: Path
) -> None:
    opened(saved).save(tmp_path)
    assert sorted(path.name for path in saved.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    for path in saved.iterdir():
        assert json.loads(path.read_text(encoding="utf-8"))
        if type(opened(saved)) is type(tokenizer):
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert opened(saved).vocab_size == tokenizer.vocab_size
    assert special_ids(opened(saved)) == special_ids(tokenizer)


def test_the_tokenizers_library_reads_it_alike(name: str, tokenizer: Tokenizer, saved: Path) -> None:
    library = pytest.importorskip("tokenizers")
    other = library.Tokenizer.from_file(str(saved / "tokenizer.json"))
    assert other.get_vocab_size() <= tokenizer.vocab_size

    @given(strange)
    @example(HARD)
    @example("")
    def check(text: str) -> None:
        text = text.replace(TAKEN.get(name, "\0\0"), "")
        ids = tokenizer.encode(text, special=True)
        assert other.encode(text, add_special_tokens=False).ids == ids
        for skip in (True, False):
            assert other.decode(ids, skip_special_tokens=skip) == tokenizer.decode(ids, skip_special=skip)

    check()


def test_any_ids_decode_like_the_library(tokenizer: Tokenizer, saved: Path) -> None:
    library = pytest.importorskip("tokenizers")
    other = library.Tokenizer.from_file(str(saved / "tokenizer.json"))
    named = [index for index in range(tokenizer.vocab_size) if other.id_to_token(index) is not None]

    @given(st.lists(st.sampled_from(named), max_size=20), st.booleans())
    def check(ids: list[int], skip: bool) -> None:
        assert tokenizer.decode(ids, skip_special=skip) == other.decode(ids, skip_special_tokens=skip)

    check()


@given(text=strange)
@example(text=HARD)
def test_a_stream_of_a_text_is_its_decoding(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, special=True)
    stream = tokenizer.stream()
    assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


def test_a_stream_of_any_ids_is_their_decoding(name: str, tokenizer: Tokenizer) -> None:
    if name in ("sentencepiece", "sentencepiece of pairs"):
        pytest.skip("what bytes become depends on all bytes beside them")

    @given(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=20))
    def check(ids: list[int]) -> None:
        stream = tokenizer.stream()
        assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)

    check()


@pytest.mark.parametrize("between", [1, 2, 5])
def test_special_tokens_within_a_stream_leave_the_spaces_alone(tokenizer: Tokenizer, between: int) -> None:
    for quiet in special_ids(tokenizer):
        ids = [quiet, *tokenizer.encode("the cat"), *[quiet] * between, *tokenizer.encode("the cat"), quiet]
        stream = tokenizer.stream()
        assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


def test_ids_do_not_depend_on_what_came_before(tokenizer: Tokenizer, saved: Path) -> None:
    # Opening a folder for every example is slow, and few are enough: the memory fills from text to text.
    @settings(max_examples=5)
    @given(st.lists(strange, min_size=1, max_size=6))
    @example([HARD, "the cat", HARD])
    def check(texts: list[str]) -> None:
        forward = [tokenizer.encode(text) for text in texts]
        backward = [tokenizer.encode(text) for text in reversed(texts)][::-1]
        fresh = load_tokenizer(saved)
        assert forward == backward == [fresh.encode(text) for text in texts]

    check()


def test_a_list_that_was_given_out_is_the_callers(tokenizer: Tokenizer) -> None:
    expected = list(tokenizer.encode("the cat sat"))
    found = tokenizer.encode("the cat sat")
    found.reverse()
    found.clear()
    assert tokenizer.encode("the cat sat") == expected


@given(texts=st.lists(strange, max_size=8), special=st.booleans())
@example(texts=[HARD, "", "the cat", HARD * 3], special=True)
def test_a_batch_is_its_texts_one_by_one(pipeline: Pipeline, texts: list[str], special: bool) -> None:
    expected = [pipeline.encode(text, special=special) for text in texts]
    for threads in (1, 2):
        assert pipeline.encode_batch(texts, threads=threads, special=special) == expected


def test_threads_may_begin_with_a_fresh_tokenizer(pipeline: Pipeline, saved: Path) -> None:
    """Tables that are made when first needed are then made by several threads at once."""
    texts = [f"{chr(0x20 + 300 * i)}the café {chr(0x1E00 + 7 * i)}語{i}" for i in range(60)]
    expected = [pipeline.encode(text) for text in texts]
    assert read_huggingface(saved).encode_batch(texts, threads=4) == expected


@given(text=strange, special=st.booleans())
@example(text=HARD, special=True)
@example(text="", special=False)
def test_offsets_belong_to_the_ids_and_are_in_order(pipeline: Pipeline, text: str, special: bool) -> None:
    found = pipeline.encode_with_offsets(text, special=special)
    assert found.ids == pipeline.encode(text, special=special)
    assert found.tokens == [pipeline.token(index) for index in found.ids]
    assert len(found.offsets) == len(found.ids)
    assert all(0 <= start <= end <= len(text) for start, end in found.offsets)
    for (start, end), (later, last) in pairwise(found.offsets):
        assert start <= later and end <= last
    for index, (start, end) in zip(found.ids, found.offsets):
        if index in special_ids(pipeline):
            assert text[start:end].encode() == pipeline.token(index)


@given(text=strange)
@example(text=HARD)
@example(text="  a  b  ")
def test_offsets_leave_out_only_what_is_lost(name: str, pipeline: Pipeline, text: str) -> None:
    offsets = pipeline.encode_with_offsets(text).offsets
    covered = {at for start, end in offsets for at in range(start, end)}
    missed = "".join(character for at, character in enumerate(text) if at not in covered)
    if name.startswith(("char as", "byte", "bpe", "sentencepiece")):
        assert missed == ""
    elif name.startswith("wordpiece"):
        assert Bert()(missed).strip(" \u0301\u0323") == ""
    else:
        assert missed.strip(WHITE) == ""


@given(text=known)
def test_a_token_is_what_its_offsets_show(name: str, pipeline: Pipeline, text: str) -> None:
    found = pipeline.encode_with_offsets(text)
    for index, token, (start, end) in zip(found.ids, found.tokens, found.offsets):
        if index == pipeline.model.unknown:
            continue
        shown = text[start:end]
        if name.startswith("wordpiece"):
            assert Bert()(shown).encode() == token.removeprefix(b"##")
        elif name == "char-bpe":
            assert shown.encode() == token.removesuffix(b"</w>")
        elif name.startswith(("byte", "bpe")):
            assert token in shown.encode()
        elif name.startswith(("unigram", "sentencepiece")):
            # A space that the normaliser drops belongs to the token before it.
            plain = (
                re.sub(" +", "▁", shown).encode() if name == "unigram" else shown.replace(" ", "▁").encode()
            )
            written = re.fullmatch(rb"<0x(..)>", token)
            assert (
                plain in (token, token.removeprefix("▁".encode()))
                or written
                or "\t" in shown
                or "\n" in shown
            )
        else:
            assert shown.encode() == token


def test_ids_and_tokens_are_two_ways_round(pipeline: Pipeline) -> None:
    for index in range(pipeline.vocab_size):
        token = pipeline.token(index)
        assert pipeline.id(token) == (index if token else None)
    for wrong in (-1, pipeline.vocab_size):
        with pytest.raises(UsageError, match="there is no token"):
            pipeline.token(wrong)
    assert pipeline.id("no such token") is None
    assert pipeline.id("\ud800") is None


def test_half_a_surrogate_pair_is_refused_or_unknown(name: str, tokenizer: Tokenizer) -> None:
    for text in ("\ud800", "the cat \udfff", "é\ud83d<s>"):
        if isinstance(tokenizer, Pipeline):
            for special in (False, True):
                with pytest.raises(DataError, match=r"U\+D"):
                    tokenizer.encode(text, special=special)
                with pytest.raises(DataError, match=r"U\+D"):
                    tokenizer.encode_with_offsets(text, special=special)
            with pytest.raises(DataError, match=r"U\+D"):
                tokenizer.encode_batch(["the cat", text], threads=2)
        else:
            assert "\ud800" not in tokenizer.decode(tokenizer.encode(text))
        assert tokenizer.encode("the cat") == tokenizer.encode("the cat")


def test_nothing_gives_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == tokenizer.encode("", special=True) == []
    assert tokenizer.decode([]) == tokenizer.decode([], skip_special=False) == ""
    assert tokenizer.stream().finish() == ""


@pytest.mark.parametrize("part", ["a", " ", "the cat ", "日", "\x00", "<s>", "\u0301", "ab\n"])
def test_a_very_long_text_is_like_a_short_one(name: str, tokenizer: Tokenizer, part: str) -> None:
    """Of a long run the middle repeats itself: twice as long a text has twice as many tokens, but for the ends."""
    sizes = [len(tokenizer.encode(part * times)) for times in (12_000, 24_000)]
    assert abs(sizes[1] - 2 * sizes[0]) <= 8
    back = CASES[name].back
    ids = tokenizer.encode(part * 12_000)
    unknown = getattr(tokenizer, "unk_id", None)
    if back is not None and unknown not in ids and part != "\u0301":
        assert tokenizer.decode(ids) == back(part * 12_000)


def test_every_kind_is_here() -> None:
    assert {case.kind for case in CASES.values()} == set(KINDS)
