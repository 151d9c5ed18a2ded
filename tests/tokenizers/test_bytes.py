"""The byte tokenizer's own rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lineal.tokenizers import ByteTokenizer
from lineal.tokenizers.bytes import byte_alphabet


@given(st.text())
def test_any_text_is_its_bytes(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(text, special=False) == list(text.encode())
    assert tokenizer.decode(tokenizer.encode(text, special=False)) == text


def test_bytes_that_are_no_text_are_replaced():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([0xFF, 0x61]) == "\N{REPLACEMENT CHARACTER}a"
    assert tokenizer.decode([0xE5, 257, 0x61], skip_special=False) == "\N{REPLACEMENT CHARACTER}<eos>a"


def test_half_a_surrogate_pair_does_not_raise():
    assert ByteTokenizer().encode("a\ud83d") == [0x61, 0x3F]


def test_the_alphabet_is_gpt2s():
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256
    assert (alphabet[ord("A")], alphabet[ord(" ")], alphabet[ord("\n")]) == ("A", "Ġ", "Ċ")
    assert all(character.isprintable() for character in alphabet)
