"""The Unigram model: each piece has a probability of its own, and a text is cut where their product is largest.

T. Kudo 2018, "Subword Regularization". A text is scored by the sum of its pieces' log-probabilities; Viterbi finds the
best cut, forward filtering and backward sampling draws one in proportion to its probability.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from lineal.errors import UsageError
from lineal.native import compiled
from lineal.tokenizers.double_array import TRIE, build_trie
from lineal.tokenizers.parts import Model

CORE = "lineal.tokenizers.core.unigram"
SYMBOL = "▁".encode()
PENALTY = 10.0
"""An unknown character scores so much less than the least piece (SentencePiece's kUnkPenalty)."""
FAR = 100_000
"""A sum beyond this starts again from nothing, and so do the sums ahead of it, less as much (as SentencePiece 0.2 does)."""

Token = tuple[int, int, int]
"""An id, and where it starts and ends in the bytes of its piece."""


def single(value: float) -> float:
    """A number rounded to single precision, in which SentencePiece keeps and adds its scores."""
    return array("f", (value,))[0]


def character_at(data: bytes, at: int) -> int:
    """The end of the character that starts at a byte."""
    first = data[at]
    return min(len(data), at + 1 + (first >= 0xC0) + (first >= 0xE0) + (first >= 0xF0))


@dataclass(frozen=True, init=False)
class Unigram(Model):
    """Pieces and their scores; a text is cut into those with the largest sum.

    pieces: (bytes, score) for each id; b"" for a gap. unknown: the id of characters that no piece covers; None drops
    them. byte_fallback: the ids of the 256 bytes, which then stand for such characters. fuse_unknown: a run of them
    gives one id. user_defined: ids that always win where they occur. silent: ids that no text gives (control pieces).

    At equal scores the path stays that reached a place first, which is the one whose last token began first (and so is
    longest): SentencePiece's rule. Scores are added in single precision, as there, so that near ties fall alike.
    Raises UsageError when an id is beyond the pieces, a score is no number, or two pieces that text can give are equal.
    """

    pieces: Sequence[tuple[bytes, float]] = field(repr=False)
    unknown: int | None = None
    byte_fallback: tuple[int, ...] | None = None
    fuse_unknown: bool = True
    user_defined: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()

    def __init__(
        self,
        pieces: Sequence[tuple[bytes, float]],
        *,
        unknown: int | None = None,
        byte_fallback: Sequence[int] | None = None,
        fuse_unknown: bool = True,
        user_defined: Collection[int] = (),
        silent: Collection[int] = (),
    ):
        never = {*silent, *(byte_fallback or ()), *(() if unknown is None else (unknown,))}
        values = {
            "pieces": tuple((bytes(text), float(score)) for text, score in pieces),
            "unknown": unknown,
            "byte_fallback": None if byte_fallback is None else tuple(byte_fallback),
            "fuse_unknown": fuse_unknown,
            "user_defined": frozenset(user_defined),
            "silent": frozenset(never),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone; what is worked out from them doesn't travel between processes."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def _check(self) -> None:
        size = len(self.pieces)
        wrong = [at for at in (*self.silent, *self.user_defined) if not 0 <= at < size]
        if wrong:
            raise UsageError(
                f"id {wrong[0]} is beyond the {size} pieces of the vocabulary: give ids below {size}."
            )
        if self.byte_fallback is not None and len(self.byte_fallback) != 256:
            raise UsageError(
                f"byte_fallback has {len(self.byte_fallback)} ids: it needs one for each of 256 bytes."
            )
        for at, (text, score) in enumerate(self.pieces):
            if not math.isfinite(score):
                raise UsageError(f"piece {at} ({text!r}) has the score {score}: give a finite number.")
        if len(self._ids) < sum(
            at not in self.silent and bool(text) for at, (text, _) in enumerate(self.pieces)
        ):
            twice = [
                text for at, (text, _) in enumerate(self.pieces) if text and self._ids.get(text, at) != at
            ]
            raise UsageError(f"the piece {twice[-1]!r} stands in the vocabulary twice: give each once.")

    @cached_property
    def tokens(self) -> tuple[bytes, ...]:  # type: ignore[override]
        """The bytes of each id."""
        return tuple(text for text, _ in self.pieces)

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """What each id adds, and after them what an unknown character does.

        A user-defined piece of n bytes scores n times the largest score of the others, less .1.
        """
        plain = [
            at for at in range(len(self.pieces)) if at not in self.silent and at not in self.user_defined
        ]
        known = [single(self.pieces[at][1]) for at in plain] or [0.0]
        scores = [single(score) for _, score in self.pieces]
        for at in self.user_defined:
            scores[at] = single(len(self.pieces[at][0]) * max(known) - 0.1)
        return (*scores, single(min(known) - PENALTY))

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {text: at for at, (text, _) in enumerate(self.pieces) if text and at not in self.silent}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=0)

    def edges(self, piece: bytes, at: int) -> Iterator[tuple[int, int]]:
        """Where each token that can start at a byte ends, and its id; len(pieces) is an unknown character."""
        character = character_at(piece, at)
        covered = False
        for end in range(at + 1, min(at + self._longest, len(piece)) + 1):
            token = self._ids.get(piece[at:end])
            if token is not None:
                covered = covered or end == character
                yield end, token
        if not covered:
            yield character, len(self.pieces)

    def path(self, piece: bytes) -> list[Token]:
        """The best cut, unknown characters one by one as id len(pieces): Viterbi.

        best[j] = max over tokens from i to j of best[i] + score; the first to reach it stays unless one is better.
        """
        best = array("f", bytes(4 * (len(piece) + 1)))
        back: list[Token | None] = [None] * (len(piece) + 1)
        at = 0
        while at < len(piece):
            if abs(best[at]) > FAR:
                for end in range(at + 1, min(len(piece), at + max(4, self._longest)) + 1):
                    best[end] -= best[at]
                best[at] = 0
            for end, token in self.edges(piece, at):
                total = single(best[at] + self.scores[token])
                if back[end] is None or total > best[end]:
                    best[end], back[end] = total, (token, at, end)
            at = character_at(piece, at)
        return _walk_back(back, len(piece))

    def segment(self, piece: bytes) -> list[Token]:
        """(id, start, end) of each token of the best cut."""
        return self._said(self.path(piece), piece)

    def _said(self, path: Sequence[Token], piece: bytes) -> list[Token]:
        """What becomes of unknown characters: bytes, or the unknown id, once for a run of them if they fuse."""
        said: list[Token] = []
        for token, start, end in path:
            if token < len(self.pieces):
                said.append((token, start, end))
            elif self.byte_fallback is not None:
                said += [(self.byte_fallback[piece[at]], at, at + 1) for at in range(start, end)]
            elif self.unknown is not None:
                if self.fuse_unknown and said and said[-1][0] == self.unknown and said[-1][2] == start:
                    start = said.pop()[1]
                said.append((self.unknown, start, end))
        return said

    def encode(self, data: bytes, spans: array[int]) -> list[int]:
        """Ids of the pieces of a text, in order."""
        free = self._free
        if free is None:
            pieces = (data[start:end] for start, end in zip(spans[::2], spans[1::2]))
            return [token for piece in pieces for token, _, _ in self.segment(piece)]
        encoder = free.pop() if free else self._encoder()
        ids = encoder.encode(data, spans)
        free.append(encoder)
        return ids

    @cached_property
    def _free(self) -> list[Any] | None:
        """Encoders that no thread uses now; None where nothing is compiled."""
        return [] if compiled(CORE) and compiled(TRIE) else None

    def _encoder(self) -> Any:
        core = compiled(CORE)
        assert core is not None
        return core.Encoder(*self._flat)

    @cached_property
    def _flat(self) -> tuple[Any, ...]:
        """The vocabulary as the core takes it."""
        builder = compiled(TRIE)
        assert builder is not None
        return self.flat(builder)

    def flat(self, builder: Any) -> tuple[Any, ...]:
        """The vocabulary as arrays for `core.unigram.Encoder`. builder: `core.double_array`, in one of its forms."""
        cuts = bytearray(b"\1" * 256)
        for text in self._ids:
            at = text.find(SYMBOL, 1)
            while at > 0:
                cuts[text[at - 1]] = 0
                at = text.find(SYMBOL, at + 1)
        return (
            build_trie(list(self._ids.items()), builder),
            array("d", self.scores),
            array("i", map(len, self.tokens)),
            bytes(cuts),
            array("i", self.byte_fallback or ()),
            -1 if self.unknown is None else self.unknown,
            self.fuse_unknown,
        )

    def n_best(self, piece: bytes, count: int) -> list[tuple[list[int], float]]:
        """The `count` best cuts of a piece, or all there are, as ids and score, the best first.

        Viterbi that keeps the `count` best paths to each place; exact.
        """
        paths: list[list[tuple[float, int, int, int]]] = [[(0.0, 0, 0, 0)], *([] for _ in piece)]
        at = 0
        while at < len(piece):
            paths[at] = sorted(paths[at], key=lambda path: -path[0])[:count]
            for end, token in self.edges(piece, at):
                score = self.scores[token]
                paths[end] += [(path[0] + score, token, at, rank) for rank, path in enumerate(paths[at])]
            at = character_at(piece, at)
        paths[-1] = sorted(paths[-1], key=lambda path: -path[0])[:count]
        found = []
        for rank in range(len(paths[-1])):
            cut: list[Token] = []
            end, place = len(piece), rank
            while end > 0:
                _, token, start, before = paths[end][place]
                cut.append((token, start, end))
                end, place = start, before
            found.append(([token for token, _, _ in self._said(cut[::-1], piece)], paths[-1][rank][0]))
        return found

    def sample(
        self, data: bytes, spans: array[int], alpha: float = 1.0, seed: int | None = None
    ) -> list[int]:
        """Ids of one cut drawn with probability in proportion to exp(alpha * score): subword regularisation.

        alpha: 0 all cuts alike, larger ones nearer the best. seed: the same seed and text give the same ids.
        """
        draw = random.Random(seed).random
        ids: list[int] = []
        for start, end in zip(spans[::2], spans[1::2]):
            piece = data[start:end]
            path = self._drawn(piece, alpha, [draw() for _ in piece])
            ids += [token for token, _, _ in self._said(path, piece)]
        return ids

    def _drawn(self, piece: bytes, alpha: float, draws: Sequence[float]) -> list[Token]:
        """One cut: sums of exp(alpha score) of all paths forward, then from the end a token at a time by their shares."""
        total = [0.0, *(-math.inf for _ in piece)]
        ways: list[list[Token]] = [[] for _ in range(len(piece) + 1)]
        at = 0
        while at < len(piece):
            for end, token in self.edges(piece, at):
                total[end] = _log_add(total[end], total[at] + alpha * self.scores[token])
                ways[end].append((token, at, end))
            at = character_at(piece, at)
        drawn: list[Token] = []
        end = len(piece)
        while end > 0:
            rest = draws[len(drawn)]
            for way in ways[end]:
                rest -= math.exp(total[way[1]] + alpha * self.scores[way[0]] - total[end])
                if rest < 0:
                    break
            drawn.append(way)
            end = way[1]
        return drawn[::-1]


def _walk_back(back: Sequence[Token | None], end: int) -> list[Token]:
    path = []
    while end > 0:
        step = back[end]
        assert step is not None
        path.append(step)
        end = step[1]
    return path[::-1]


def _log_add(one: float, two: float) -> float:
    """log(exp(one) + exp(two))."""
    top = max(one, two)
    return top if top == -math.inf else top + math.log(math.exp(one - top) + math.exp(two - top))
