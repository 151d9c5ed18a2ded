"""GPT-2's printable form of bytes, in which byte-level vocabularies are written to files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from lineal.tokenizers.bytes import byte_alphabet

_SHOWN = dict(enumerate(byte_alphabet()))
_NONE = "\U0010ffff"
_BYTE = dict.fromkeys(range(256), _NONE) | {ord(shown): chr(byte) for byte, shown in _SHOWN.items()}


def to_bytes(token: str) -> bytes:
    """The bytes that a printed token stands for; one with other characters than the table's stands for itself.

    Raises UnicodeEncodeError for half a surrogate pair.
    """
    try:
        return token.translate(_BYTE).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode()


def all_to_bytes(tokens: Sequence[str]) -> list[bytes]:
    """`to_bytes` of each, quickly where all are printed: a character is a byte, so that one translation serves all."""
    try:
        data = "".join(tokens).translate(_BYTE).encode("latin-1")
    except UnicodeEncodeError:
        return [to_bytes(token) for token in tokens]
    ends = list(accumulate(map(len, tokens)))
    return [data[start:end] for start, end in zip([0, *ends], ends)]


def to_text(token: bytes) -> str:
    """The printed form of bytes."""
    return token.decode("latin-1").translate(_SHOWN)
