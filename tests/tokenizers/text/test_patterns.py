"""The rules of splitting on examples that can be followed by eye."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from lineal.errors import UsageError
from lineal.tokenizers.text import patterns
from lineal.tokenizers.text.patterns import (
    behave,
    cl100k,
    contraction,
    gpt2,
    matches,
    o200k,
    run,
    until,
    words,
)
from lineal.tokenizers.text.unicode_table import LETTER, NUMBER, PUNCTUATION, SPACE, classes


def kinds(text: str) -> bytes:
    """The class of each character."""
    return bytes(classes()[ord(character)] for character in text)


def cut(rule: Callable[[str, bytes], Iterable[tuple[int, int]]], text: str) -> list[str]:
    """The pieces by a rule."""
    return [text[start:end] for start, end in rule(text, kinds(text))]


@pytest.mark.parametrize(
    "text,pieces",
    [
        ("Hello world", "Hello| world"),
        ("it's we'll I'd 'tis", "it|'s| we|'ll| I|'d| '|tis"),
        ("IT'S", "IT|'|S"),
        ("''s 's", "''|s| '|s"),
        ("a  b", "a| | b"),
        ("a\n b", "a|\n| b"),
        ("a\n\nb", "a|\n|\n|b"),
        ("end \n ", "end| \n "),
        ("12345 678", "12345| 678"),
        ("x=1; y!?", "x|=|1|;| y|!?"),
        ("caf\u00e9 \u65e5\u672c", "caf\u00e9| \u65e5\u672c"),
        ("e\u0301", "e|\u0301"),
        ("a\u3000\u3000b", "a|\u3000|\u3000|b"),
        ("", ""),
        (" ", " "),
    ],
)
def test_gpt2(text: str, pieces: str) -> None:
    assert cut(gpt2, text) == (pieces.split("|") if pieces else [])


@pytest.mark.parametrize(
    "text,pieces",
    [
        ("12345 678", "123|45| |678"),
        ("IT'S", "IT|'S"),
        ("(word) ((word", "(word|)| ((|word"),
        ("\tword \tword", "\tword| |\tword"),
        ("a!\n\nb", "a|!\n\n|b"),
        ("a \n \n  b", "a| \n \n| | b"),
        ("a \n  ", "a| \n|  "),
        ("'\u017fo", "'\u017f|o"),
    ],
)
def test_cl100k(text: str, pieces: str) -> None:
    assert cut(cl100k(3, False), text) == pieces.split("|")


def test_the_end_of_a_text_in_one_piece() -> None:
    assert cut(cl100k(3, True), "a \n  ") == ["a", " \n  "]
    assert cut(cl100k(3, True), "a \n  b") == ["a", " \n", " ", " b"]
    assert cut(cl100k(1, True), "123") == ["1", "2", "3"]


@pytest.mark.parametrize(
    "text,pieces",
    [
        ("HelloWorld", "Hello|World"),
        ("HTMLParser", "HTMLParser"),
        ("parseHTML", "parse|HTML"),
        ("it's IT'S", "it's| IT'S"),
        ("/path//a/", "/path|//|a|/"),
        ("a!/\n/b", "a|!/\n/|b"),
        ("\u65e5\u672cABC", "\u65e5\u672c|ABC"),
        ("ABC\u65e5abc", "ABC\u65e5abc"),
        ("\u0301AB", "\u0301|AB"),
        ("\u0301ab", "\u0301ab"),
        ("1234", "123|4"),
    ],
)
def test_o200k(text: str, pieces: str) -> None:
    assert cut(o200k(3, True), text) == pieces.split("|")


def test_o200k_without_contractions() -> None:
    assert cut(o200k(1, False), "it's 12") == ["it", "'s", " ", "1", "2"]


def test_words_and_berts_pieces() -> None:
    text = "it's _a_1 caf\u00e9... \u00e0 e\u0301"
    assert cut(words, text) == ["it", "'", "s", "_a_1", "caf\u00e9", "...", "\u00e0", "e\u0301"]
    assert cut(patterns.bert, "it's $5... ok") == ["it", "'", "s", "$", "5", ".", ".", ".", "ok"]
    # Symbols of Unicode that are no punctuation stay with their neighbours; those of ASCII do not.
    assert cut(patterns.bert, "a\u20acb a$b") == ["a\u20acb", "a", "$", "b"]


def test_runs() -> None:
    assert run(kinds("ab1"), 0, LETTER) == 2
    assert run(kinds("ab1"), 0, LETTER | NUMBER) == 3
    assert run(kinds("ab1"), 2, LETTER) == 2
    assert until(kinds("ab 1"), 0, SPACE | NUMBER) == 2
    assert until(kinds("ab"), 0, SPACE) == 2


def test_contractions() -> None:
    assert [contraction(text, 0, fold=False) for text in ("'s", "'re", "'r", "'S", "s", "", "'")] == [
        2,
        3,
        0,
        0,
        0,
        0,
        0,
    ]
    assert [contraction(text, 0, fold=True) for text in ("'S", "'rE", "'\u017f", "'lL", "'ls")] == [
        2,
        3,
        2,
        3,
        0,
    ]


@pytest.mark.parametrize(
    "behaviour,pieces",
    [
        ("removed", ["a", "bc"]),
        ("isolated", ["-", "a", "-", "-", "bc", "-"]),
        ("contiguous", ["-", "a", "--", "bc", "-"]),
        ("merged_with_previous", ["-", "a-", "-", "bc-"]),
        ("merged_with_next", ["-a", "-", "-bc", "-"]),
    ],
)
def test_what_becomes_of_matches(behaviour: str, pieces: list[str]) -> None:
    text = "-a--bc-"
    found = behave(matches(kinds(text), PUNCTUATION), behaviour)
    assert [text[start:end] for start, end in found] == pieces


def test_there_is_no_other_behaviour() -> None:
    with pytest.raises(UsageError, match="can't be 'kept'"):
        behave([], "kept")


def test_every_rule_goes_on_to_the_end() -> None:
    text = "".join(map(chr, range(0x500)))
    for rule in (gpt2, cl100k(3, False), cl100k(1, True), o200k(3, True)):
        assert "".join(cut(rule, text)) == text
    for rule in (words, patterns.bert):
        spaceless = "".join(character for character in text if not classes()[ord(character)] & SPACE)
        assert "".join(cut(rule, text)) == spaceless


def test_the_rule_itself_takes_steps_in_proportion_to_a_number(monkeypatch) -> None:
    """Long runs of digits, marks, letters and whitespace, without the scanner."""
    seen, own = [0], patterns.run

    def counted(classes: bytes, at: int, bits: int) -> int:
        end = own(classes, at, bits)
        seen[0] += end - at + 1
        return end

    monkeypatch.setattr(patterns, "run", counted)
    for rule in (cl100k(3, False), cl100k(1, True), o200k(3, True), gpt2):
        for letter in "1a\u0301A. \n":
            steps = []
            for size in (300, 1200):
                same = kinds(letter) * size
                seen[0] = 0
                assert [end for _, end in rule(letter * size, same)][-1] == size
                steps.append(seen[0])
            assert steps[1] <= 4.5 * steps[0] + 10
