"""Protocol Buffers on the wire, as far as tokenizer files need it: a message is a list of numbered fields.

A field is a key, number * 8 + type, then its value: type 0 a varint (seven bits a byte, low ones first), 1 and 5 eight and
four bytes as they are, 2 a length and so many bytes. (https://protobuf.dev/programming-guides/encoding)
Fields keep their order, so that what a reader doesn't know is written back as it was.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from lineal.errors import ModelError

Field = tuple[int, int, "int | bytes"]
"""A field's number, its wire type, and its value: a number for a varint, else the bytes."""

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5


def read_fields(data: bytes, where: str) -> Iterator[Field]:
    """The fields of a message. where: what is read, as an error names it. Raises ModelError when it is cut or damaged."""
    at, end = 0, len(data)
    while at < end:
        start = at
        key, at = _varint(data, at, where)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == VARINT:
            value, at = _varint(data, at, where)
        elif kind in (BYTES, EIGHT, FOUR):
            size, at = _varint(data, at, where) if kind == BYTES else (8 if kind == EIGHT else 4, at)
            if size > end - at:
                raise ModelError(
                    f"{where}: field {number} at byte {start} claims {size} bytes, {end - at} are left: "
                    "the file is cut or damaged; get it again."
                )
            value, at = data[at : at + size], at + size
        else:
            raise ModelError(
                f"{where}: byte {start} starts a field of unknown type {kind}: the file is damaged or of another kind."
            )
        if number == 0:
            raise ModelError(f"{where}: byte {start} starts a field numbered 0: the file is damaged.")
        yield number, kind, value


def _varint(data: bytes, at: int, where: str) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    for position in range(at, min(at + 10, len(data))):
        byte = data[position]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, position + 1
        shift += 7
    raise ModelError(
        f"{where}: the number at byte {at} does not end: the file is cut or damaged; get it again."
    )


def varint(value: int) -> bytes:
    """A number as seven bits a byte, low ones first; a negative one as its 64-bit complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_fields(fields: Iterable[Field]) -> bytes:
    """The bytes of a message."""
    out = bytearray()
    for number, kind, value in fields:
        out += varint(number << 3 | kind)
        if isinstance(value, int):
            out += varint(value)
        else:
            out += varint(len(value)) + value if kind == BYTES else value
    return bytes(out)


def signed(value: int) -> int:
    """A varint read as a signed number of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def real(value: float) -> bytes:
    """A number as four bytes, the value of a field of type FOUR."""
    return struct.pack("<f", value)
