"""Normalisers: Unicode forms, case, accents, white space, BERT's, and chains of them.

Each is a frozen value with two methods: `__call__` is fast, `align` says where each character came from. Characters are
those of the interpreter's Unicode version, but for marks, controls and white space, which `lineal.tokenizers.text.marks` fixes.
"""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import ModuleType
from typing import cast

from lineal import native
from lineal.errors import DataError, UsageError
from lineal.tokenizers.parts import Normaliser
from lineal.tokenizers.text.marks import MARKS, NONSPACING, WHITE, is_control, is_ideograph

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
PREPENDS = ("always", "first", "never")
TOGETHER = "\ud800"
"""Stands for what a character alone can't say; no text has it that UTF-8 can write."""
Origins = list[int]
LONG = 128
"""Runs of so many marks are sorted here first: the interpreter's own sort takes quadratic time."""


def utf8(text: str) -> bytes:
    """A text as UTF-8. Raises DataError, with the position, at half a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise DataError(
            f"Character {at} of the text is U+{ord(text[at]):04X}, half of a surrogate pair, which UTF-8 cannot write: "
            'remove it, or read the text again with errors="replace".'
        ) from None


def normal_form(form: str, text: str) -> str:
    """A text in one of Unicode's forms, in linear time."""
    if len(text) > LONG and not text.isascii():
        text = _long_runs().sub(lambda run: _ordered(form, run[0]), text)
    return cast(Callable[[str, str], str], unicodedata.normalize)(form, text)


def _ordered(form: str, marks: str) -> str:
    apart = "".join(unicodedata.normalize("NFKD" if "K" in form else "NFD", mark) for mark in marks)
    return "".join(sorted(apart, key=unicodedata.combining))


@cache
def _long_runs() -> re.Pattern[str]:
    marks = (chr(i) for i in range(0x300, 0x20000) if not 0xD800 <= i < 0xE000)
    moving = "".join(filter(moves, marks))
    return re.compile(f"[{moving}]{{{LONG},}}")


def moves(character: str) -> bool:
    """Whether a character can change places with marks before it, or is made of some that can."""
    return character > "\u02ff" and unicodedata.combining(unicodedata.normalize("NFD", character)[0]) > 0


class _Table(dict[int, str]):
    """What each character becomes, worked out when it is first met."""

    def __init__(self, normaliser: EachAlone):
        super().__init__()
        self._normaliser = normaliser

    def __missing__(self, code: int) -> str:
        made = self[code] = self._normaliser.character(chr(code))
        return made


class EachAlone(Normaliser):
    """A normaliser that turns each character into some others (or none), whatever stands around it."""

    @abstractmethod
    def character(self, character: str) -> str:
        """What becomes of one character."""

    @cached_property
    def _table(self) -> _Table:
        return _Table(self)

    def __call__(self, text: str) -> str:
        """The characters' texts, one after the other."""
        return text.translate(self._table)

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins: what a character becomes began where it did."""
        found = [(made, at) for at, character in enumerate(text) for made in self._table[ord(character)]]
        return "".join(made for made, _ in found), [*(at for _, at in found), len(text)]


@dataclass(frozen=True)
class Lowercase(EachAlone):
    """Lower case by Unicode's full mapping, character by character: a final sigma is lowered like any other."""

    def character(self, character: str) -> str:
        """Its lower case: one character, but two for İ."""
        return character.lower()

    def __call__(self, text: str) -> str:
        """The text in lower case."""
        return super().__call__(text) if "Σ" in text else text.lower()


@dataclass(frozen=True)
class StripAccents(EachAlone):
    """Drops every mark. Accents that are part of a letter stay: use it after Unicode("NFD")."""

    def character(self, character: str) -> str:
        """Nothing for a mark, else itself."""
        return "" if character in MARKS else character

    def __call__(self, text: str) -> str:
        """The text without its marks."""
        return text if text.isascii() else super().__call__(text)


@dataclass(frozen=True)
class Replace(Normaliser):
    """Each occurrence of a string becomes another, from the left, none of them overlapping."""

    old: str
    new: str

    def __call__(self, text: str) -> str:
        """The text with `new` for `old`."""
        return text.replace(self.old, self.new)

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins: all of `new` began where `old` did."""
        if not self.old:
            raise UsageError('Replace("", ...) cannot be aligned: every place holds an empty string.')
        origins: Origins = []
        at = 0
        while (found := text.find(self.old, at)) >= 0:
            origins += [*range(at, found), *[found] * len(self.new)]
            at = found + len(self.old)
        return self(text), [*origins, *range(at, len(text) + 1)]


@dataclass(frozen=True)
class Prepend(Normaliser):
    """A string in front of every text that is not empty."""

    text: str

    def __call__(self, text: str) -> str:
        """The text with the string in front."""
        return self.text + text if text else ""

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins: what is in front stands at 0."""
        return _in_front(text, self(text))


@dataclass(frozen=True)
class SpaceInFront(Normaliser):
    """A space in front of every text that is not empty and does not start with one."""

    def __call__(self, text: str) -> str:
        """The text with a space in front."""
        return " " + text if text and text[0] != " " else text

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins: the space stands at 0."""
        return _in_front(text, self(text))


def _in_front(text: str, longer: str) -> tuple[str, Origins]:
    return longer, [0] * (len(longer) - len(text)) + list(range(len(text) + 1))


@dataclass(frozen=True)
class Metaspace(Normaliser):
    """Each space becomes a symbol; one is put in front where the text does not start with one.

    prepend: "always"; "first", only at the start of the whole text (this part sees one text, so here it is "always":
    who cuts special tokens out of a text gives later stretches to `later`); "never".
    """

    symbol: str = "▁"
    prepend: str = "always"

    def __post_init__(self) -> None:
        if self.prepend not in PREPENDS:
            raise UsageError(
                f'Metaspace(prepend="{self.prepend}") is no known way: use one of {", ".join(PREPENDS)}.'
            )
        if len(self.symbol) != 1:
            raise UsageError(f'Metaspace(symbol="{self.symbol}") needs one character.')

    @property
    def later(self) -> Metaspace:
        """What to use for stretches of a text after the first."""
        return Metaspace(self.symbol, "never") if self.prepend == "first" else self

    def __call__(self, text: str) -> str:
        """The text with symbols for spaces."""
        text = text.replace(" ", self.symbol)
        needs = self.prepend != "never" and text and text[0] != self.symbol
        return self.symbol + text if needs else text

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins: a symbol in front stands at 0."""
        return _in_front(text, self(text))


@dataclass(frozen=True)
class Strip(Normaliser):
    """Drops white space (Unicode's White_Space) at the ends."""

    left: bool = True
    right: bool = True

    def __call__(self, text: str) -> str:
        """The text without white space at its ends."""
        text = text.lstrip(WHITE) if self.left else text
        return text.rstrip(WHITE) if self.right else text

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins; the end is that of what was kept."""
        start = len(text) - len(text.lstrip(WHITE)) if self.left else 0
        kept = self(text)
        return kept, list(range(start, start + len(kept) + 1))


@dataclass(frozen=True)
class Unicode(Normaliser):
    """One of Unicode's normalisation forms (UAX 15): "NFC", "NFD", "NFKC" or "NFKD"."""

    form: str

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(
                f'Unicode("{self.form}") is no normalisation form: use one of {", ".join(FORMS)}.'
            )

    def __call__(self, text: str) -> str:
        """The text in this form."""
        return text if text.isascii() else normal_form(self.form, text)

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins: a character began where the first of those that it is made of did.

        Where marks changed places, one that moved forward takes its neighbours' origins back with it.
        """
        normalised = self(text)
        if normalised == text:
            return text, list(range(len(text) + 1))
        origins = [at for start, end in self._clusters(text) for at in self._cluster(text, start, end)]
        return normalised, [*origins, len(text)]

    def _clusters(self, text: str) -> Iterator[tuple[int, int]]:
        """Stretches that can be normalised one by one: a character and its marks, longer where two compose."""
        start = 0
        last = ""
        for end in (*(i for i, c in enumerate(text) if i and not moves(c)), len(text)):
            part = text[start + len(last) : end]
            whole = normal_form(self.form, last + part)
            if last and whole == normal_form(self.form, last) + normal_form(self.form, part):
                yield start, start + len(last)
                start, last = start + len(last), part
            else:
                last += part
        if last:
            yield start, len(text)

    def _cluster(self, text: str, start: int, end: int) -> Origins:
        """Origins of one stretch's characters, each found by the first character of its decomposition."""
        apart = "NFKD" if "K" in self.form else "NFD"
        left: defaultdict[str, deque[int]] = defaultdict(deque)
        for at in range(start, end):
            for part in normal_form(apart, text[at]):
                left[part].append(at)
        origins: Origins = []
        for character in normal_form(self.form, text[start:end]):
            parts = [left[part].popleft() for part in normal_form(apart, character)]
            origins.append(parts[0])
        for i in range(len(origins) - 2, -1, -1):
            origins[i] = min(origins[i], origins[i + 1])
        return origins


@dataclass(frozen=True)
class Chain(Normaliser):
    """Several normalisers, one after the other."""

    parts: tuple[Normaliser, ...]

    def __call__(self, text: str) -> str:
        """The text after the last of them."""
        for part in self.parts:
            text = part(text)
        return text

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins in the first one's text."""
        origins = list(range(len(text) + 1))
        for part in self.parts:
            text, step = part.align(text)
            origins = [origins[at] for at in step]
        return text, origins


@dataclass(frozen=True)
class _NoAccents(EachAlone):
    def character(self, character: str) -> str:
        return "" if character in NONSPACING else character


@dataclass(frozen=True)
class Bert(EachAlone):
    """What BERT does to a text first, as the `tokenizers` library does it, in this order.

    clean_text: drops the null, U+FFFD, controls, format and private characters; white space becomes a space. chinese:
    puts spaces around each ideograph (of the blocks that BERT lists, with the slip of the library in the fifth).
    strip_accents: NFD without nonspacing marks; None does as `lowercase` does. lowercase: as `Lowercase`.
    """

    clean_text: bool = True
    chinese: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True

    @property
    def _strips(self) -> bool:
        return self.lowercase if self.strip_accents is None else self.strip_accents

    def whole(self, text: str) -> str:
        """The text by the definition, step by step."""
        if self.clean_text:
            text = "".join(" " if c in WHITE else c for c in text if not is_control(c))
        if self.chinese:
            text = "".join(f" {c} " if is_ideograph(c) else c for c in text)
        if self._strips:
            text = "".join(c for c in normal_form("NFD", text) if c not in NONSPACING)
        return "".join(c.lower() for c in text) if self.lowercase else text

    def character(self, character: str) -> str:
        """What becomes of one character; of one that could change places with its neighbours, TOGETHER."""
        made = self.whole(character)
        moves = self._strips and any(map(unicodedata.combining, made))
        return TOGETHER if moves or len(made) > 3 else made

    def __call__(self, text: str) -> str:
        """The normalised text. Raises DataError at half a surrogate pair."""
        return self.convert(utf8(text)).decode()

    def convert(self, data: bytes) -> bytes:
        """The normalised form of UTF-8 bytes: what a call does, without turning bytes into text and back."""
        if data.isascii():
            return data.translate(*self._ascii)
        core = _core()
        made = None if core is None else self._pages.replaced(core, data)
        if made is None:
            text = data.decode()
            found = super().__call__(text)
            made = (self.whole(text) if TOGETHER in found else found).encode()
        return made

    @cached_property
    def _ascii(self) -> tuple[bytes, bytes]:
        """What each byte of ASCII becomes, and those that are dropped."""
        made = [self._table[byte] for byte in range(128)]
        dropped = bytes(byte for byte in range(128) if not made[byte])
        return bytes(ord(each or " ") for each in made) + bytes(range(128, 256)), dropped

    def align(self, text: str) -> tuple[str, Origins]:
        """The text and its origins; a space behind an ideograph stands where the next character does."""
        utf8(text)
        made = [self._table[ord(character)] for character in text]
        if TOGETHER in made:
            steps = (replace(self, strip_accents=False, lowercase=False), Unicode("NFD"), _NoAccents())
            return Chain((*steps, Lowercase()) if self.lowercase else steps).align(text)
        origins = [at + (i == 2 and part[0] == " ") for at, part in enumerate(made) for i in range(len(part))]
        return "".join(made), [*origins, len(text)]

    @cached_property
    def _pages(self) -> _Pages:
        return _Pages(self._table)


@cache
def _core() -> ModuleType | None:
    return native.compiled("lineal.tokenizers.core.bert_text")


class _Pages:
    """A table of characters as the core reads it, in pages of 256 that are made when first needed."""

    def __init__(self, table: _Table):
        self._table = table
        self.plain = bytes(ord(made) if made else 255 for made in map(table.__getitem__, range(128)))
        self._arrays = array("i", [-1]) * (0x110000 >> 8), array("q")

    def replaced(self, core: ModuleType, data: bytes) -> bytes | None:
        """What a text becomes; None where its characters can't be taken one by one."""
        out, state = bytearray(3 * len(data) + 1), array("q", [0, 0, -1])
        while True:
            core.replace_characters(data, self.plain, *self._arrays, out, state)
            if state[2] < 0:
                return bytes(memoryview(out)[: state[1]])
            if self._entry(state[2]) < 0:
                return None

    def _entry(self, code: int) -> int:
        """The entry of a character; its page is made if there is none, in new arrays, since threads may read the old."""
        page_start, made = self._arrays
        if page_start[code >> 8] < 0:
            first = code & ~255
            page = array("q", map(self._packed, range(first, first + 256)))
            page_start = page_start[:]
            page_start[code >> 8] = len(made)
            made = made + page
            self._arrays = page_start, made
        return made[page_start[code >> 8] + (code & 255)]

    def _packed(self, code: int) -> int:
        made = self._table[code]
        if TOGETHER in made or len(made.encode()) > 3 * len(chr(code).encode()):
            return -1
        return sum(ord(part) << 21 * i for i, part in enumerate(made))
