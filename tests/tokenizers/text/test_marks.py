"""Marks, controls and white space, which are written out: beside the interpreter's tables and the library's."""

from __future__ import annotations

import unicodedata

import pytest

from lineal.tokenizers import added
from lineal.tokenizers.text.marks import (
    FORMATS,
    IDEOGRAPHS,
    MARKS,
    NONSPACING,
    PRIVATE,
    SPACING,
    WHITE,
    is_control,
    is_ideograph,
    ranges,
)

# Of the great blocks beyond the second plane one character in 61.
ALL = [
    chr(code)
    for code in range(0x110000)
    if not 0xD800 <= code < 0xE000 and (code < 0x20000 or 0xE0000 <= code < 0xE1000 or not code % 61)
]


def test_ranges_have_both_ends():
    assert ranges("") == frozenset()
    assert ranges("41") == {"A"}
    assert ranges("41-43\n 61  10FFFF") == {*"ABCa", "\U0010ffff"}


def test_marks_are_marks_and_of_one_sort():
    assert not NONSPACING & SPACING
    assert MARKS == NONSPACING | SPACING
    # Two became letters in later versions of Unicode.
    assert sum(not unicodedata.category(mark).startswith("M") for mark in MARKS) <= 2
    assert {unicodedata.category(mark) for mark in MARKS} <= {"Mn", "Mc", "Me", "Lo"}
    later = {mark for mark in ALL if unicodedata.category(mark)[0] == "M"} - MARKS
    assert not {mark for mark in later if mark < "\u0500"}
    assert len(later) < len(MARKS) / 4


def test_white_space_is_the_librarys_and_the_same_everywhere():
    library = pytest.importorskip("tokenizers")
    assert sorted(added.WHITE) == list(WHITE)
    white = {character for character in ALL if library.normalizers.Strip().normalize_str(character) == ""}
    assert white == set(WHITE)


def test_controls_are_what_the_library_drops():
    library = pytest.importorskip("tokenizers")
    other = library.normalizers.BertNormalizer(True, False, False, False)
    # Kept apart by letters, so that one call serves a thousand.
    for at in range(0, len(ALL), 1000):
        block = ALL[at : at + 1000]
        made = other.normalize_str("q".join(block)).split("q")
        if len(made) != len(block):
            made = [other.normalize_str(character) for character in block]
        wrong = [hex(ord(c)) for c, left in zip(block, made) if (left == "") != is_control(c)]
        assert wrong == []


def test_ideographs_are_what_the_library_sets_apart():
    library = pytest.importorskip("tokenizers")
    other = library.normalizers.BertNormalizer(False, True, False, False)
    edges = {
        code + step for first, last in IDEOGRAPHS for code in map(ord, (first, last)) for step in (-1, 0, 1)
    }
    for character in map(chr, sorted(edges | set(range(0x3000, 0x30000, 97)) - set(range(0xD800, 0xE000)))):
        apart = other.normalize_str(character) == f" {character} "
        assert is_ideograph(character) == apart, hex(ord(character))


def test_classes_do_not_overlap():
    private = {character for character in ALL if unicodedata.category(character) == "Co"}
    assert {c for c in ALL if any(first <= c <= last for first, last in PRIVATE)} == private
    # What BERT drops before it looks for white space: controls that are no tab, line feed or carriage return.
    assert {c for c in FORMATS & set(WHITE) if unicodedata.category(c) != "Cc"} == set()
    assert not FORMATS & set("\t\n\r ")
    assert not FORMATS & MARKS
    assert not any(is_ideograph(character) for character in FORMATS | MARKS | set(WHITE))
