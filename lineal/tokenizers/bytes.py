"""One id per byte of UTF-8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lineal.tokenizers.base import SETTINGS, TOKENIZER, Tokenizer, added_token, write_settings
from lineal.tokenizers.special import encode_with_special, special_pattern

SPECIAL = {"<pad>": 256, "<eos>": 257}


class ByteTokenizer(Tokenizer):
    """Ids 0..255 are the bytes themselves, 256 is <pad>, 257 is <eos>: any text, no training, no unknowns."""

    vocab_size = 258
    pad_id, eos_id = SPECIAL["<pad>"], SPECIAL["<eos>"]
    stop_ids = (SPECIAL["<eos>"],)

    def __init__(self) -> None:
        self._pattern = special_pattern(SPECIAL)

    @classmethod
    def load(cls, folder: str | Path) -> ByteTokenizer:
        """Read what `save` wrote: there is nothing to remember."""
        return cls()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The UTF-8 bytes of a text; half a surrogate pair becomes '?'."""
        return encode_with_special(text, SPECIAL, _bytes, self._pattern) if special else _bytes(text)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of bytes; those that are no UTF-8 become the replacement character."""
        if skip_special:
            return bytes([index for index in ids if 0 <= index < 256]).decode("utf-8", "replace")
        parts: list[str] = []
        run = bytearray()
        names = {index: token for token, index in SPECIAL.items()}
        for index in ids:
            if 0 <= index < 256:
                run.append(index)
            elif index in names:
                parts += [run.decode("utf-8", "replace"), names[index]]
                run.clear()
        return "".join(parts) + run.decode("utf-8", "replace")

    def save(self, folder: str | Path) -> None:
        """Write a byte-level tokenizer.json without merges, and tokenizer_config.json."""
        folder = Path(folder)
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [added_token(token, index) for token, index in SPECIAL.items()],
            "normalizer": None,
            "pre_tokenizer": level,
            "post_processor": None,
            "decoder": level,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        }
        write_settings(folder / TOKENIZER, content)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "lineal_kind": "byte",
            "pad_token": "<pad>",
            "eos_token": "<eos>",
            "clean_up_tokenization_spaces": False,
        }
        write_settings(folder / SETTINGS, settings)


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _bytes(text: str) -> list[int]:
    return list(text.encode("utf-8", "replace"))
