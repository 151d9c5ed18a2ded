"""Ways of cutting a text into pieces before any vocabulary is asked.

Each is a frozen value. Its rule stands in `lineal.tokenizers.text.patterns`, character by character; the compiled scanner
(`lineal.tokenizers.core.scan`) gives the same pieces from the bytes.
"""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from types import ModuleType
from typing import Any, ClassVar

from lineal import native
from lineal.errors import DataError, UsageError
from lineal.tokenizers.parts import Normaliser, Splitter
from lineal.tokenizers.text import patterns
from lineal.tokenizers.text.patterns import BEHAVIOURS, Pieces, Segment
from lineal.tokenizers.text.unicode_table import NUMBER, PUNCTUATION, SPACE, classes

LONGEST = (1 << 31) - 1
CL100K, O200K, WORDS, BERT, MATCHES, GPT2 = range(6)
EVERYTHING = array("i")


@cache
def scanners() -> tuple[ModuleType, ModuleType] | None:
    """The compiled scanners (`core.scan`, `core.follow`), or None."""
    scan = native.compiled("lineal.tokenizers.core.scan")
    follow = native.compiled("lineal.tokenizers.core.follow")
    return (scan, follow) if scan and follow else None


def line_spans(splitter: Splitter, data: bytes) -> array[int]:
    """`spans` of a text of which each line, with its line break (a line feed), is a text of its own."""
    if isinstance(splitter, ByClass):
        return splitter.spans(data, lines=True)
    found, at = array("i"), 0
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        found.extend(at + place for place in splitter.spans(data[at:end]))
        at = end
    return found


def check_behaviour(behaviour: str) -> None:
    """Raise UsageError for a behaviour that there is not."""
    if behaviour not in BEHAVIOURS:
        raise UsageError(f"A match can't be {behaviour!r}: choose one of {', '.join(BEHAVIOURS)}.")


class ByClass(Splitter):
    """A splitter that goes by the classes of characters."""

    def spans(self, data: bytes, lines: bool = False) -> array[int]:
        """The pieces of a UTF-8 text as start, end, ... in bytes; lines: each line is a text of its own.

        A byte that belongs to no character counts as one that is neither letter, number nor whitespace. Raises DataError for
        a text of more than 2^31 - 1 bytes.
        """
        if len(data) > LONGEST:
            raise DataError(f"A text of {len(data)} bytes is too long to be cut at once: give it in parts.")
        found = scanners()
        if found is None:
            return self.by_character(data, lines)
        scan, follow = found
        if self.rule == GPT2:
            return scan.gpt2(data, classes(), lines)
        return self._follow(scan, follow, data, lines, EVERYTHING)

    def refine(self, data: bytes, within: array[int]) -> array[int]:
        """The pieces of pieces of a text, each a text of its own."""
        found = scanners()
        if not within or found is None:
            return pieces_of_pieces(self.by_character, data, within)
        return self._follow(*found, data, False, within)

    def _follow(
        self, scan: ModuleType, follow: ModuleType, data: bytes, lines: bool, within: array[int]
    ) -> array[int]:
        """From piece to piece."""
        kinds = bytearray(len(data))
        scan.classify(data, class_codes(), classes(), kinds)
        return follow.follow(data, kinds, self.rule, self.settings, lines, within)

    rule: ClassVar[int]
    """Which rule of `core.follow` it is; for whole texts GPT-2's is in `core.scan`."""

    @property
    def settings(self) -> tuple[int, int, int]:
        """The bits of characters that are dropped, and two numbers that the rule knows."""
        return (0, 0, 0)

    def by_character(self, data: bytes, lines: bool = False) -> array[int]:
        """`spans` by the rule itself: what the compiled scanner is tested against, and what serves without it."""
        text = data.decode("utf-8", "surrogateescape")
        table = classes()
        kinds = bytes(table[ord(character)] for character in text)
        found, at = [], 0
        while at < len(text):
            end = (text.find("\n", at) + 1 if lines else 0) or len(text)
            found += [at + place for piece in self.pieces(text[at:end], kinds[at:end]) for place in piece]
            at = end
        return in_bytes(found, text, len(data))

    @abstractmethod
    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """Start and end of each piece in characters, from the class of each character."""


def pieces_of_pieces(spans: Callable[[bytes], array[int]], data: bytes, within: array[int]) -> array[int]:
    """Each piece cut once more."""
    found = array("i")
    for start, end in zip(within[::2], within[1::2]):
        found.extend(start + at for at in spans(data[start:end]))
    return found


def in_bytes(places: Iterable[int], text: str, size: int) -> array[int]:
    """Positions in characters as positions in bytes."""
    if len(text) == size:
        return array("i", places)
    widths = (len(character.encode("utf-8", "surrogateescape")) for character in text)
    table = list(accumulate(widths, initial=0))
    return array("i", [table[place] for place in places])


@cache
def class_codes() -> bytes:
    """What `core.follow` sees: for each ASCII character and each class its bits, for a later byte of it one more."""
    return classes()[:128] + bytes(range(256)) + bytes(bits | 128 for bits in range(256))


@dataclass(frozen=True)
class Gpt2(ByClass):
    """GPT-2's pattern: words with the space before them, numbers, marks, whitespace; English contractions apart.

    prefix_space: put a space in front of a text that has none, so that its first word is like any other.
    """

    prefix_space: bool = False

    rule = GPT2

    @property
    def before(self) -> Normaliser | None:
        """The space in front."""
        from lineal.tokenizers.text.normalise import SpaceInFront

        return SpaceInFront() if self.prefix_space else None

    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """`patterns.gpt2`."""
        return patterns.gpt2(text, kinds)


def check_digits(digits: int) -> None:
    """Raise UsageError where a number would be cut into pieces of nothing."""
    if not 0 < digits < LONGEST:
        raise UsageError(f"digits={digits} can't be: a piece of a number has at least 1.")


@dataclass(frozen=True)
class Cl100k(ByClass):
    """The pattern of GPT-4 (cl100k_base), Llama 3 (the same) and Qwen 2 (`digits=1`): digits by threes, one mark may start a word.

    whole_end: whitespace at the end of a text is one piece even where it has line breaks, as in tiktoken since 0.6.
    """

    digits: int = 3
    whole_end: bool = False

    def __post_init__(self) -> None:
        check_digits(self.digits)

    rule = CL100K

    @property
    def settings(self) -> tuple[int, int, int]:
        """For the scanner."""
        return (0, self.digits, int(self.whole_end))

    @property
    def pattern(self) -> str:
        """The regular expression that it is."""
        number = r"\p{N}" if self.digits == 1 else rf"\p{{N}}{{1,{self.digits}}}"
        end = r"\s+$|" if self.whole_end else ""
        return (
            rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{end}"
            r"\s*[\r\n]+|\s+(?!\S)|\s+"
        )

    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """`patterns.cl100k`."""
        return patterns.cl100k(self.digits, self.whole_end)(text, kinds)


@dataclass(frozen=True)
class O200k(ByClass):
    """The pattern of GPT-4o (o200k_base): as cl100k, but a word is capitals, then small letters, then a contraction.

    Mistral's tekken is `digits=1, contractions=False`.
    """

    digits: int = 3
    contractions: bool = True

    def __post_init__(self) -> None:
        check_digits(self.digits)

    rule = O200K

    @property
    def settings(self) -> tuple[int, int, int]:
        """For the scanner."""
        return (0, self.digits, int(self.contractions))

    @property
    def pattern(self) -> str:
        """The regular expression that it is."""
        number = r"\p{N}" if self.digits == 1 else rf"\p{{N}}{{1,{self.digits}}}"
        capital, small = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
        front, behind = r"[^\r\n\p{L}\p{N}]?", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?" if self.contractions else ""
        return (
            f"{front}{capital}*{small}+{behind}|{front}{capital}+{small}*{behind}|{number}|"
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )

    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """`patterns.o200k`."""
        return patterns.o200k(self.digits, self.contractions)(text, kinds)


@dataclass(frozen=True)
class Whitespace(ByClass):
    r"""Runs of \w, and runs of what is neither \w nor whitespace."""

    rule = WORDS

    @property
    def settings(self) -> tuple[int, int, int]:
        """For the scanner."""
        return (SPACE, 0, 0)

    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """`patterns.words`."""
        return patterns.words(text, kinds)


@dataclass(frozen=True)
class WhitespaceSplit(ByClass):
    """What stands between whitespace."""

    rule = MATCHES

    @property
    def settings(self) -> tuple[int, int, int]:
        """For the scanner."""
        return (SPACE, SPACE, 0)

    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """Whitespace removed."""
        return patterns.behave(patterns.matches(kinds, SPACE), "removed")


@dataclass(frozen=True)
class BertSplit(ByClass):
    """What stands between whitespace, each mark of punctuation on its own (BERT's basic tokenizer).

    Punctuation is that of Unicode 16 and ASCII's marks; Hugging Face's own list is of Unicode 8, so that it lacks some
    hundred marks of rare scripts.
    """

    rule = BERT

    @property
    def settings(self) -> tuple[int, int, int]:
        """For the scanner."""
        return (SPACE, 0, 0)

    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """`patterns.bert`."""
        return patterns.bert(text, kinds)


@dataclass(frozen=True)
class Punctuation(ByClass):
    """Each mark of punctuation, as BERT has it, is a match; what becomes of it says `behaviour`."""

    behaviour: str = "isolated"

    def __post_init__(self) -> None:
        check_behaviour(self.behaviour)

    rule = MATCHES

    @property
    def settings(self) -> tuple[int, int, int]:
        """For the scanner."""
        return (PUNCTUATION * (self.behaviour == "removed"), PUNCTUATION, BEHAVIOURS.index(self.behaviour))

    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """Punctuation by behaviour."""
        return patterns.behave(patterns.matches(kinds, PUNCTUATION), self.behaviour)


@dataclass(frozen=True)
class Digits(ByClass):
    """Numbers apart from the rest: each by itself, or runs of them."""

    individual: bool = False

    rule = MATCHES

    @property
    def settings(self) -> tuple[int, int, int]:
        """For the scanner."""
        return (0, NUMBER, 1 if self.individual else 4)

    def pieces(self, text: str, kinds: bytes) -> Pieces:
        """Numbers isolated or contiguous."""
        return patterns.behave(
            patterns.matches(kinds, NUMBER), "isolated" if self.individual else "contiguous"
        )


@dataclass(frozen=True)
class Whole(Splitter):
    """One piece: the text."""

    def spans(self, data: bytes) -> array[int]:
        """All of it, or nothing of nothing."""
        return array("i", [0, len(data)] if data else [])


@dataclass(frozen=True)
class SymbolSplit(Splitter):
    """A piece starts at each symbol, as SentencePiece's words do at the symbol that stands for a space."""

    symbol: str = "\N{LOWER ONE EIGHTH BLOCK}"

    def __post_init__(self) -> None:
        if not self.symbol:
            raise UsageError("SymbolSplit got an empty symbol, which is everywhere: give a character.")
        if not self.symbol.isascii() and any(0xD800 <= ord(each) < 0xE000 for each in self.symbol):
            raise UsageError(
                f"The symbol {self.symbol!r} is a lone surrogate, which no text has: give another."
            )

    def spans(self, data: bytes) -> array[int]:
        """The text cut before each symbol."""
        symbol = self.symbol.encode()
        core = scanners()
        return core[0].cut_before(data, symbol) if core else self.by_search(data, symbol)

    def by_search(self, data: bytes, symbol: bytes) -> array[int]:
        """`spans`, without the compiled scanner."""
        found, at = array("i"), 0
        while at < len(data):
            end = data.find(symbol, at + 1)
            end = len(data) if end < 0 else end
            found.extend((at, end))
            at = end
        return found


@dataclass(frozen=True)
class Splits(Splitter):
    """Several in a row, each cutting what the one before left, piece by piece; nothing else is seen of the text."""

    parts: tuple[Splitter, ...]

    @property
    def before(self) -> Normaliser | None:
        """What its parts do to a text, which for all but the first should be nothing."""
        from lineal.tokenizers.text.normalise import Chain

        changes = tuple(part.before for part in self.parts if part.before)
        return (changes[0] if len(changes) == 1 else Chain(changes)) if changes else None

    def spans(self, data: bytes) -> array[int]:
        """The pieces of the pieces."""
        if not self.parts:
            return Whole().spans(data)
        found = self.parts[0].spans(data)
        for part in self.parts[1:]:
            if isinstance(part, ByClass):
                found = part.refine(data, found)
            else:
                found = pieces_of_pieces(part.spans, data, found)
        return found


@dataclass(frozen=True)
class Regex(Splitter):
    """Any pattern, with the syntax of the `regex` library; what becomes of its matches says `behaviour`.

    invert: the matches are what lies between. The patterns that have a splitter of their own here go to it (`known`); for
    others the library is needed. Raises UsageError without it, or where it can't read the pattern. Departure: the classes
    of characters are then those of the library's Unicode version.
    """

    pattern: str
    behaviour: str = "isolated"
    invert: bool = False

    def __post_init__(self) -> None:
        check_behaviour(self.behaviour)

    @property
    def known(self) -> ByClass | None:
        """The splitter with the same pieces, for the patterns that leave nothing between their matches."""
        keeps = self.behaviour == "isolated" or (self.behaviour == "removed" and self.invert)
        return built_in().get(self.pattern) if keeps else None

    def spans(self, data: bytes) -> array[int]:
        """The pieces, from the matches that follow one another; what isn't UTF-8 is matched as lone surrogates."""
        if self.known is not None:
            return self.known.spans(data)
        text = data.decode("utf-8", "surrogateescape")
        segments: list[Segment] = []
        at = 0
        for match in compile_pattern(self.pattern).finditer(text):
            start, end = match.span()
            if start > at:
                segments.append((at, start, self.invert))
            if end > start:
                segments.append((start, end, not self.invert))
            at = end
        if at < len(text):
            segments.append((at, len(text), self.invert))
        pieces = patterns.behave(segments, self.behaviour)
        return in_bytes((place for piece in pieces for place in piece), text, len(data))


@cache
def built_in() -> dict[str, ByClass]:
    """The patterns, as they are written in files of tokenizers, that have a splitter of their own."""
    marks = r" ?[^\s\p{L}\p{N}]"
    quick = rf"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|\p{{N}}{{1,%d}}|{marks}++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    splitters = (
        *(Cl100k(digits) for digits in range(1, 10)),
        *(Cl100k(digits, True) for digits in range(1, 10)),
        *(O200k(digits, contractions) for digits in (1, 3) for contractions in (True, False)),
    )
    return {
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{marks}+|\s+(?!\S)|\s+": Gpt2(),
        rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}++| ?\p{{N}}++|{marks}++|\s++$|\s+(?!\S)|\s": Gpt2(),
        rf"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}++|\p{{N}}{{1,3}}+|{marks}++[\r\n]*+|"
        r"\s++$|\s*[\r\n]|\s+(?!\S)|\s": Cl100k(whole_end=True),
        **{quick % digits: Cl100k(digits) for digits in (1, 2, 3)},
        **{splitter.pattern: splitter for splitter in splitters},
    }


@cache
def compile_pattern(pattern: str) -> Any:
    """A pattern compiled by the `regex` library."""
    try:
        import regex
    except ImportError as error:
        raise UsageError(
            f"The pattern {pattern!r} is none of those built in, and the regex library is not installed: "
            "pip install regex."
        ) from error
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError) as error:
        raise UsageError(f"The pattern {pattern!r} can't be read ({error}): mend it.") from error
