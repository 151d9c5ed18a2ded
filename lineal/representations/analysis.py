"""From a text to its terms: words, word n-grams, character n-grams, by the rules that scikit-learn's vectorisers have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lineal.errors import UsageError

WORD = r"(?u)\b\w\w+\b"
"""Words of at least two letters, digits or underscores."""
KINDS = ("word", "char", "char_wb")
LONGEST = 1 << 10


@dataclass(frozen=True)
class Analysis:
    """How texts become terms; see `BagOfWords` for what the fields mean."""

    analyzer: Any = "word"
    lowercase: bool = True
    strip_accents: str | None = None
    token_pattern: str = WORD
    stop_words: Sequence[str] | None = None
    ngram_range: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if not callable(self.analyzer) and self.analyzer not in KINDS:
            raise UsageError(
                f"analyzer={self.analyzer!r} can't be: choose word, char, char_wb, or give a function."
            )
        if self.strip_accents not in (None, "ascii", "unicode"):
            raise UsageError(f"strip_accents={self.strip_accents!r} can't be: choose ascii, unicode or None.")
        low, high = self.ngram_range
        if not 1 <= low <= high <= LONGEST:
            raise UsageError(
                f"ngram_range={self.ngram_range} can't be: the first is at least 1 and at most the second, which is at "
                f"most {LONGEST}."
            )
        if isinstance(self.stop_words, str):
            raise UsageError(
                f"stop_words={self.stop_words!r} is one text: give a list of words. There is no list of English ones here, as "
                "which words tell nothing depends on the texts; max_df=0.5 finds them."
            )
        self._pattern()

    @property
    def by_core(self) -> bool:
        """Whether the compiled core knows these rules."""
        return self.analyzer == "word" and self.token_pattern == WORD

    def prepare(self, text: str) -> str:
        """The text in small letters and without accents, where that is asked for."""
        if self.lowercase:
            text = text.lower()
        return stripped(text, self.strip_accents) if self.strip_accents else text

    def terms(self) -> Callable[[str], list[str]]:
        """The function from a text to its terms, in the order in which they stand."""
        if callable(self.analyzer):
            return lambda text: list(self.analyzer(text))
        low, high = self.ngram_range
        if self.analyzer != "word":
            cut = char_ngrams if self.analyzer == "char" else char_ngrams_within_words
            return lambda text: cut(self.prepare(text), low, high)
        find, stop = self._pattern().findall, frozenset(self.stop_words or ())

        def words(text: str) -> list[str]:
            found = find(self.prepare(text))
            return word_ngrams([word for word in found if word not in stop] if stop else found, low, high)

        return words

    def _pattern(self) -> re.Pattern[str]:
        try:
            pattern = re.compile(self.token_pattern)
        except re.error as error:
            raise UsageError(f"token_pattern={self.token_pattern!r} is no pattern ({error}).") from error
        if pattern.groups > 1:
            raise UsageError(f"token_pattern={self.token_pattern!r} has several groups: leave one, or none.")
        return pattern


def word_ngrams(words: Sequence[str], low: int, high: int) -> list[str]:
    """All runs of `low` to `high` words, joined by spaces; the short ones first.

    >>> word_ngrams(["a", "b", "c"], 1, 2)
    ['a', 'b', 'c', 'a b', 'b c']
    """
    found = list(words) if low == 1 else []
    for n in range(max(low, 2), high + 1):
        found += [" ".join(words[at : at + n]) for at in range(len(words) - n + 1)]
    return found


def char_ngrams(text: str, low: int, high: int) -> list[str]:
    """All runs of `low` to `high` characters, across words; two or more spaces in a row count as one.

    >>> char_ngrams("ab  c", 2, 3)
    ['ab', 'b ', ' c', 'ab ', 'b c']
    """
    text = re.sub(r"\s\s+", " ", text)
    return [text[at : at + n] for n in range(low, high + 1) for at in range(len(text) - n + 1)]


def char_ngrams_within_words(text: str, low: int, high: int) -> list[str]:
    """Runs of characters inside words, with a space at either end; a word shorter than n counts once, whole.

    >>> char_ngrams_within_words("ab c", 3, 4)
    [' ab', 'ab ', ' ab ', ' c ']
    """
    found = []
    for word in text.split():
        padded = f" {word} "
        for n in range(low, high + 1):
            found.append(padded[:n])
            found += [padded[at : at + n] for at in range(1, len(padded) - n + 1)]
            if n >= len(padded):
                break
    return found


def stripped(text: str, how: str) -> str:
    """Without accents: "ascii" drops what has no ASCII form, "unicode" only the marks."""
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFKD", text)
    if how == "ascii":
        return apart.encode("ascii", "ignore").decode()
    return "".join(character for character in apart if not unicodedata.combining(character))


def check_texts(texts: Iterable[str]) -> Iterable[str]:
    """The texts, unless they are one string."""
    if isinstance(texts, str | bytes):
        raise UsageError("One string was given where texts are wanted: put it in a list.")
    return texts
