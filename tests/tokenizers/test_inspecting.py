"""What is shown of a tokenizer adds up: cells give the text back, trees the tokens, figures the sums."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.tokenizers import ByteTokenizer, CharTokenizer, Pipeline
from lineal.tokenizers.base import Tokenizer
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.inspecting import (
    cells,
    first_loss,
    longest,
    make_up,
    measure,
    merge_tree,
    pieces_of,
    scripts,
    special_ids,
    token_bytes,
    tree_lines,
    visible,
)
from lineal.tokenizers.training import Learning, train

LINES = ["the cat sat on the mat", "der Hund und кот", "hugs and mugs, 12 or 345 coins", "the naïve cat"] * 5
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture(scope="module")
def some() -> dict[str, Tokenizer]:
    """Tokenizers that lose nothing, lose something, and that are not made of parts."""
    kinds = ("bpe", "char-bpe", "wordpiece", "word")
    found = {kind: train(kind, texts=LINES, learning=Learning(vocab_size=300)) for kind in kinds}
    return found | {"byte": ByteTokenizer(), "char": CharTokenizer.train("".join(LINES))}


@given(text=PLAIN)
def test_cells_have_all_of_a_text_and_all_its_ids(some: dict[str, Tokenizer], text: str) -> None:
    for tokenizer in some.values():
        found = cells(tokenizer, text)
        assert "".join(cell.text for cell in found) == text
        assert [index for cell in found for index in cell.ids] == tokenizer.encode(text)
        assert all(len(cell.ids) == len(cell.tokens) for cell in found)


def test_tokens_that_share_a_character_share_a_cell(some: dict[str, Tokenizer]) -> None:
    for name in ("bpe", "byte"):
        found = cells(some[name], "a日")
        assert [cell.text for cell in found] == ["a", "日"]
        assert b"".join(found[1].tokens) == "日".encode()


def test_what_no_token_stands_for_has_no_ids(some: dict[str, Tokenizer]) -> None:
    assert [(cell.text, bool(cell.ids)) for cell in cells(some["word"], "the  cat\n")] == [
        ("the", True), ("  ", False), ("cat", True), ("\n", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (b" the", "␣the"),
        (b"\n\r\t\0\x7f\x1b[31m", "⏎␍␉␀␡␛[31m"),
        (b"\xe2\x80", "<0xE2><0x80>"),
        (b"a\xffb", "a<0xFF>b"),
        ("\u202e\u200b\x85".encode(), "<U+202E><U+200B><U+0085>"),
        ("naïve 日".encode(), "naïve␣日"),
        (b"\\x41", "\\x41"),
    ],
)
def test_tokens_are_made_readable(token: bytes, shown: str) -> None:
    assert visible(token) == shown


@given(token=st.binary(max_size=12))
def test_nothing_that_a_terminal_obeys_is_left(token: bytes) -> None:
    shown = visible(token)
    shown.encode()
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)


def test_figures_are_sums(some: dict[str, Tokenizer]) -> None:
    texts = ["the cat", "naïve\n", "zebra"]
    clock = iter([0.0, 1.0, 5.0, 5.5, 9.0, 9.5])
    found = measure(some["bpe"], texts, lambda: next(clock))
    assert (found.texts, found.characters, found.bytes, found.lossless) == (3, 18, 19, 3)
    assert found.tokens == sum(len(some["bpe"].encode(text)) for text in texts)
    assert found.bytes_per_token == 19 / found.tokens and found.characters_per_token == 18 / found.tokens
    assert found.seconds == 2.0 and found.speed == pytest.approx(19e-6 / 2) and found.loss is None


def test_unknown_tokens_and_the_first_loss_are_found(some: dict[str, Tokenizer]) -> None:
    found = measure(some["word"], ["the cat", "the zebra sat", "so  what"])
    assert (found.unknown, found.lossless) == (3, 1)
    assert found.loss is not None and found.loss.place == 4 and found.loss.before.startswith("the zebra")


def test_nothing_measured_divides_nothing(some: dict[str, Tokenizer]) -> None:
    found = measure(some["bpe"], [])
    assert (found.bytes_per_token, found.texts, found.tokens) == (0.0, 0, 0)


@given(text=PLAIN, back=PLAIN)
def test_the_first_loss_is_the_first(text: str, back: str) -> None:
    found = first_loss(text, back)
    if found is None:
        assert text == back
    else:
        assert text[: found.place] == back[: found.place]
        assert text[found.place : found.place + 1] != back[found.place : found.place + 1]


def test_the_make_up_counts_each_id_once(some: dict[str, Tokenizer]) -> None:
    for tokenizer in some.values():
        assert sum(make_up(tokenizer).values()) == tokenizer.vocab_size
        assert make_up(tokenizer)["special"] == len(special_ids(tokenizer))
    assert make_up(some["bpe"])["bytes, or parts of characters"] >= 128
    assert "inside a word" in make_up(some["wordpiece"])
    assert "end a word" in make_up(some["char-bpe"])
    assert make_up(some["word"])["numbers"] == 2


def test_scripts_are_counted(some: dict[str, Tokenizer]) -> None:
    found = scripts(some["word"])
    assert found["Cyrillic"] == 1 and found["Latin"] > found["Cyrillic"]
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_longest_tokens(some: dict[str, Tokenizer]) -> None:
    found = longest(some["word"], 2)
    assert [token for _, token in found] == [b"coins", b"naive".replace(b"i", "ï".encode())]
    assert all(token_bytes(some["word"], index) == token for index, token in found)
    assert longest(some["char"], 0) == []


@given(text=PLAIN)
def test_a_tree_ends_in_the_tokens(some: dict[str, Tokenizer], text: str) -> None:
    for name in ("bpe", "char-bpe"):
        found = pieces_of(some[name], text)
        assert found is not None
        model, pieces = found
        assert isinstance(model, BPE)
        for piece in pieces:
            assert [branch.id for branch in merge_tree(model, piece)] == [
                token for token, _, _ in model.segment(piece)
            ]


def test_a_tree_by_rank_ends_in_the_tokens_too() -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"ug", b"un", b"hug", b"ugs"]
    model = BPE(tokens, (), initial="bytes", by_rank=True, ignore_merges=True)
    assert tree_lines(merge_tree(model, b"hugs")) == [
        "hug  (merge 259, id 258)",
        "├─ h  (id 104)",
        "└─ ug  (merge 257, id 256)",
        "   ├─ u  (id 117)",
        "   └─ g  (id 103)",
        "s  (id 115)",
    ]


def test_the_tree_of_the_worked_example() -> None:
    model = train("bpe", texts=["hug "] * 10 + ["pug "] * 5 + ["pun "] * 12 + ["bun "] * 4 + ["hugs "] * 5,
                  learning=Learning(vocab_size=260))  # fmt: skip
    assert isinstance(model, Pipeline) and isinstance(model.model, BPE)
    (tree,) = merge_tree(model.model, b"hug")
    assert (tree.token, tree.rank) == (b"hug", 2)
    assert [(part.token, part.rank) for part in tree.parts] == [(b"h", None), (b"ug", 0)]


def test_only_what_is_made_of_parts_has_pieces(some: dict[str, Tokenizer]) -> None:
    assert pieces_of(some["byte"], "a") is None
    found = pieces_of(some["wordpiece"], "The Café!")
    assert found is not None and found[1] == [b"the", b"cafe", b"!"]
