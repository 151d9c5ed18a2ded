"""Normalisers: what they make of a text, and where each character came from."""

from __future__ import annotations

import gzip
import itertools
import pickle
import unicodedata
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.tokenizers.parts import Normaliser
from lineal.tokenizers.text import normalise
from lineal.tokenizers.text.marks import ranges
from lineal.tokenizers.text.normalise import (
    Bert,
    Chain,
    Lowercase,
    Metaspace,
    Prepend,
    Replace,
    SpaceInFront,
    Strip,
    StripAccents,
    Unicode,
    utf8,
)

FORMS = [Unicode(form) for form in ("NFC", "NFD", "NFKC", "NFKD")]
BERTS = [
    Bert(clean, chinese, accents, lower)
    for clean, chinese, lower in itertools.product((True, False), repeat=3)
    for accents in (None, True, False)
]
OTHERS = [Lowercase(), StripAccents(), Strip(), Strip(left=False), Strip(right=False), Replace("a", "bb")]
OTHERS += [Replace("ab", ""), Prepend("▁"), SpaceInFront(), Metaspace(), Metaspace(prepend="never")]
CHAIN = Chain((Strip(), Unicode("NFKD"), StripAccents(), Lowercase(), Replace("s", " "), Metaspace()))
ALL: list[Normaliser] = [*FORMS, *BERTS, *OTHERS, CHAIN]
# Characters whose tables in `tokenizers` are of an older Unicode than the interpreter's, or the other way round.
OLDER = ranges("11938 32FF A7F2-A7F4 AB69 10781-107BA 1F16C 1FBF0-1FBF9")
# A hard text: marks that move, compose, expand; Hangul in parts; ideographs; controls; white space of all kinds.
HARD = "a\u0323\u0301e\u0301\u0323 İΑΣ ﬁ①㍿ \u1112\u1161\u11ab각\u11a8 豈語x\0\u200b\ufffd\t\r\u2028\u302e\U0001d16d\u0344\u0f73"
# Characters that every Unicode version at hand knows alike.
KNOWN = "".join(
    chr(i) for i in range(0x20000) if unicodedata.category(chr(i)) not in ("Cn", "Cs") and chr(i) not in OLDER
)
MIXED = st.one_of(st.text(st.sampled_from(KNOWN), max_size=20), st.text(HARD + "aáb ss▁", max_size=30))


def peer(normaliser: Normaliser):
    """The same in the `tokenizers` library."""
    library = pytest.importorskip("tokenizers").normalizers
    match normaliser:
        case Unicode(form):
            return getattr(library, form)()
        case Lowercase() | StripAccents():
            return getattr(library, type(normaliser).__name__)()
        case Strip(left, right):
            return library.Strip(left, right)
        case Replace(old, new):
            return library.Replace(old, new)
        case Prepend(text):
            return library.Prepend(text)
        case Bert(clean, chinese, accents, lower):
            return library.BertNormalizer(clean, chinese, accents, lower)
        case Chain(parts):
            return library.Sequence([peer(part) for part in parts])
    pytest.skip("the library has it as a pre-tokenizer")


@pytest.mark.parametrize("normaliser", [*FORMS, *BERTS, *OTHERS[:-3], Chain(CHAIN.parts[:-1])], ids=str)
def test_like_the_library(normaliser: Normaliser):
    other = peer(normaliser)

    @given(MIXED)
    @example(HARD)
    @example("")
    def check(text: str) -> None:
        assert normaliser(text) == other.normalize_str(text)

    check()


@pytest.mark.parametrize("normaliser", [*FORMS, BERTS[0], Lowercase(), StripAccents(), Strip()], ids=str)
def test_every_character_like_the_library(normaliser: Normaliser):
    other = peer(normaliser)
    # Of the great blocks (ideographs, Hangul, private use) one in a hundred.
    blocks = [
        i
        for i in range(0x110000)
        if i < 0x3400 or 0xA000 <= i < 0xAC00 or 0xF900 <= i < 0x20000 or not i % 100
    ]
    known = [chr(i) for i in blocks if unicodedata.category(chr(i)) not in ("Cn", "Cs")]
    known = [character for character in known if character not in OLDER]
    for at in range(0, len(known), 1000):
        text = "q".join(known[at : at + 1000])
        assert normaliser(text) == other.normalize_str(text), known[at]


@given(MIXED)
@example("")
@example(" a")
def test_spaces_and_symbols_in_front_like_the_librarys_splitters(text: str):
    library = pytest.importorskip("tokenizers").pre_tokenizers
    for prepend in ("always", "first", "never"):
        pieces = library.Metaspace(prepend_scheme=prepend, split=False).pre_tokenize_str(text)
        assert Metaspace(prepend=prepend)(text) == "".join(piece for piece, _ in pieces)
    pieces = library.ByteLevel(add_prefix_space=True, use_regex=False).pre_tokenize_str(text)
    assert len(SpaceInFront()(text).encode()) == sum(len(piece) for piece, _ in pieces)


def test_real_text_like_the_library(data: Path):
    files = [*sorted((data / "ntrex").glob("*.gz")), data / "novels_en" / "valid.txt.gz"]
    for file in files:
        text = gzip.decompress(file.read_bytes()).decode()[:30_000]
        for normaliser in (*FORMS, *BERTS[:3]):
            assert normaliser(text) == peer(normaliser).normalize_str(text), (file, normaliser)
        assert Bert()(text) == Bert().whole(text)


@pytest.mark.parametrize("normaliser", ALL, ids=str)
def test_origins(normaliser: Normaliser):
    """They never decrease, they end where the text does, and a character that was kept began at itself."""

    @given(MIXED)
    @example(HARD)
    @example("")
    def check(text: str) -> None:
        made, origins = normaliser.align(text)
        assert made == normaliser(text)
        assert len(origins) == len(made) + 1
        assert all(a <= b for a, b in itertools.pairwise(origins))
        assert origins[0] >= 0 and origins[-1] <= len(text)
        kept = text.rstrip() if isinstance(normaliser, Strip | Chain) else text
        assert origins[-1] >= len(kept)
        if made == text:
            assert origins == list(range(len(text) + 1))

    check()


@pytest.mark.parametrize(
    ("normaliser", "text", "made", "origins"),
    [
        (Unicode("NFC"), "xe\u0301y", "xéy", [0, 1, 3, 4]),
        (Unicode("NFC"), "a\u0323\u0301b", "ạ\u0301b", [0, 2, 3, 4]),
        (Unicode("NFC"), "\u1112\u1161\u11abx", "한x", [0, 3, 4]),
        (Unicode("NFD"), "áb", "a\u0301b", [0, 0, 1, 2]),
        (Unicode("NFD"), "a\u0301\u0323b", "a\u0323\u0301b", [0, 1, 1, 3, 4]),
        (Unicode("NFKC"), "aﬁ①", "afi1", [0, 1, 1, 2, 3]),
        (Lowercase(), "AİB", "ai\u0307b", [0, 1, 1, 2, 3]),
        (StripAccents(), "e\u0301x", "ex", [0, 2, 3]),
        (Strip(), "  ab ", "ab", [2, 3, 4]),
        (Replace("ab", "xyz"), "cabab", "cxyzxyz", [0, 1, 1, 1, 3, 3, 3, 5]),
        (Replace("ab", ""), "cabd", "cd", [0, 3, 4]),
        (Metaspace(), "a b", "▁a▁b", [0, 0, 1, 2, 3]),
        (SpaceInFront(), "ab", " ab", [0, 0, 1, 2]),
        (Bert(), "a語Éb", "a 語 eb", [0, 1, 1, 2, 2, 3, 4]),
        (Bert(), "a\u200bb\0", "ab", [0, 2, 4]),
        (Bert(), "A\u302e\u0301語", "a\u302e 語 ", [0, 1, 3, 3, 4, 4]),
        (Chain((Strip(), Metaspace())), " a b ", "▁a▁b", [1, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_origins_by_hand(normaliser: Normaliser, text: str, made: str, origins: list[int]):
    assert normaliser.align(text) == (made, origins)


@pytest.mark.parametrize("how", ["compiled", "python"])
@pytest.mark.parametrize("bert", BERTS, ids=str)
def test_bert_by_table_is_bert_by_definition(bert: Bert, how: str, monkeypatch: pytest.MonkeyPatch):
    if how == "python":
        monkeypatch.setattr(normalise, "_core", lambda: None)

    @given(st.one_of(st.text(), st.text(HARD + "aB")))
    @example(HARD)
    def check(text: str) -> None:
        assert bert(text) == bert.whole(text)

    check()


def test_a_final_sigma_is_lowered_like_any_other():
    assert Lowercase()("ΟΔΟΣ") == Bert()("ΟΔΟΣ") == "οδοσ"


def test_metaspace_of_later_stretches():
    assert Metaspace(prepend="first").later("a b") == "a▁b"
    assert Metaspace().later("a b") == "▁a▁b"


@pytest.mark.parametrize("normaliser", [*FORMS, Bert(), Bert(lowercase=False, strip_accents=True)], ids=str)
def test_a_long_run_of_marks_takes_linear_time(normaliser: Normaliser):
    """The interpreter's own normalisation would take minutes."""
    for marks in ("\u0301\u0323", "\u0f71\u0f73", "\u302e\U0001d16d\u302a\u0344"):
        short, long = "a" + marks * 10 + "x", "é" + marks * 10_000 + "x"
        assert normaliser(short) == normaliser.align(short)[0]
        made, origins = normaliser.align(long)
        assert made == normaliser(long)
        assert len(origins) == len(made) + 1


@given(st.text("a\u0301\u0323\u0f71\u0f73\u0344é", min_size=8), st.sampled_from(FORMS))
def test_long_runs_are_in_the_interpreters_order(text: str, form: Unicode):
    text *= 40
    assert form(text) == cast(Any, unicodedata).normalize(form.form, text)


def test_equal_values_are_equal_and_travel_to_other_processes():
    bert = Bert(chinese=False)
    assert bert("É") == "e"
    there = pickle.loads(pickle.dumps(bert))
    assert there == bert == Bert(chinese=False)
    assert there("É語") == "e語"


def test_half_a_surrogate_pair_is_named_with_its_place():
    for text in ("a\ud800", "é\udfff"):
        with pytest.raises(DataError, match=r"Character 1 .*U\+D"):
            utf8(text)
        with pytest.raises(DataError, match="Character 1"):
            Bert()(text)
    assert utf8("aé\0") == b"a\xc3\xa9\0"


@pytest.mark.parametrize(
    "wrong", [lambda: Unicode("NFX"), lambda: Metaspace(prepend="often"), lambda: Metaspace("")]
)
def test_what_cannot_be(wrong):
    with pytest.raises(UsageError):
        wrong()


def test_replacing_nothing_cannot_be_aligned():
    assert Replace("", "-")("ab") == "-a-b-"
    with pytest.raises(UsageError, match="aligned"):
        Replace("", "-").align("ab")
