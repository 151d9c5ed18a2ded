"""WordPiece: a word is cut from the left into the longest tokens there are (Wu et al. 2016; BERT, Devlin et al. 2018)."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lineal.errors import UsageError
from lineal.tokenizers.matching import SLOTS, Matcher
from lineal.tokenizers.parts import Model
from lineal.tokenizers.wordpiece_train import Progress, Vocabulary, train_by_likelihood
from lineal.tokenizers.words import special_tokens

if TYPE_CHECKING:
    from lineal.tokenizers.corpus.counting import PieceCounts

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SCORES = ("frequency", "likelihood")


@dataclass(frozen=True)
class WordPiece(Model):
    """Longest match first: each token is the longest that starts where the last one ended; `prefix` marks those inside a word.

    unknown: the id that stands for a whole word when a part of it can't be matched, or when it is longer than
    longest_word characters. Of equal tokens the last counts. Raises UsageError where `unknown` is no id of `tokens`.
    """

    tokens: Sequence[bytes]
    unknown: int = field(kw_only=True)
    prefix: bytes = field(default=b"##", kw_only=True)
    longest_word: int = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        if not 0 <= self.unknown < len(self.tokens):
            raise UsageError(
                f"WordPiece(unknown={self.unknown}) is no id of its {len(self.tokens)} tokens, and words that can't be cut "
                "need one: add a token such as [UNK] and give its id."
            )

    def segment(self, piece: bytes) -> list[tuple[int, int, int]]:
        """(id, start, end) of each token of a word: the rule, one candidate after the other."""
        whole = [(self.unknown, 0, len(piece))]
        if characters(piece) > self.longest_word:
            return whole
        found: list[tuple[int, int, int]] = []
        start = 0
        while start < len(piece):
            front = self.prefix if start else b""
            ends = range(min(len(piece), start + self._longest), start, -1)
            fits = (end for end in ends if front + piece[start:end] in self._ids)
            end = next(fits, None)
            if end is None:
                return whole
            found.append((self._ids[front + piece[start:end]], start, end))
            start = end
        return found

    def encode(self, data: bytes, spans: array[int]) -> list[int]:
        """Ids of the pieces of a text, by the core where there is one."""
        if self._matcher:
            return self._matcher.encode(data, spans, self.longest_word, self.unknown)
        pieces = (data[spans[i] : spans[i + 1]] for i in range(0, len(spans), 2))
        return [token for piece in pieces for token in self._remembered(piece)]

    def _remembered(self, piece: bytes) -> tuple[int, ...]:
        found = self._words.get(piece)
        if found is None:
            if len(self._words) >= SLOTS:
                self._words.clear()
            found = self._words[piece] = tuple(token for token, _, _ in self.segment(piece))
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in self.__dataclass_fields__}

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {token: i for i, token in enumerate(self.tokens) if token}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.tokens))

    @cached_property
    def _words(self) -> dict[bytes, tuple[int, ...]]:
        return {}

    @cached_property
    def _matcher(self) -> Matcher | None:
        return Matcher.of(self.tokens, self.prefix)


def characters(piece: bytes) -> int:
    """How many characters UTF-8 bytes are."""
    return sum(byte & 0xC0 != 0x80 for byte in piece)


def train_wordpiece(
    counts: PieceCounts | Mapping[bytes, int],
    vocab_size: int,
    *,
    score: str = "frequency",
    special: Sequence[str] = SPECIAL,
    unknown: str = "[UNK]",
    min_frequency: int = 0,
    prefix: bytes = b"##",
    progress: Progress | None = None,
) -> WordPiece:
    """A vocabulary grown pair by pair: the best pair of neighbours in the words becomes a token, and is merged everywhere.

    score "frequency": the most frequent pair, which is BPE (what Hugging Face's trainer does). "likelihood":
    count(ab) / (count(a) count(b)), so that the likelihood of the words under a unigram model grows most (Schuster and
    Nakajima 2012); equal scores: the more frequent pair, then the lower ids. min_frequency: rarer pairs are not merged;
    with "likelihood" and 0, a pair that occurs once, of symbols that occur once, has the best score of all. Where no pair
    is left it ends with fewer tokens, and warns. progress: called with the tokens there are and vocab_size. Raises
    UsageError where vocab_size is less than the special tokens and characters, and DataError where nothing was counted or
    a piece is no UTF-8.
    """
    if score not in SCORES:
        raise UsageError(f'score="{score}" is unknown: use one of {", ".join(SCORES)}.')
    names = special_tokens(special, unknown, vocab_size)
    vocabulary = Vocabulary(counts, names, prefix)
    if len(vocabulary.tokens) > vocab_size:
        raise UsageError(
            f"vocab_size {vocab_size} is less than the {len(names)} special tokens and the characters of the text, with and "
            f"without {prefix.decode()}: give at least {len(vocabulary.tokens)}, or leave rare characters out."
        )
    if score == "likelihood":
        train_by_likelihood(vocabulary, vocab_size, min_frequency, progress)
        tokens: Sequence[bytes] = vocabulary.tokens
    else:
        from lineal.tokenizers.bpe import train_bpe

        def joined(done: int, wanted: int) -> None:
            if progress:
                progress(vocab_size - wanted + min(done, wanted), vocab_size)

        how = {"initial": "characters", "special": special, "prefix": prefix, "progress": joined}
        tokens = train_bpe(counts, vocab_size, min_frequency=min_frequency, **how).tokens
    if len(tokens) < vocab_size:
        warnings.warn(
            f"The text gives {len(tokens)} tokens, not {vocab_size}: no pair is left.", stacklevel=2
        )
    return WordPiece(tokens, unknown=names.index(unknown.encode()), prefix=prefix)
