"""From tokens back to text: one small rule each, as the vocabularies in use need them.

The reference form of a rule is `chain`: tokens in, tokens out, in UTF-8 bytes. Decoding a long text goes through
`DecodeTable`, which works out once what each token becomes, so that a text is one look-up per token and one join.
The rules and their order are those of Hugging Face's `tokenizers`, whose results are the tests' oracle.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from lineal.native import compiled
from lineal.tokenizers.parts import Decoder

REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
_BYTE = re.compile(rb"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")
_CLEAN = [
    (b" .", b"."), (b" ?", b"?"), (b" !", b"!"), (b" ,", b","), (b" ' ", b"'"), (b" n't", b"n't"), (b" 'm", b"'m"),
    (b" do not", b" don't"), (b" 's", b"'s"), (b" 've", b"'ve"), (b" 're", b"'re"),
]  # fmt: skip


class Rule(Decoder):
    """A rule that looks at one token at a time, and at whether it is the first or the last."""

    def piece(self, token: bytes, first: bool, last: bool) -> bytes:
        """What one token becomes."""
        raise NotImplementedError

    def chain(self, tokens: list[bytes]) -> list[bytes]:
        """What each token becomes."""
        end = len(tokens) - 1
        return [self.piece(token, i == 0, i == end) for i, token in enumerate(tokens)]

    def __call__(self, tokens: Sequence[bytes]) -> str:
        """The text of tokens; bytes that are no UTF-8 become the replacement character."""
        return b"".join(self.chain(list(tokens))).decode("utf-8", "replace")


@dataclass(frozen=True)
class ByteLevel(Rule):
    """Tokens are raw bytes: they are put together, and what is no UTF-8 becomes the replacement character."""

    def chain(self, tokens: list[bytes]) -> list[bytes]:
        """One token: the text."""
        return [b"".join(tokens).decode("utf-8", "replace").encode()]


@dataclass(frozen=True)
class WordPieceDecoder(Rule):
    """A space before each token but the first, unless it continues a word: then its prefix goes.

    cleanup: take out the space before punctuation and English contractions (and write "do not" as "don't", as BERT's
    tools do).
    """

    prefix: str = "##"
    cleanup: bool = True

    def piece(self, token: bytes, first: bool, last: bool) -> bytes:
        """What one token becomes."""
        if not first:
            prefix = self.prefix.encode()
            token = token[len(prefix) :] if token.startswith(prefix) else b" " + token
        if self.cleanup:
            for old, new in _CLEAN:
                token = token.replace(old, new)
        return token


@dataclass(frozen=True)
class MetaspaceDecoder(Rule):
    """The symbol becomes a space; in the first token it is dropped, unless nothing was put in front (`prepend`)."""

    symbol: str = "▁"
    prepend: str = "always"

    def piece(self, token: bytes, first: bool, last: bool) -> bytes:
        """What one token becomes."""
        return token.replace(self.symbol.encode(), b"" if first and self.prepend != "never" else b" ")


@dataclass(frozen=True)
class ByteFallback(Rule):
    """Tokens like <0x0A> are bytes; a run of them that is no UTF-8 gives one replacement character for each."""

    def piece(self, token: bytes, first: bool, last: bool) -> bytes:
        """The byte that a token stands for, else the token."""
        found = _BYTE.fullmatch(token)
        return bytes([int(found[1], 16)]) if found else token

    def chain(self, tokens: list[bytes]) -> list[bytes]:
        """Runs of bytes become one token each."""
        parts: list[bytes] = []
        run = bytearray()
        for token in [*tokens, None]:
            if token is not None and _BYTE.fullmatch(token):
                run += self.piece(token, False, False)
                continue
            if run:
                parts += _text_or_marks(bytes(run))
                run.clear()
            if token is not None:
                parts.append(token)
        return parts


def _text_or_marks(run: bytes) -> list[bytes]:
    try:
        return [run.decode().encode()]
    except UnicodeDecodeError:
        return [REPLACEMENT] * len(run)


@dataclass(frozen=True)
class Fuse(Rule):
    """All tokens become one, so that the rules behind see the whole text."""

    def chain(self, tokens: list[bytes]) -> list[bytes]:
        """One token."""
        return [b"".join(tokens)]


@dataclass(frozen=True)
class Replace(Rule):
    """One string becomes another in each token."""

    old: str
    new: str

    def piece(self, token: bytes, first: bool, last: bool) -> bytes:
        """What one token becomes."""
        return token.replace(self.old.encode(), self.new.encode())


@dataclass(frozen=True)
class Strip(Rule):
    """At most `start` times a character is taken from the front of each token, and `stop` times from its end."""

    character: str
    start: int = 0
    stop: int = 0

    def piece(self, token: bytes, first: bool, last: bool) -> bytes:
        """What one token becomes."""
        mark, front, back = self.character.encode(), 0, 0
        while front < self.start and token.startswith(mark, front * len(mark)):
            front += 1
        token = token[front * len(mark) :]
        while back < self.stop and token.endswith(mark):
            token, back = token[: -len(mark)], back + 1
        return token


@dataclass(frozen=True)
class BPEDecoder(Rule):
    """The mark of a word's end becomes a space, and nothing in the last token."""

    suffix: str = "</w>"

    def piece(self, token: bytes, first: bool, last: bool) -> bytes:
        """What one token becomes."""
        return token.replace(self.suffix.encode(), b"" if last else b" ")


@dataclass(frozen=True)
class Spaced(Rule):
    """Tokens with a space between them: what is done where a tokenizer has no decoder."""

    def piece(self, token: bytes, first: bool, last: bool) -> bytes:
        """What one token becomes."""
        return token if first else b" " + token


@dataclass(frozen=True)
class Decoders(Rule):
    """Rules one after the other."""

    parts: tuple[Rule, ...]

    def flat(self) -> tuple[Rule, ...]:
        """Its rules, and those of chains within it."""
        parts = (part.flat() if isinstance(part, Decoders) else (part,) for part in self.parts)
        return tuple(chain.from_iterable(parts))

    def chain(self, tokens: list[bytes]) -> list[bytes]:
        """What the last rule leaves."""
        for part in self.parts:
            tokens = part.chain(tokens)
        return tokens


class DecodeTable:
    """A decoder over one vocabulary: what each id becomes is worked out once.

    tokens: the bytes of each id. silent: ids that are left out (special tokens). Ids beyond the vocabulary are passed over.
    Equal to `decoder(tokens of ids)` always: a text for which looking up would not be (bytes that are no UTF-8, an
    unusual order of rules) is decoded rule by rule.
    """

    def __init__(self, decoder: Rule, tokens: Sequence[bytes], silent: Collection[int] = ()):
        self._decoder, self._tokens, self._silent = decoder, tokens, frozenset(silent)
        parts = decoder.flat() if isinstance(decoder, Decoders) else (decoder,)
        cut = next((i for i, part in enumerate(parts) if isinstance(part, (Fuse, ByteLevel))), len(parts))
        self._each, self._whole = parts[:cut], parts[cut:]
        self._lossy = cut < len(parts) and isinstance(parts[cut], ByteLevel)
        self._tabled = _may_be_tabled(self._each)
        self._placed = any(
            isinstance(part, (WordPieceDecoder, MetaspaceDecoder, BPEDecoder, Spaced)) for part in self._each
        )
        self._tail = self._whole[1:]
        pieces = [self._piece(token, False, False) for token in tokens] if self._each else list(tokens)
        for i in self._silent:
            pieces[i] = b""
        self._join = _Joiner(pieces)

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        if not isinstance(ids, list):
            ids = list(ids)
        if not self._tabled:
            return self._slowly(ids)
        data = self._joined_by_place(ids) if self._placed else self._join(ids)
        if self._lossy:
            text = data.decode("utf-8", "replace")
        else:
            try:
                text = data.decode()
            except UnicodeDecodeError:
                return self._slowly(ids)
        if not self._tail:
            return text
        return b"".join(Decoders(self._tail).chain([text.encode()])).decode("utf-8", "replace")

    def _joined_by_place(self, ids: list[int]) -> bytes | bytearray:
        first, last, tokens, silent = 0, len(ids) - 1, self._tokens, self._silent
        while first <= last and (not 0 <= ids[first] < len(tokens) or ids[first] in silent):
            first += 1
        while first <= last and (not 0 <= ids[last] < len(tokens) or ids[last] in silent):
            last -= 1
        if first > last:
            return b""
        if first == last:
            return self._piece(tokens[ids[first]], True, True)
        start, end = self._piece(tokens[ids[first]], True, False), self._piece(tokens[ids[last]], False, True)
        return start + self._join(ids[first + 1 : last]) + end

    def _slowly(self, ids: list[int]) -> str:
        tokens, silent = self._tokens, self._silent
        return self._decoder([tokens[i] for i in ids if 0 <= i < len(tokens) and i not in silent])

    def _piece(self, token: bytes, first: bool, last: bool) -> bytes:
        for part in self._each:
            token = part.piece(token, first, last)
        return token


def _may_be_tabled(parts: tuple[Rule, ...]) -> bool:
    # Behind byte fallback a rule would see runs of bytes as one token.
    return not any(isinstance(part, ByteFallback) for part in parts[:-1])


class _Joiner:
    """Bytes of ids put together, a look-up each; ids without a piece are passed over."""

    def __init__(self, pieces: list[bytes]):
        self._pieces, self._core = pieces, compiled("lineal.tokenizers.core.join")
        if self._core is not None:
            # The core reads sixteen bytes at a time.
            self._data = b"".join(pieces) + bytes(16)
            self._start = array("q", accumulate(map(len, pieces), initial=0))

    def __call__(self, ids: list[int]) -> bytes | bytearray:
        try:
            if self._core is not None:
                return self._core.join(ids, self._data, self._start)
            if min(ids, default=0) >= 0:
                return b"".join(map(self._pieces.__getitem__, ids))
        except (IndexError, OverflowError):
            pass
        pieces, size = self._pieces, len(self._pieces)
        return b"".join([pieces[i] for i in ids if 0 <= i < size])
