"""How a WordPiece vocabulary grows by likelihood: the rule in Python, and the core that does the same."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING

from lineal import native
from lineal.errors import DataError
from lineal.tokenizers.words import NOTHING

if TYPE_CHECKING:
    from lineal.tokenizers.corpus.counting import PieceCounts

Progress = Callable[[int, int], None]
Words = list[tuple[list[int], int]]


@cache
def _core() -> ModuleType | None:
    return native.compiled("lineal.tokenizers.core.wordpiece_train")


class Vocabulary:
    """The tokens so far, and the words in symbols of them.

    First the special tokens; then the characters, in the order of their code points; then those found inside words, with
    the prefix, in the same order. Raises DataError for a piece that is no UTF-8, or where there is none.
    """

    def __init__(self, counts: PieceCounts | Mapping[bytes, int], special: Sequence[bytes], prefix: bytes):
        self.prefix = prefix
        texts = [(_text(piece), count) for piece, count in counts.items() if piece and count > 0]
        if not texts:
            raise DataError(NOTHING)
        inside = {character for text, _ in texts for character in text[1:]}
        characters = inside | {text[0] for text, _ in texts}
        self.tokens = list(special)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        starts = {character: self.add(character.encode()) for character in sorted(characters)}
        goes_on = {character: self.add(prefix + character.encode()) for character in sorted(inside)}
        self.words: Words = [
            ([starts[text[0]], *(goes_on[character] for character in text[1:])], count)
            for text, count in texts
        ]

    def add(self, token: bytes) -> int:
        """The id of a token, which is new or there already."""
        if token not in self.ids:
            self.ids[token] = len(self.tokens)
            self.tokens.append(token)
        return self.ids[token]

    def join(self, left: int, right: int) -> int:
        """The id of a token made of two, the prefix of the second left out."""
        return self.add(self.tokens[left] + self.tokens[right].removeprefix(self.prefix))


def _text(piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"The piece {piece[:40]!r} is no UTF-8 (byte {error.start}), and WordPiece joins characters: count text, or train "
            "a byte-level tokenizer."
        ) from None


def train_by_likelihood(
    vocabulary: Vocabulary, vocab_size: int, min_frequency: int, progress: Progress | None
) -> None:
    """Grow the vocabulary, by the core where there is one and it has room."""
    core = _core()
    if core is None or _too_large(vocabulary, core.LIMIT):
        merge_plainly(vocabulary, vocab_size, min_frequency, progress=progress)
    else:
        merge_by_core(core, vocabulary, vocab_size, min_frequency, progress)


def likelihood(both: int, left: int, right: int) -> Fraction:
    """count(ab) / (count(a) count(b))."""
    return Fraction(both, left * right)


def merge_plainly(
    vocabulary: Vocabulary,
    vocab_size: int,
    min_frequency: int,
    score: Callable[[int, int, int], Fraction | int] = likelihood,
    progress: Progress | None = None,
) -> None:
    """Training by the rule: count everything again, take the best pair, merge it from the left in every word."""
    while len(vocabulary.tokens) < vocab_size:
        pairs: Counter[tuple[int, int]] = Counter()
        symbols: Counter[int] = Counter()
        for word, count in vocabulary.words:
            for symbol in word:
                symbols[symbol] += count
            for pair in pairwise(word):
                pairs[pair] += count
        frequent = [pair for pair in pairs if pairs[pair] >= min_frequency]
        if not frequent:
            return

        scores = {(a, b): score(pairs[a, b], symbols[a], symbols[b]) for a, b in frequent}
        _, _, (left, right) = min((-scores[pair], -pairs[pair], pair) for pair in frequent)
        token = vocabulary.join(left, right)
        vocabulary.words = [(_merged(word, left, right, token), count) for word, count in vocabulary.words]
        if progress:
            progress(len(vocabulary.tokens), vocab_size)


def _merged(word: list[int], left: int, right: int, token: int) -> list[int]:
    made: list[int] = []
    at = 0
    while at < len(word):
        found = word[at : at + 2] == [left, right]
        made.append(token if found else word[at])
        at += 1 + found
    return made


def merge_by_core(
    core: ModuleType,
    vocabulary: Vocabulary,
    vocab_size: int,
    min_frequency: int,
    progress: Progress | None = None,
) -> None:
    """The same by the core; the vocabulary's words stay as they are."""
    symbols, ends = array("i"), array("q")
    for word, _ in vocabulary.words:
        symbols.extend(word)
        ends.append(len(symbols))
    weights = array("q", (count for _, count in vocabulary.words))
    merger = core.Merger(symbols, ends, weights, vocab_size, min_frequency)
    while len(vocabulary.tokens) < vocab_size and (pair := merger.best()) >= 0:
        merger.merge(pair, vocabulary.join(*merger.symbols_of(pair)))
        if progress:
            progress(len(vocabulary.tokens), vocab_size)


def _too_large(vocabulary: Vocabulary, limit: int) -> bool:
    """Whether counts, or places, go beyond what the core can hold."""
    total = sum(len(word) * count for word, count in vocabulary.words)
    return total >= limit or 3 * sum(len(word) for word, _ in vocabulary.words) >= 1 << 31
