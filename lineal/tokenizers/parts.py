"""The separable parts of a subword tokenizer, and what each promises.

text -> normaliser -> splitter -> model -> ids, and ids -> tokens -> decoder -> text. Each part is a frozen value that knows
nothing of the others; `lineal.tokenizers.pipeline` puts them together. Text between parts is UTF-8 bytes, so that compiled
cores and Python forms see the same; positions are byte offsets, given flat: start, end, start, end, ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence


class Normaliser(ABC):
    """Text to the text that is split."""

    @abstractmethod
    def __call__(self, text: str) -> str:
        """The normalised text."""

    @abstractmethod
    def align(self, text: str) -> tuple[str, list[int]]:
        """The normalised text, and for each of its characters (and once more for its end) where it began in `text`.

        The positions never decrease. A character that was put in stands where the next one that was kept does.
        """


class Splitter(ABC):
    """Where a text is cut into pieces that no token crosses.

    before: what this way of splitting does to a text first (a space put in front, spaces made visible), or None.
    """

    before: Normaliser | None = None

    @abstractmethod
    def spans(self, data: bytes) -> array[int]:
        """The pieces of a UTF-8 text as start, end, start, end, ... (array "i"); what lies between them is dropped."""


class Model(ABC):
    """A vocabulary and how it cuts pieces into tokens.

    tokens: the bytes that each id stands for. A gap in the ids is b"". Ids of special tokens have their name.
    unknown: the id for what the vocabulary can't say, or None where it can say everything (or drops what it can't).
    """

    tokens: Sequence[bytes]
    unknown: int | None = None

    @abstractmethod
    def encode(self, data: bytes, spans: array[int]) -> list[int]:
        """Ids of the pieces of a text, in order."""

    @abstractmethod
    def segment(self, piece: bytes) -> list[tuple[int, int, int]]:
        """(id, start, end) of each token of one piece, in bytes of the piece: the obvious form of `encode`."""


class Decoder(ABC):
    """Tokens back to text."""

    @abstractmethod
    def __call__(self, tokens: Sequence[bytes]) -> str:
        """The text of tokens; bytes that are no UTF-8 become the replacement character."""
