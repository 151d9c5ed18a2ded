"""Small parts that other libraries' files need and that no paper has."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lineal.errors import UsageError
from lineal.tokenizers.added import WHITE
from lineal.tokenizers.parts import Normaliser, Splitter

_WORD = re.compile(f"[^{WHITE}]+")
_SIMPLE = re.compile(r"(\\A)?(\\s|[ ▁\w])(\+|\{\d{1,4},\d{0,4}\})?(\\z)?")


@dataclass(frozen=True)
class Prepared(Splitter):
    """A splitter before which something is done to the text, such as making spaces visible."""

    prepare: Normaliser
    splitter: Splitter

    @property
    def before(self) -> Normaliser:
        """What is done first."""
        return self.prepare

    def spans(self, data: bytes) -> array[int]:
        """The splitter's pieces."""
        return self.splitter.spans(data)


@dataclass(frozen=True)
class MarkedWords(Normaliser):
    """White space goes, and each word gets a symbol in front unless it starts with one (WhitespaceSplit, then Metaspace)."""

    symbol: str = "▁"

    def __call__(self, text: str) -> str:
        """The words with their symbols, one after the other."""
        return "".join([self._marked(match[0]) for match in _WORD.finditer(text)])

    def align(self, text: str) -> tuple[str, list[int]]:
        """The text and its origins: a symbol stands where its word does."""
        parts: list[str] = []
        origins: list[int] = []
        end = 0
        for match in _WORD.finditer(text):
            word = self._marked(match[0])
            parts.append(word)
            origins += [match.start()] * (len(word) - len(match[0])) + list(range(*match.span()))
            end = match.end()
        return "".join(parts), [*origins, end]

    def _marked(self, word: str) -> str:
        return word if word.startswith(self.symbol) else self.symbol + word


@dataclass(frozen=True)
class ReplacePattern(Normaliser):
    r"""Each match of a pattern becomes a text that is taken as it stands (` {2,}` -> `▁`, `\s+` -> a space).

    A pattern of one character or \s, repeated, at the start or end or anywhere, needs nothing more; others need the `regex` library, whose syntax is
    near that of the patterns in use. Raises UsageError without it, or for a pattern that it cannot read.
    """

    pattern: str
    new: str

    def __post_init__(self) -> None:
        _ = self._compiled

    @cached_property
    def _compiled(self) -> Any:
        if _SIMPLE.fullmatch(self.pattern):
            return re.compile(self.pattern.replace(r"\s", f"[{WHITE}]").replace(r"\z", r"\Z"))
        try:
            import regex
        except ImportError as error:
            raise UsageError(
                f"the pattern {self.pattern!r} needs the regex library, which is not installed: pip install regex."
            ) from error
        try:
            return regex.compile(self.pattern)
        except (regex.error, RecursionError) as error:
            raise UsageError(f"the pattern {self.pattern!r} cannot be read ({error}): mend it.") from error

    def __call__(self, text: str) -> str:
        """The text with `new` for each match."""
        return self._compiled.sub(lambda _: self.new, text)

    def align(self, text: str) -> tuple[str, list[int]]:
        """The text and its origins: what is put in stands where its match began."""
        parts: list[str] = []
        origins: list[int] = []
        at = 0
        for match in self._compiled.finditer(text):
            parts += [text[at : match.start()], self.new]
            origins += [*range(at, match.start()), *[match.start()] * len(self.new)]
            at = match.end()
        return "".join([*parts, text[at:]]), [*origins, *range(at, len(text) + 1)]
