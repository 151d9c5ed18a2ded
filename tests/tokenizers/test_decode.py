"""Decoders beside those of the `tokenizers` library, by rule and by table."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lineal.tokenizers import decode
from lineal.tokenizers.decode import Decoders, DecodeTable, Rule
from lineal.tokenizers.files.after import written_decoder
from lineal.tokenizers.files.printable import to_bytes, to_text

LLAMA = Decoders((decode.Replace("▁", " "), decode.ByteFallback(), decode.Fuse(), decode.Strip(" ", 1, 0)))
RULES: dict[str, Rule] = {
    "wordpiece": decode.WordPieceDecoder(),
    "wordpiece as it stands": decode.WordPieceDecoder("@@", cleanup=False),
    "metaspace": decode.MetaspaceDecoder(),
    "metaspace first": decode.MetaspaceDecoder(prepend="first"),
    "metaspace never": decode.MetaspaceDecoder("_", "never"),
    "byte fallback": decode.ByteFallback(),
    "fuse": decode.Fuse(),
    "replace": decode.Replace("a", "▁b"),
    "strip": decode.Strip("a", 2, 0),
    "strip the end": decode.Strip("a", 0, 1),
    "suffix": decode.BPEDecoder(),
    "llama": LLAMA,
    "bytes before a mark": Decoders((decode.ByteFallback(), decode.MetaspaceDecoder())),
    "a chain in a chain": Decoders(
        (decode.Replace("▁", "a"), Decoders((decode.Strip("a", 1, 0), decode.Fuse())))
    ),
    "strip behind fuse": Decoders((decode.MetaspaceDecoder(), decode.Fuse(), decode.Strip(" ", 3, 0))),
}
PARTS = [
    "a",
    "b",
    " ",
    "▁",
    "_",
    "##",
    "@@",
    "</w>",
    ".",
    "n't",
    "'s",
    "do not",
    "é",
    "猫",
    "<0x",
    "41",
    "E7",
    ">",
]
BYTES = [
    "<0x41>",
    "<0xE7>",
    "<0x8C>",
    "<0xAB>",
    "<0xff>",
    "<0x+1>",
    "<0xG1>",
    "<0x20>",
    "<0xE2>",
    "<0x96>",
    "<0x81>",
]
token = st.one_of(st.lists(st.sampled_from(PARTS), max_size=4).map("".join), st.sampled_from(BYTES))
chains = st.lists(token, max_size=12)


def theirs(rule: Rule):
    """The library's decoder of the same name."""
    tokenizers = pytest.importorskip("tokenizers", reason="the oracle is in the [hf] extra")
    content = json.dumps(written_decoder(rule))
    whole = {"version": "1.0", "added_tokens": [], "decoder": json.loads(content)}
    whole["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    return tokenizers.Tokenizer.from_str(json.dumps(whole)).decoder


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_the_librarys(name: str) -> None:
    rule = RULES[name]
    oracle = theirs(rule)

    @given(chains)
    @example(["▁▁a▁b", "▁▁c"])
    @example(["<0xE7>", "<0x8C>", "<0xAB>", "<0xE7>", "a"])
    @example(["<0xE2>", "<0x96>", "<0x81>"])
    @example([])
    def check(tokens: list[str]) -> None:
        # The library panics when there is nothing to take from the end of a token.
        assume(name != "strip the end" or all(tokens))
        assert rule([token.encode() for token in tokens]) == oracle.decode(tokens)

    check()


@given(st.lists(st.binary(max_size=5), max_size=10))
@example([b"\xe7\x8c", b"\xab"])
@example([b"\xf0\x9f", b"\x90a", b"\xed\xa0\x80", b"\xc3"])
def test_bytes_that_are_no_text_are_marked_as_the_library_marks_them(tokens: list[bytes]) -> None:
    oracle = pytest.importorskip("tokenizers", reason="the oracle is in the [hf] extra").decoders.ByteLevel()
    assert decode.ByteLevel()(tokens) == oracle.decode([to_text(token) for token in tokens])


@pytest.mark.parametrize("name", [*RULES, "bytes", "spaced"])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_table_gives_what_the_rule_gives(
    name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {**RULES, "bytes": decode.ByteLevel(), "spaced": decode.Spaced()}[name]
    if not compiled:
        monkeypatch.setattr(decode, "compiled", lambda _: None)

    @given(st.lists(token, min_size=1, max_size=8), st.data())
    def check(words: list[str], data: st.DataObject) -> None:
        tokens = [word.encode() for word in words] + [b"\xe7\x8c", b"\xab"] * (name == "bytes")
        silent = data.draw(st.sets(st.integers(0, len(tokens) - 1)))
        ids = data.draw(st.lists(st.integers(-2, len(tokens) + 1) | st.just(1 << 70), max_size=12))
        kept = [i for i in ids if 0 <= i < len(tokens)]
        assert DecodeTable(rule, tokens)(ids) == rule([tokens[i] for i in kept])
        shown = [tokens[i] for i in kept if i not in silent]
        assert DecodeTable(rule, tokens, silent)(tuple(ids)) == rule(shown)

    check()


def test_an_empty_vocabulary_decodes_to_nothing() -> None:
    assert DecodeTable(decode.ByteLevel(), [])([0, 1]) == ""


@given(st.binary())
def test_the_printed_form_of_bytes_comes_back(data: bytes) -> None:
    assert to_bytes(to_text(data)) == data
    assert len(to_text(data)) == len(data)


@pytest.mark.parametrize("name", ["a b", "吾", "\xad", "Ġ吾"])
def test_a_token_with_other_characters_stands_for_itself(name: str) -> None:
    assert to_bytes(name) == name.encode()
