"""SentencePiece's normalisers: rules compiled into a character map, a space in front, extra spaces removed.

A charsmap is a blob as a SentencePiece model carries it: the size of a double array in four bytes, the array (units of
four bytes, as Darts-clone lays them out), then the texts that rules write, each with a zero byte after it. The longest
rule that matches at a position is applied; what no rule matches passes as it is.
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate
from types import ModuleType
from typing import Any

from lineal.errors import ModelError
from lineal.native import compiled
from lineal.tokenizers.double_array import TRIE, build_trie
from lineal.tokenizers.parts import Normaliser
from lineal.tokenizers.text.normalise import utf8

SYMBOL = "▁".encode()
CORE = "lineal.tokenizers.core.charsmap"


@dataclass(frozen=True)
class Rules:
    """A charsmap taken apart. units: its double array. texts: what rules write, a zero byte after each."""

    units: array[int]
    texts: bytes

    def longest(self, data: bytes, at: int) -> tuple[int, bytes]:
        """The length of the longest rule that matches at a position, 0 for none, and the text that it writes."""
        found = 0, b""
        if not self.units:
            return found
        node = _offset(self.units[0])
        for position in range(at, len(data)):
            node ^= data[position]
            if node >= len(self.units) or self.units[node] & 0x800000FF != data[position]:
                break
            unit = self.units[node]
            node ^= _offset(unit)
            if node >= len(self.units):
                break
            if unit >> 8 & 1:
                start = self.units[node] & 0x7FFFFFFF
                found = position + 1 - at, self.texts[start : self.texts.index(0, start)]
        return found

    @cached_property
    def plain(self) -> bytes:
        """1 for each byte below 128 that no rule touches as long as the next byte is below 128 too."""
        table = bytearray(b"\1" * 128)
        for byte in range(128):
            at = self._child(_offset(self.units[0]), byte) if self.units else -1
            if at >= 0:
                node = at ^ _offset(self.units[at])
                ends = self.units[at] >> 8 & 1
                table[byte] = not ends and all(self._child(node, after) < 0 for after in range(128))
        return bytes(table)

    def _child(self, node: int, byte: int) -> int:
        """The unit that a byte leads to from a node, -1 for none."""
        at = node ^ byte
        return at if at < len(self.units) and self.units[at] & 0x800000FF == byte else -1


def read_charsmap(blob: bytes) -> Rules:
    """Take a charsmap apart; an empty one has no rules. Raises ModelError when it is damaged."""
    if not blob:
        return Rules(array("I"), b"\0")
    size = struct.unpack_from("<I", blob)[0] if len(blob) >= 4 else 0
    if len(blob) < 4 or size % 4 or 4 + size > len(blob) or (blob[4 + size :] and blob[-1]):
        raise ModelError(
            f"precompiled_charsmap of {len(blob)} bytes is damaged (its trie claims {size}): get the model again."
        )
    units = array("I", blob[4 : 4 + size])
    if sys.byteorder == "big":
        units.byteswap()
    texts = blob[4 + size :] or b"\0"
    core = compiled(CORE)
    wrong = core.beyond(units, len(texts)) if core else _beyond(units, len(texts))
    if wrong >= 0:
        raise ModelError(
            f"precompiled_charsmap is damaged: unit {wrong} points beyond its texts; get the model again."
        )
    return Rules(units, texts)


def _beyond(units: array[int], size: int) -> int:
    """The first unit that leads to a text that is not there, among `size` bytes of them; -1 when all are."""
    for at, unit in enumerate(units):
        leaf = at ^ _offset(unit)
        if unit >> 8 & 1 and not unit >> 31 and leaf < len(units) and units[leaf] & 0x7FFFFFFF >= size:
            return at
    return -1


def _offset(unit: int) -> int:
    """How far a unit's children are (exclusive or)."""
    return unit >> 10 << ((unit & 512) >> 6)


class _Mapped(Normaliser):
    """What the two normalisers of this file share: rules, texts to keep, and four switches that one of them fixes."""

    charsmap: bytes
    keep: tuple[str, ...] = ()
    add_dummy_prefix = remove_extra_whitespaces = escape_whitespaces = treat_whitespace_as_suffix = False

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone; what is worked out from them doesn't travel between processes."""
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]

    @cached_property
    def rules(self) -> Rules:
        """The charsmap taken apart."""
        return read_charsmap(self.charsmap)

    def __call__(self, text: str) -> str:
        """The normalised text."""
        return self.convert(utf8(text)).decode("utf-8", "replace")

    def convert(self, data: bytes) -> bytes:
        """The normalised form of UTF-8 bytes: what a call does, without turning bytes into text and back."""
        rewriter = self._rewriter
        return (
            b"".join(part for part, _ in self.steps(data)[0]) if rewriter is None else rewriter.convert(data)
        )

    def align(self, text: str) -> tuple[str, list[int]]:
        """The normalised text, and the place in `text` of each of its characters, and of its end."""
        data = utf8(text)
        steps, end = self.steps(data)
        places = [place for part, place in steps for byte in part if byte & 0xC0 != 0x80]
        starts = list(accumulate((byte & 0xC0 != 0x80 for byte in data), initial=0))
        written = b"".join(part for part, _ in steps).decode("utf-8", "replace")
        return written, [starts[place] for place in (*places, end)]

    def steps(self, data: bytes) -> tuple[list[tuple[bytes, int]], int]:
        """The obvious form: what each byte that is read becomes and where it stood, and where what was kept ends.

        The rules in turn: spaces at the front go; a space is put in front; each place is rewritten by the longest
        rule; a space after a space goes; a space becomes its symbol; spaces at the end go.
        """
        extra, space = self.remove_extra_whitespaces, SYMBOL if self.escape_whitespaces else b" "
        steps: list[tuple[bytes, int]] = []
        at, after_space = 0, extra
        while extra and at < len(data) and self._rewritten(data, at)[1] == b" ":
            at += self._rewritten(data, at)[0]
        if at == len(data):
            return [], at
        if self.add_dummy_prefix and not self.treat_whitespace_as_suffix:
            steps.append((space, at))
        while at < len(data):
            length, text = self._rewritten(data, at)
            text = text.lstrip(b" ") if after_space else text
            if text:
                after_space = extra and text.endswith(b" ")
                steps += [(space if byte == 32 else bytes((byte,)), at) for byte in text]
            at += length
        while extra and (size := _trailing(steps, space)):
            at = steps[-size][1]
            del steps[-size:]
        if self.add_dummy_prefix and self.treat_whitespace_as_suffix:
            steps.append((space, at))
        return steps, at

    def _rewritten(self, data: bytes, at: int) -> tuple[int, bytes]:
        """How many bytes one step takes, and what it writes for them."""
        kept = max((len(text) for text in self._kept if data.startswith(text, at)), default=0)
        length, text = (kept, data[at : at + kept]) if kept else self.rules.longest(data, at)
        if length:
            return length, text
        length = 1 + (data[at] >= 0xC0) + (data[at] >= 0xE0) + (data[at] >= 0xF0)
        return length, data[at : at + length]

    @cached_property
    def _kept(self) -> tuple[bytes, ...]:
        return tuple(text.encode() for text in self.keep)

    @cached_property
    def _rewriter(self) -> Any:
        """The core's form of this normaliser; None where nothing is compiled."""
        core, builder = compiled(CORE), compiled(TRIE)
        return core.Rewriter(*self.flat(builder)) if core and builder else None

    def flat(self, builder: ModuleType) -> tuple[array[int], bytes, bytes, array[int], int]:
        """What `core.charsmap.Rewriter` asks for. builder: `core.double_array`, in one of its forms."""
        switches = (
            self.add_dummy_prefix,
            self.remove_extra_whitespaces,
            self.escape_whitespaces,
            self.treat_whitespace_as_suffix,
        )
        kept = [(text, at) for at, text in enumerate(dict.fromkeys(self._kept)) if text]
        nodes = build_trie(kept, builder) if kept else array("i")
        return (
            self.rules.units,
            self.rules.texts,
            self.rules.plain,
            nodes,
            sum(on << at for at, on in enumerate(switches)),
        )


def _trailing(steps: list[tuple[bytes, int]], space: bytes) -> int:
    """How many steps at the end write one space; 0 when none is there."""
    if steps and steps[-1][0] == space:
        return 1
    written = b"".join(part for part, _ in steps[-len(space) :])
    return len(space) if written == space and steps[-1][0] != space else 0


@dataclass(frozen=True)
class Charsmap(_Mapped):
    """The rules of a charsmap alone, the longest that matches at each place; nothing is done about spaces.

    Source: the `precompiled_charsmap` of SentencePiece's normalizer_spec. Raises ModelError when it is damaged.
    """

    charsmap: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _ = self.rules


@dataclass(frozen=True)
class SentencePieceNormaliser(_Mapped):
    """SentencePiece's whole normaliser; the names of its switches are those of normalizer_spec.

    keep: texts that pass as they are, the longest first (user-defined pieces).
    Raises ModelError when the charsmap is damaged.
    """

    charsmap: bytes = field(repr=False)
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    treat_whitespace_as_suffix: bool = False
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.rules
