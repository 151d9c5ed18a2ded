"""The scanners, compiled and as Python, against the rules character by character."""

from __future__ import annotations

import importlib.util
from array import array
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal import native
from lineal.tokenizers.text.patterns import BEHAVIOURS
from lineal.tokenizers.text.split import (
    BertSplit,
    ByClass,
    Cl100k,
    Digits,
    Gpt2,
    O200k,
    Punctuation,
    SymbolSplit,
    Whitespace,
    WhitespaceSplit,
    class_codes,
)
from lineal.tokenizers.text.unicode_table import classes

FOLDER = lineal.tokenizers.core.__path__[0]
BYTES = st.one_of(
    st.text(
        st.sampled_from("aAsStveElLdrm''  1\n\r\t/.,\u3000\x85\u2028éſ日\u0301Ⅷ\U0001f600"), max_size=30
    ).map(str.encode),
    st.lists(
        st.sampled_from(list(b"a' 1\n\xe2\x80\xa8\x85\xc2\xff\xc0\xed\xf0\x9f\x98\x90\xe3\xf4")), max_size=12
    ).map(bytes),
)


def as_python(name: str) -> ModuleType:
    """The core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{FOLDER}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["compiled", "python"])
def cores(request) -> tuple[ModuleType, ModuleType]:
    """`scan` and `follow`."""
    names = ("scan", "follow")
    if request.param == "python":
        return as_python("scan"), as_python("follow")
    scan, follow = (native.compiled(f"lineal.tokenizers.core.{name}") for name in names)
    if scan is None or follow is None:
        pytest.skip("nothing was compiled at install")
    return scan, follow


@pytest.mark.parametrize("lines", [False, True])
def test_gpt2(cores, lines: bool) -> None:
    @given(BYTES)
    def check(data: bytes) -> None:
        assert cores[0].gpt2(data, classes(), lines) == Gpt2().by_character(data, lines)

    check()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_gpt2_in_chunks(size: int) -> None:
    scan = as_python("scan")
    vars(scan)["CHUNK"] = size

    @given(BYTES)
    def check(data: bytes) -> None:
        assert scan.gpt2(data, classes(), False) == Gpt2().by_character(data)

    check()


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(
    "splitter",
    [
        Cl100k(),
        Cl100k(2, True),
        O200k(),
        O200k(1, False),
        Whitespace(),
        WhitespaceSplit(),
        BertSplit(),
        Digits(),
        *map(Punctuation, BEHAVIOURS),
    ],
    ids=str,
)
def test_pieces_that_follow_one_another(cores, splitter: ByClass, lines: bool) -> None:
    scan, follow = cores

    @given(BYTES)
    def check(data: bytes) -> None:
        kinds = bytearray(len(data))
        scan.classify(data, class_codes(), classes(), kinds)
        found = follow.follow(data, kinds, splitter.rule, splitter.settings, lines, array("i"))
        assert found == splitter.by_character(data, lines)

    check()


def test_pieces_come_a_few_at_a_time() -> None:
    scan, follow = as_python("scan"), as_python("follow")
    vars(follow)["CHUNK"] = 4
    data, kinds = b"a few  words\n12345 ", bytearray(19)
    scan.classify(data, class_codes(), classes(), kinds)
    for splitter in (Cl100k(), Whitespace()):
        found = follow.follow(data, kinds, splitter.rule, splitter.settings, False, array("i"))
        assert found == splitter.by_character(data)


@given(st.text("▁a日", max_size=20), st.sampled_from(["▁", "a", "aa", "日▁"]))
def test_symbols(text: str, symbol: str) -> None:
    data, part = text.encode(), symbol.encode()
    expected = SymbolSplit(symbol).by_search(data, part)
    assert as_python("scan").cut_before(data, part) == expected
    assert SymbolSplit(symbol).spans(data) == expected


def test_every_byte_gets_the_class_of_its_character(cores) -> None:
    scan, _ = cores
    text = "aé日\U0001f600" + "".join(map(chr, range(0x2FF0, 0x3020)))
    data = text.encode()
    kinds = bytearray(len(data))
    scan.classify(data, class_codes(), classes(), kinds)
    widths = [len(character.encode()) for character in text]
    expected = [
        classes()[ord(character)] | 128 * (at > 0)
        for character, width in zip(text, widths)
        for at in range(width)
    ]
    assert list(kinds) == expected


@given(st.binary(max_size=6))
def test_what_is_no_character_has_no_class(data: bytes) -> None:
    kinds = bytearray(len(data))
    as_python("scan").classify(data, class_codes(), classes(), kinds)
    places = array("i", [at for at in range(len(data)) if kinds[at] & 127])
    kept = data.decode("utf-8", "ignore").encode()
    assert all(data[at] in kept for at in places)
