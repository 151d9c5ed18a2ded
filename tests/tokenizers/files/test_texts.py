"""Normalisers and splitters to tokenizer.json and back, one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import ModelError
from lineal.tokenizers.files.proto import RunSplit
from lineal.tokenizers.files.reading import Field, MissingPart
from lineal.tokenizers.files.texts import (
    quickened,
    read_normaliser,
    read_splitter,
    written_normaliser,
    written_splitter,
)
from lineal.tokenizers.parts import Normaliser, Splitter
from lineal.tokenizers.text import normalise, split
from lineal.tokenizers.text.charsmap import SentencePieceNormaliser
from lineal.tokenizers.text.prepared import MarkedWords, Prepared, ReplacePattern

NORMALISERS: list[Normaliser | None] = [
    None,
    *(normalise.Unicode(form) for form in normalise.FORMS),
    normalise.Lowercase(),
    normalise.StripAccents(),
    normalise.Strip(left=False),
    normalise.Prepend("x"),
    normalise.Replace("a", "b"),
    ReplacePattern(r"\s+", " "),
    normalise.Bert(chinese=False, strip_accents=True, lowercase=False),
    normalise.Chain((normalise.Unicode("NFD"), normalise.StripAccents())),
    SentencePieceNormaliser(b""),
    SentencePieceNormaliser(b"", add_dummy_prefix=False),
    SentencePieceNormaliser(b"", escape_whitespaces=False),
]
METASPACE = Prepared(normalise.Metaspace(), split.SymbolSplit())
SPLITTERS: list[Splitter] = [
    split.Whole(),
    split.Whitespace(),
    split.WhitespaceSplit(),
    split.BertSplit(),
    split.Punctuation("merged_with_previous"),
    split.Digits(individual=True),
    split.Cl100k(),
    split.Cl100k(whole_end=True),
    split.Cl100k(1),
    split.O200k(),
    split.Regex("[ab]+", "removed", invert=True),
    split.SymbolSplit(),
    split.Splits((split.WhitespaceSplit(), split.Digits())),
    METASPACE,
    Prepared(normalise.Metaspace("_", "first"), split.Whole()),
    Prepared(MarkedWords(), split.SymbolSplit()),
]
OVER_BYTES: list[Splitter] = [
    split.Gpt2(),
    split.Gpt2(prefix_space=True),
    split.Whole(),
    split.Cl100k(),
    Prepared(normalise.SpaceInFront(), split.Whole()),
    split.Splits((split.Digits(individual=True), split.Gpt2())),
]
TEXTS = st.text("aAbé\u0301 \t\n猫1２.,'ﬁ_▁", max_size=20)


def library() -> Any:
    """The oracle."""
    return pytest.importorskip("tokenizers", reason="the oracle is in the [hf] extra")


def theirs(part: str, content: Any) -> Any:
    """The library's part of this content."""
    whole = {
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        part: content,
    }
    return getattr(library().Tokenizer.from_str(json.dumps(whole)), part)


@pytest.mark.parametrize("part", NORMALISERS, ids=repr)
def test_a_normaliser_comes_back_and_does_what_the_librarys_does(part: Normaliser | None) -> None:
    content = written_normaliser(part)
    assert read_normaliser(Field("x", "normalizer", json.loads(json.dumps(content)))) == part
    if part is None:
        return
    other = theirs("normalizer", content)

    @given(TEXTS)
    def check(text: str) -> None:
        # The library puts nothing before an empty text, whatever was done to it.
        assert part(text) == other.normalize_str(text)

    check()


@pytest.mark.parametrize("part", SPLITTERS, ids=repr)
def test_a_splitter_comes_back_and_cuts_as_the_librarys_does(part: Splitter) -> None:
    content = written_splitter(part, byte_level=False)
    assert read_splitter(Field("x", "pre_tokenizer", json.loads(json.dumps(content)))) == (part, False)
    if content is None:
        return
    other = theirs("pre_tokenizer", content)

    @given(TEXTS.filter(bool))
    def check(text: str) -> None:
        made = part.before(text) if part.before else text
        spans = part.spans(made.encode()) if made else []
        pieces = [made.encode()[spans[i] : spans[i + 1]].decode() for i in range(0, len(spans), 2)]
        assert pieces == [piece for piece, _ in other.pre_tokenize_str(text)]

    check()


@pytest.mark.parametrize("part", OVER_BYTES, ids=repr)
def test_a_splitter_over_bytes_comes_back(part: Splitter) -> None:
    content = written_splitter(part, byte_level=True)
    assert read_splitter(Field("x", "pre_tokenizer", json.loads(json.dumps(content)))) == (part, True)


def test_what_the_format_cannot_say() -> None:
    for part in (SentencePieceNormaliser(b"", treat_whitespace_as_suffix=True), normalise.SpaceInFront()):
        with pytest.raises(ModelError, match=r"tokenizer\.json"):
            written_normaliser(part)
    with pytest.raises(ModelError, match="no such pre-tokenizer"):
        written_splitter(Prepared(normalise.Lowercase(), split.Whole()), byte_level=False)


def test_metaspace_behind_another_is_lacking() -> None:
    parts = [{"type": "Punctuation"}, {"type": "Metaspace", "replacement": "▁"}]
    with pytest.raises(MissingPart, match="Metaspace behind another"):
        read_splitter(Field("x", "pre_tokenizer", {"type": "Sequence", "pretokenizers": parts}))


@pytest.mark.parametrize("pattern", [r"\h", "[a[b]]", "[a&&b]", r"a{2}+", r"\X"])
def test_a_pattern_that_the_libraries_read_differently_is_lacking(pattern: str) -> None:
    entry = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    with pytest.raises(MissingPart, match="Oniguruma"):
        read_splitter(Field("x", "pre_tokenizer", entry))


@pytest.mark.parametrize(
    "tokens,cuts",
    [
        (["▁", "▁a", "▁▁", "b"], True),
        (["▁", "a▁b"], False),
        (["▁", "▖▁"], False),
        (["▁a"], False),
    ],
)
def test_words_are_cut_apart_where_no_token_joins_them(tokens: list[str], cuts: bool) -> None:
    bare = [token.encode() for token in tokens]
    assert quickened(split.Whole(), bare) == (RunSplit("▁") if cuts else split.Whole())
    front = Prepared(normalise.Metaspace(), split.Whole())
    assert quickened(front, bare) == (Prepared(normalise.Metaspace(), RunSplit("▁")) if cuts else front)
    assert quickened(split.Digits(), bare) == split.Digits()
