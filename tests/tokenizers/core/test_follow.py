"""The scanner that goes from piece to piece: its room, its texts within a text, its rules one by one, and threads."""

from __future__ import annotations

import importlib.util
import random
from array import array
from concurrent.futures import ThreadPoolExecutor
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
    Whitespace,
    WhitespaceSplit,
    class_codes,
    pieces_of_pieces,
)
from lineal.tokenizers.text.unicode_table import classes

FOLDER = lineal.tokenizers.core.__path__[0]
ODD = "aAsStlLveE'' .!/\t\r\n\u3000\u0085é日ſ\u0301Ⅷ9\U0001f600"
SPLITTERS: list[ByClass] = [
    Gpt2(),
    Cl100k(),
    Cl100k(2, True),
    O200k(),
    O200k(1, False),
    Whitespace(),
    WhitespaceSplit(),
    BertSplit(),
    Digits(),
    Digits(individual=True),
    *map(Punctuation, BEHAVIOURS),
]
BROKEN = st.lists(st.sampled_from([b"a", b"'", b" ", b"1", b"\n", b"\xe6\x97", b"\xff", b"\xf0\x9f", b"!"]))


def as_python(name: str) -> ModuleType:
    """The core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{FOLDER}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["compiled", "python"])
def cores(request) -> tuple[ModuleType, ModuleType]:
    """`scan` and `follow`."""
    if request.param == "python":
        return as_python("scan"), as_python("follow")
    scan, follow = (native.compiled(f"lineal.tokenizers.core.{name}") for name in ("scan", "follow"))
    if scan is None or follow is None:
        pytest.skip("nothing was compiled at install")
    return scan, follow


def followed(
    cores: tuple[ModuleType, ModuleType],
    splitter: ByClass,
    data: bytes,
    within: list[int],
    lines: bool = False,
) -> array[int]:
    """The pieces that this core gives."""
    scan, follow = cores
    kinds = bytearray(len(data))
    scan.classify(data, class_codes(), classes(), kinds)
    return follow.follow(data, kinds, splitter.rule, splitter.settings, lines, array("i", within))


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_texts_within_a_text_see_nothing_of_each_other(cores, splitter: ByClass) -> None:
    @given(st.lists(st.text(st.sampled_from(ODD), max_size=8), max_size=6), st.integers(0, 3))
    def check(parts: list[str], gap: int) -> None:
        data, within = b"", []
        for part in parts:
            within += [len(data), len(data) + len(part.encode())]
            data += part.encode() + b"a1 'x"[:gap]
        if not within:
            return
        expected = pieces_of_pieces(splitter.by_character, data, array("i", within))
        assert followed(cores, splitter, data, within) == expected

    check()


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_bytes_that_are_no_characters_are_kept_whole(cores, splitter: ByClass) -> None:
    @given(BROKEN.map(b"".join))
    def check(data: bytes) -> None:
        if not data:
            return
        found = followed(cores, splitter, data, [0, len(data)])
        assert found == splitter.by_character(data)
        assert all(start < end for start, end in zip(found[::2], found[1::2]))
        assert list(found) == sorted(found) and found[-1:] <= array("i", [len(data)])

    check()


@pytest.mark.parametrize("room", [3, 4, 5, 16])
@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_little_room_for_pieces_changes_nothing(splitter: ByClass, room: int) -> None:
    scan, follow = as_python("scan"), as_python("follow")
    vars(follow)["CHUNK"] = room
    draw = random.Random(room)
    for size in (1, 2, 3, 9, 30):
        for lines in (False, True):
            data = "".join(draw.choices(ODD, k=size)).encode()
            expected = splitter.by_character(data, lines)
            found = followed((scan, follow), splitter, data, [] if lines else [0, len(data)], lines)
            assert found == expected


@pytest.mark.parametrize("splitter", [Cl100k(), BertSplit(), Digits(individual=True)], ids=str)
@pytest.mark.parametrize("short", [0, 1])
def test_a_text_that_fills_the_room_to_the_last_piece(splitter: ByClass, short: int) -> None:
    # The room holds 8191 pieces; around that many, none may be lost or given twice.
    data = b"1!" * (4096 - short) + "ß'LL ".encode() * 3
    found = splitter.spans(data)
    assert len(found) >= 16384 - 4 * short
    assert found == splitter.by_character(data)


@pytest.mark.parametrize("tail", ["日", "\U0001f600", "\u3000 ", "'ſ", "é'S", " \u2028x", "\xa0\n"])
@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_a_wide_character_on_any_border_of_a_block(splitter: ByClass, tail: str) -> None:
    for before in range(16384 - 6, 16384 + 2):
        # The pieces well before the border are those of a shorter text, so that the slow form sees only that.
        data = b"aa  " * (before // 4) + b"a'\n "[: before % 4] + (tail + "b").encode()
        begin = 4 * (before // 4) - 400
        found = splitter.spans(data)
        near = splitter.by_character(data[begin:])
        assert [at for at in found if at > begin + 100] == [at + begin for at in near if at > 100]


def test_threads_do_not_share_their_room() -> None:
    draw = random.Random(3)
    texts = ["".join(draw.choices(ODD, k=draw.choice([0, 5, 3000]))).encode() for _ in range(60)]
    for splitter in (Gpt2(), Cl100k(), BertSplit()):
        expected = [splitter.spans(text) for text in texts]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(splitter.spans, texts)) == expected


def test_an_error_in_between_leaves_the_next_text_alone(cores) -> None:
    _, follow = cores
    with pytest.raises((TypeError, ValueError, IndexError)):
        follow.follow(b"a b", None, Whitespace.rule, (4, 0, 0), False, array("i"))
    assert followed(cores, Whitespace(), b"a b", []) == array("i", [0, 1, 2, 3])


@pytest.mark.parametrize("lines", [False, True])
def test_texts_of_nothing_or_of_what_is_dropped(cores, lines: bool) -> None:
    for splitter in SPLITTERS:
        assert followed(cores, splitter, b"", [], lines) == array("i")
        for data in (b" ", b"\n", b"!", b"\n\n", b" \n ", b"!!", b"\0", b"7", b"'", b"\x80"):
            assert followed(cores, splitter, data, [], lines) == splitter.by_character(data, lines)
