"""Ways of splitting: against the libraries whose rules they are, and the compiled scanner against the obvious form."""

from __future__ import annotations

import gzip
import random
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.tokenizers.parts import Splitter
from lineal.tokenizers.text import split
from lineal.tokenizers.text.patterns import BEHAVIOURS
from lineal.tokenizers.text.split import (
    BertSplit,
    ByClass,
    Cl100k,
    Digits,
    Gpt2,
    O200k,
    Punctuation,
    Regex,
    Splits,
    SymbolSplit,
    Whitespace,
    WhitespaceSplit,
    Whole,
    built_in,
    line_spans,
    pieces_of_pieces,
)

CHARACTERS = (
    "aAbzstmdrevlLSTMDREV''' 019.,!/_-^$\t\n\r\x0b\x1c\x00\x7f\x85\xa0\u3000\u2028日本éßſKʰǅΑαА٣½Ⅷ\u0301\u0903\u200d\ufeff"
    "\U0001f600\U0001f468ⓐ"
)
"""Characters between which the rules draw lines; all of them older than any Unicode version in use."""

TEXTS = st.text(st.sampled_from(CHARACTERS), max_size=40)
SPLITTERS: list[ByClass] = [
    Gpt2(),
    Cl100k(),
    Cl100k(digits=1),
    Cl100k(whole_end=True),
    O200k(),
    O200k(digits=1, contractions=False),
    Whitespace(),
    WhitespaceSplit(),
    BertSplit(),
    Digits(),
    Digits(individual=True),
    *(Punctuation(behaviour) for behaviour in BEHAVIOURS),
]


def cut(splitter: Splitter, text: str) -> list[str]:
    """The pieces of a text."""
    data = text.encode()
    spans = splitter.spans(data)
    return [data[start:end].decode() for start, end in zip(spans[::2], spans[1::2])]


def theirs(splitter: ByClass):
    """The same way of splitting in Hugging Face's library."""
    tokenizers = pytest.importorskip("tokenizers")
    parts, match = tokenizers.pre_tokenizers, splitter
    if isinstance(match, Cl100k | O200k):
        return parts.Split(tokenizers.Regex(match.pattern), "isolated")
    if isinstance(match, Digits):
        return parts.Digits(match.individual)
    if isinstance(match, Punctuation):
        return parts.Punctuation(match.behaviour)
    if isinstance(match, Gpt2):
        return parts.ByteLevel(add_prefix_space=False)
    known = {Whitespace: parts.Whitespace, WhitespaceSplit: parts.WhitespaceSplit}
    return known.get(type(match), parts.BertPreTokenizer)()


def cut_by(other, text: str) -> list[str]:
    """The pieces that a pre-tokenizer of Hugging Face gives."""
    return [text[start:end] for _, (start, end) in other.pre_tokenize_str(text)]


# Their engine takes `$` for the end of a line, so `whole_end` is held to OpenAI's own pattern below.
@pytest.mark.parametrize("splitter", [s for s in SPLITTERS if s != Cl100k(whole_end=True)], ids=str)
def test_pieces_are_those_of_hugging_face(splitter: ByClass) -> None:
    other = theirs(splitter)

    @given(TEXTS)
    def check(text: str) -> None:
        assert cut(splitter, text) == cut_by(other, text)

    check()


@pytest.mark.parametrize("splitter", [Gpt2(), O200k(), Whitespace()], ids=str)
def test_every_character_has_the_class_it_has_for_hugging_face(splitter: ByClass) -> None:
    # Beyond are planes without characters, but for the tags and selectors of the fifteenth.
    codes = [code for code in (*range(0x33500), *range(0xE0000, 0xE0200)) if not 0xD800 <= code < 0xE000]
    # Each is put between different neighbours; a wrong class moves a cut.
    random.Random(0).shuffle(codes)
    text = "".join(chr(code) + ("a", "1", "!", "A", " ", "\n")[at % 6] for at, code in enumerate(codes))
    assert cut(splitter, text) == cut_by(theirs(splitter), text)


@pytest.mark.parametrize("pattern", built_in(), ids=lambda pattern: pattern[:24])
def test_the_patterns_with_a_splitter_of_their_own_mean_what_they_say(pattern: str) -> None:
    regex = pytest.importorskip("regex")
    compiled = regex.compile(pattern)

    @given(TEXTS)
    def check(text: str) -> None:
        assert cut(Regex(pattern), text) == compiled.findall(text)

    check()


def test_openai_writes_the_patterns_we_know() -> None:
    public = pytest.importorskip("tiktoken_ext.openai_public")
    import inspect

    source = inspect.getsource(public)
    for pattern, splitter in built_in().items():
        if "++" in pattern and "s++$" in pattern:
            assert pattern in source and splitter in (Gpt2(), Cl100k(whole_end=True))
    for alternative in O200k().pattern.split("|[^")[0].split("|")[:1]:
        assert alternative.split("(?i")[0] in source


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_the_scanner_gives_the_pieces_of_the_rule(splitter: ByClass) -> None:
    if split.scanners() is None:
        pytest.skip("nothing was compiled at install")

    @given(st.text(st.one_of(st.sampled_from(CHARACTERS), st.characters(codec="utf-8"))), st.booleans())
    def texts(text: str, lines: bool) -> None:
        assert splitter.spans(text.encode(), lines) == splitter.by_character(text.encode(), lines)

    @given(st.lists(st.sampled_from(list(b"a' 1\n\xe2\x80\xa8\x85\xc2\xff\xc0\xed\xf0\x9f\x98\x90\xe3"))))
    def broken(data: list[int]) -> None:
        assert splitter.spans(bytes(data)) == splitter.by_character(bytes(data))

    texts()
    broken()


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_without_the_scanner_the_rule_serves(splitter: ByClass, monkeypatch) -> None:
    text = "I'll take 1234 of\u3000those...\n\n  Bücher, 日本 "
    expected = cut(splitter, text)
    monkeypatch.setattr(split, "scanners", lambda: None)
    assert cut(splitter, text) == expected
    assert cut(SymbolSplit("e"), text) == ["I'll tak", "e 1234 of\u3000thos", "e...\n\n  Büch", "er, 日本 "]


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
@pytest.mark.parametrize("first", [Digits(), WhitespaceSplit(), Punctuation("merged_with_next")], ids=str)
def test_pieces_are_cut_further_as_texts_of_their_own(splitter: ByClass, first: ByClass) -> None:
    @given(TEXTS)
    def check(text: str) -> None:
        data = text.encode()
        within = first.spans(data)
        expected = pieces_of_pieces(splitter.by_character, data, within)
        assert splitter.refine(data, within) == expected
        assert Splits((first, splitter)).spans(data) == expected

    check()


def corpora(data: Path) -> list[str]:
    """Some text of each language and kind there is."""
    files = [*sorted((data / "ntrex").iterdir()), *sorted((data / "tok_llamacpp").glob("*.inp"))]
    files.append(data / "novels_en" / "valid.txt.gz")
    contents = [file.read_bytes() for file in files]
    texts = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content for content in contents)
    return [text.decode()[:20_000] for text in texts]


@pytest.mark.parametrize("splitter", [Gpt2(), Cl100k(), O200k(), Whitespace(), BertSplit()], ids=str)
def test_real_texts_in_many_languages(splitter: ByClass, data: Path) -> None:
    other = theirs(splitter)
    for text in corpora(data):
        assert cut(splitter, text) == cut_by(other, text)
    assert splitter.spans(text.encode(), True) == splitter.by_character(text.encode(), True)


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_chunks_leave_no_trace(splitter: ByClass) -> None:
    data = "".join(random.Random(1).choices(CHARACTERS, k=25_000)).encode()
    assert len(data) > 2 * 16_384
    assert splitter.spans(data) == splitter.by_character(data)


@pytest.mark.parametrize("splitter", [*SPLITTERS, SymbolSplit(), Whole()], ids=str)
@pytest.mark.parametrize("unit", ["a", " ", "A", "'", "\n", "1", "\u3000", "\U0001f468\u200d", "日A", " \n"])
def test_a_million_of_the_same_is_cut_like_a_few(splitter: Splitter, unit: str) -> None:
    few, many = splitter.spans((unit * 12).encode()), splitter.spans((unit * 1_000_000).encode())
    if len(few) <= 6:
        assert len(many) == len(few)
    else:
        assert len(few) * 10_000 < len(many)


def test_lines_are_texts_of_their_own() -> None:
    text = "one  \n\n two\r\n three\u2028four \n"
    for splitter in [*SPLITTERS, SymbolSplit("o"), Whole()]:
        data, expected, at = text.encode(), array("i"), 0
        for line in data.split(b"\n")[:-1]:
            expected.extend(at + place for place in splitter.spans(line + b"\n"))
            at += len(line) + 1
        assert line_spans(splitter, data) == expected


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("pattern", [r"\s+", r"[ab]", r"b*", r"(?=c)", r"aa|c"])
def test_any_other_pattern(behaviour: str, invert: bool, pattern: str) -> None:
    pytest.importorskip("regex")
    tokenizers = pytest.importorskip("tokenizers")
    if pattern in (r"b*", r"(?=c)"):
        # An empty match takes part in nothing here; theirs keeps some as empty pieces.
        assert "".join(cut(Regex(pattern), "abcab")) == "abcab"
        return
    other = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), behaviour, invert)

    @given(st.text("abc é\n", max_size=12))
    def check(text: str) -> None:
        assert cut(Regex(pattern, behaviour, invert), text) == cut_by(other, text)

    check()


def test_several_in_a_row() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    parts = tokenizers.pre_tokenizers
    ours = Splits((Punctuation("contiguous"), Gpt2(), Digits(individual=True)))
    other = parts.Sequence(
        [parts.Punctuation("contiguous"), parts.ByteLevel(add_prefix_space=False), parts.Digits(True)]
    )
    text = "Well, it's 1999... isn't it?  Yes!! 12,5 €"
    assert cut(ours, text) == cut_by(other, text)
    assert cut(Splits(()), text) == [text]


def test_symbols_start_pieces() -> None:
    assert cut(SymbolSplit(), "▁a▁▁b c▁") == ["▁a", "▁", "▁b c", "▁"]
    assert cut(SymbolSplit(), "") == []
    assert cut(SymbolSplit("ab"), "xabab") == ["x", "ab", "ab"]
    assert cut(Whole(), "a b") == ["a b"]
    assert cut(Whole(), "") == []


def test_what_is_done_to_a_text_before() -> None:
    assert Gpt2().before is None
    before = Gpt2(prefix_space=True).before
    assert before is not None and before("a") == " a"
    assert Splits((Gpt2(),)).before is None
    assert Splits((Gpt2(prefix_space=True), Digits())).before == before


def test_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="choose one of removed"):
        Punctuation("dropped")
    with pytest.raises(UsageError, match="choose one of removed"):
        Regex("a", "dropped")
    with pytest.raises(UsageError, match="empty symbol"):
        SymbolSplit("")
    pytest.importorskip("regex")
    with pytest.raises(UsageError, match="can't be read"):
        Regex("(").spans(b"a")
    assert Regex(O200k().pattern, "removed").known is None
    assert Regex(O200k().pattern, "removed", True).known == O200k()


@pytest.mark.parametrize("digits", [0, -1, 1 << 31])
def test_numbers_in_pieces_of_nothing_are_refused(digits: int) -> None:
    for kind in (Cl100k, O200k):
        with pytest.raises(UsageError, match=rf"digits={digits} can't be"):
            kind(digits)


def test_symbols_and_patterns_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="lone surrogate"):
        SymbolSplit("a\ud800")
    pytest.importorskip("regex")
    for pattern in ("a{99999999999999999999}", r"\p{Nothing}", "(?<=", "(" * 4000 + ")" * 4000):
        with pytest.raises(UsageError, match="can't be read"):
            Regex(pattern).spans(b"aaa")
