"""The table of character classes: against Python's own where they are of one age, and against what Hugging Face uses."""

from __future__ import annotations

import unicodedata

import pytest

from lineal.tokenizers.text import unicode_table
from lineal.tokenizers.text.unicode_table import (
    CATEGORIES,
    CODES,
    PACKED,
    SPACE,
    WORD,
    categories,
    classes,
    pack,
)


def test_the_table_is_what_python_says() -> None:
    own = bytes(CATEGORIES.index(unicodedata.category(chr(code))) for code in range(CODES))
    if unicodedata.unidata_version == unicode_table.UNICODE:
        assert pack(own) == PACKED
    unassigned = CATEGORIES.index("Cn")
    both = [code for code in range(CODES) if unassigned not in (own[code], categories()[code])]
    assert len(both) > 280_000
    differ = {code for code in both if own[code] != categories()[code]}
    # Unicode 16 made one of Ahom a spacing mark; later versions may move a few more.
    assert differ <= {0x1171E} or unicodedata.unidata_version > unicode_table.UNICODE
    assert len(differ) < 50


def test_packing_is_undone() -> None:
    assert pack(categories()) == PACKED
    assert len(categories()) == len(classes()) == CODES


@pytest.mark.parametrize(
    "bit,pattern",
    [
        ("LETTER", r"\p{L}"),
        ("NUMBER", r"\p{N}"),
        ("SPACE", r"\s"),
        ("UPPER", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"),
        ("LOWER", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
        ("PUNCTUATION", r"[\p{P}$+<=>^`|~]"),
    ],
)
def test_classes_are_those_of_hugging_face(bit: str, pattern: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    match = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed", True)
    # Of the planes for private use, where all are alike, and of those without any characters, some will do.
    codes = [*range(0xD800), *range(0xE000, 0x33500), *range(0x33500, CODES, 97), *range(0xE0000, 0xE0200)]
    every = "".join(map(chr, codes))
    found = {character for piece, _ in match.pre_tokenize_str(every) for character in piece}
    assert found == {chr(code) for code in codes if classes()[code] & getattr(unicode_table, bit)}


def test_a_space_is_no_part_of_a_word() -> None:
    assert not any(kind & SPACE and kind & WORD for kind in classes())
    assert max(classes()) < 128
