"""Word level: every piece is one token, or unknown."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lineal.errors import DataError, UsageError
from lineal.tokenizers.base import utf8
from lineal.tokenizers.matching import Matcher
from lineal.tokenizers.parts import Model

if TYPE_CHECKING:
    from lineal.tokenizers.corpus.counting import PieceCounts

LONGEST = 1 << 62


@dataclass(frozen=True)
class WordLevel(Model):
    """A list of words. Of equal words the last counts.

    unknown: the id of what is not in the list; with None, encoding such a piece raises DataError that names it. Raises
    UsageError where `unknown` is no id of `tokens`.
    """

    tokens: Sequence[bytes]
    unknown: int | None = field(kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        if self.unknown is not None and not 0 <= self.unknown < len(self.tokens):
            raise UsageError(
                f"WordLevel(unknown={self.unknown}) is no id of its {len(self.tokens)} tokens: add a token such as [UNK] and "
                "give its id, or give None to have unknown words refused."
            )

    def segment(self, piece: bytes) -> list[tuple[int, int, int]]:
        """(id, 0, its length) of a piece; nothing of an empty one."""
        if not piece:
            return []
        token = self._ids.get(piece, self.unknown)
        if token is None:
            raise DataError(
                f"{piece.decode(errors='replace')!r} is not in the vocabulary, which has no unknown token: add one to the "
                "vocabulary, or train on text that has the word."
            )
        return [(token, 0, len(piece))]

    def encode(self, data: bytes, spans: array[int]) -> list[int]:
        """Ids of the pieces of a text, by the core where there is one."""
        if self._matcher:
            none = len(self.tokens)
            found = self._matcher.encode(data, spans, LONGEST, none if self.unknown is None else self.unknown)
            if self.unknown is not None or none not in found:
                return found
        pieces = (data[spans[i] : spans[i + 1]] for i in range(0, len(spans), 2))
        return [token for piece in pieces for token, _, _ in self.segment(piece)]

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in self.__dataclass_fields__}

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {token: i for i, token in enumerate(self.tokens) if token}

    @cached_property
    def _matcher(self) -> Matcher | None:
        # A prefix longer than every token: none of them goes on with a word.
        return Matcher.of(self.tokens, b"#" * (1 + max(map(len, self.tokens), default=0)))


def train_words(
    counts: PieceCounts | Mapping[bytes, int],
    vocab_size: int,
    *,
    min_frequency: int = 0,
    special: Sequence[str] = ("[UNK]",),
    unknown: str | None = "[UNK]",
    progress: Callable[[int, int], None] | None = None,
) -> WordLevel:
    """The special tokens, then the most frequent pieces; of equally frequent ones the first in the order of their bytes.

    min_frequency: rarer pieces are left out. unknown: which special token stands for unknown words, None for none of
    them. progress: called with the tokens there are and vocab_size. Raises UsageError where there is no room for a word,
    or `unknown` is not special, and DataError where no piece was counted.
    """
    names = special_tokens(special, unknown, vocab_size)
    seen = set(names)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [piece for piece, count in ordered if count >= min_frequency and piece and piece not in seen]
    if not words:
        raise DataError(NOTHING)
    tokens = [*names, *words][:vocab_size]
    if progress:
        progress(len(tokens), vocab_size)
    return WordLevel(tokens, unknown=None if unknown is None else names.index(unknown.encode()))


NOTHING = (
    "No piece was counted that could become a token: give text that is not empty, or a lower min_frequency."
)


def special_tokens(special: Sequence[str], unknown: str | None, vocab_size: int) -> list[bytes]:
    """Special tokens as bytes, each once. Raises UsageError where they leave no room, or `unknown` is not among them."""
    names = [utf8(name) for name in dict.fromkeys(special)]
    if unknown is not None and unknown not in special:
        raise UsageError(
            f"The unknown token {unknown!r} is not among the special tokens ({', '.join(special) or 'none'}): add it to "
            "`special`, or give another as `unknown`."
        )
    if vocab_size < len(names) + 1:
        raise UsageError(
            f"vocab_size {vocab_size} leaves no room beside {len(names)} special tokens: give at least {len(names) + 1}."
        )
    return names
