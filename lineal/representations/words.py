"""Words of running text, the vocabulary that is kept of them, and the corpus as numbers.

A sentence is what windows never leave: a line of text, or with `across_lines` a document. A sentence of more than
`LONGEST` words is cut there, as gensim and word2vec.c do.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lineal.errors import DataError, UsageError
from lineal.tokenizers.text.unicode_table import CATEGORIES, categories

LONGEST = 10_000
END = -1
"""Stands in a corpus of ids where a sentence ends."""
PIECE = 1 << 20
"""Characters of a line that are cut into words at a time."""
LETTERS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
WHITE = re.compile(r"\s")
Splitter = Callable[[str], list[str]]


def letters(line: str) -> list[str]:
    """Runs of letters and digits in lower case, apostrophes inside kept: "It's 2 a.m." gives it's, 2, a, m."""
    return (LETTERS if line.isascii() else _letters()).findall(line.lower())


@cache
def _letters() -> re.Pattern[str]:
    """Runs of letters and digits, and of the marks above, below and beside letters.

    To Python a mark is none of both, so that words of Hindi, or any whose accents are characters of their own, would be cut.
    """
    run = rf"[^\W_]+(?:[{_marks()}]+[^\W_]*)*"
    return re.compile(rf"{run}(?:['’]{run})*")


def _marks() -> str:
    """The combining marks (categories Mc, Me, Mn) and the two joiners, as ranges of a pattern's class."""
    flags = categories().translate(bytes(kind in ("Mc", "Me", "Mn") for kind in CATEGORIES).ljust(256, b"\0"))
    runs = [(found.start(), found.end() - 1) for found in re.finditer(b"\1+", flags)]
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in [*runs, (0x200C, 0x200D)])


def spaces(line: str) -> list[str]:
    """What stands between white space, as it is: what word2vec.c, GloVe and gensim read."""
    return line.split()


SPLITTERS: dict[str, Splitter] = {"letters": letters, "spaces": spaces}
"""How text is cut into words, by the name that --words takes."""


def sentences(
    documents: Iterable[Iterable[str]], splitter: Splitter, across_lines: bool = False
) -> Iterator[list[str]]:
    """The words of each sentence that has any. documents: the lines of each."""
    for lines in documents:
        words: list[str] = []
        for line in lines:
            for piece in _pieces(line):
                words += splitter(piece)
                whole = len(words) // LONGEST * LONGEST
                yield from (words[at : at + LONGEST] for at in range(0, whole, LONGEST))
                words = words[whole:] if whole else words
            if words and not across_lines:
                yield words
                words = []
        if words:
            yield words


def _pieces(line: str) -> Iterator[str]:
    """A line, or where it is a whole book, parts of it that end at white space."""
    at = 0
    while len(line) - at > PIECE and (space := WHITE.search(line, at + PIECE)):
        yield line[at : space.start()]
        at = space.start()
    yield line[at:]


@dataclass(frozen=True)
class Vocabulary:
    """The words that are kept, most frequent first, and how often each occurs; of equals the first in the alphabet.

    words: text. counts: int64, [V].
    """

    words: tuple[str, ...]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, counted: Counter[str], min_count: int = 5, max_words: int = 0) -> Vocabulary:
        """The words that occur at least `min_count` times, at most `max_words` of them (0: all).

        Raises UsageError for a limit that keeps nothing by itself, DataError when fewer than two words remain.
        """
        if min_count < 1 or max_words < 0:
            raise UsageError(
                f"min_count {min_count} and max_words {max_words}: at least 1, and at least 0 (all)."
            )
        if max_words == 1:
            raise UsageError(
                "max_words 1: vectors need at least two words that can be told apart; 0 keeps all."
            )
        kept = sorted((word for word, count in counted.items() if count >= min_count),
                      key=lambda word: (-counted[word], word))  # fmt: skip
        kept = kept[:max_words] if max_words else kept
        if len(kept) < 2:
            raise DataError(_too_few(counted, kept, min_count))
        return cls(tuple(kept), np.array([counted[word] for word in kept], np.int64))

    @property
    def total(self) -> int:
        """How often its words occur in all."""
        return int(self.counts.sum())

    def __len__(self) -> int:
        return len(self.words)

    def index(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in enumerate(self.words)}


def _too_few(counted: Counter[str], kept: list[str], min_count: int) -> str:
    if not counted:
        return "there is no word in the text: give text with letters, or cut it at spaces (--words spaces)."
    word, most = counted.most_common(1)[0]
    if len(counted) == 1:
        return f"the text has one word only, {word!r}, {most} times: vectors need at least two that can be told apart."
    return (
        f"{len(kept)} of {len(counted)} words occur at least {min_count} times (the most frequent, {word!r}, {most} "
        "times), and vectors need at least two: give more text, or lower --min-count."
    )


def count_words(of: Iterable[list[str]]) -> Counter[str]:
    """How often each word occurs."""
    counted: Counter[str] = Counter()
    for words in of:
        counted.update(words)
    return counted


def encode(of: Iterable[list[str]], vocabulary: Vocabulary) -> Iterator[NDArray[np.int32]]:
    """The sentences as ids, some thousand words at a time; words outside the vocabulary are left out, END ends each.

    Leaving a word out closes the gap, so that windows reach over it, as in word2vec.c and gensim.
    """
    # One more than each id while words are looked up, so that what is false is what is not there.
    find = {word: i for i, word in enumerate(vocabulary.words, 1)}.get
    ids = array("i")
    for words in of:
        before = len(ids)
        ids.extend(filter(None, map(find, words)))
        if len(ids) > before:
            ids.append(END + 1)
        if len(ids) > LONGEST:
            yield np.array(ids, np.int32) - 1
            ids = array("i")
    if ids:
        yield np.array(ids, np.int32) - 1


def lengths(ids_N: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many words each sentence of a corpus has."""
    ends = np.flatnonzero(ids_N == END)
    return np.diff(ends, prepend=-1) - 1
