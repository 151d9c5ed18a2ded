"""Learning the merges of BPE: which symbols there are first, and which pairs become one, the most frequent first.

Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword Units" (after Gage 1994).
`merge_pairs` is the rule; `lineal.tokenizers.core.bpe_train` is the same, compiled.
"""

from __future__ import annotations

import heapq
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

from lineal.errors import DataError, UsageError
from lineal.native import compiled
from lineal.tokenizers.corpus.counting import PieceCounts

CORE = "lineal.tokenizers.core.bpe_train"
VISIBLE = (*range(33, 127), *range(161, 173), *range(174, 256))
PRINTED = (*VISIBLE, *(byte for byte in range(256) if byte not in VISIBLE))
"""The bytes in the order of the characters that stand for them in GPT-2's files."""
CHARACTER = re.compile(rb"[\xc0-\xdf].?|[\xe0-\xef].{0,2}|[\xf0-\xff].{0,3}|.", re.DOTALL)
"""One character by its first byte; bytes that begin none are each one."""
STEP = 1000
"""Merges between two calls of `progress`."""
BEYOND = 1 << 31
"""More than there can be."""


@dataclass(frozen=True)
class BPETraining:
    """How to learn.

    initial: the symbols that words are made of first. min_frequency: pairs that occur less are not merged.
    special: tokens that come first and never out of text. unknown: the one of them for what the vocabulary can't say.
    byte_fallback: 256 tokens follow, which spell it instead. alphabet: bytes or characters that are symbols even where
    they don't occur; None is all bytes, or no character. limit: keep so many characters, the most frequent; others
    are left out of the words, as in Hugging Face's trainer.
    longest: as Hugging Face's max_token_length: a pair of so many first symbols, or more, is no longer counted.
    prefix, suffix: put before every symbol of a word but the first, and after the last.
    ties: of pairs as frequent, the one of the smallest ids ("hf": bytes have the order of GPT-2's characters; "bytes":
    their own, as in rustbpe), or of the largest texts ("text", as in subword-nmt). merges: stop after so many.
    progress: called now and then with the merges done and wanted.
    """

    initial: str = "bytes"
    min_frequency: int = 0
    special: Sequence[str] = ()
    unknown: str | None = None
    byte_fallback: bool = False
    alphabet: Sequence[str] | bytes | None = None
    limit: int | None = None
    longest: int | None = None
    suffix: bytes = b""
    prefix: bytes = b""
    ties: str = "hf"
    merges: int | None = None
    progress: Callable[[int, int], object] | None = None

    def __post_init__(self) -> None:
        for name, choices in (("initial", ("bytes", "characters")), ("ties", ("hf", "bytes", "text"))):
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name}={getattr(self, name)!r} is no choice: take one of {', '.join(choices)}."
                )
        for name, least in (("min_frequency", 0), ("limit", 1), ("longest", 1), ("merges", 0)):
            if (getattr(self, name) or least) < least or (least and getattr(self, name) == 0):
                raise UsageError(f"{name}={getattr(self, name)} can't be: give {least} or more.")
        spelled = "".join((*self.special, *(() if isinstance(self.alphabet, bytes) else self.alphabet or ())))
        if not spelled.isascii() and spelled.encode("utf-8", "replace") != spelled.encode(
            "utf-8", "surrogatepass"
        ):
            raise UsageError("special or alphabet has a lone surrogate, which is no text: remove it.")
        twice = [name for name, count in Counter(self.special).items() if count > 1 or not name]
        if twice:
            raise UsageError(f"The special token {twice[0]!r} is empty or stands twice: name each once.")
        if self.unknown is not None and self.unknown not in self.special:
            raise UsageError(
                f"unknown={self.unknown!r} is no special token: add it to special={[*self.special]}."
            )
        if self.byte_fallback and (self.prefix or self.suffix or self.initial == "bytes"):
            raise UsageError(
                "byte_fallback spells characters that have no prefix or suffix: leave one of them out."
            )


def cut(piece: bytes, initial: str) -> list[bytes]:
    """The bytes or characters of a piece."""
    return (
        CHARACTER.findall(piece) if initial == "characters" else [piece[i : i + 1] for i in range(len(piece))]
    )


@dataclass(frozen=True)
class Words:
    """What is learned from: the distinct pieces, one behind the other, and where each ends and its count."""

    data: bytes
    ends: array[int]
    counts: array[int]

    @classmethod
    def of(cls, counts: PieceCounts | Mapping[bytes, int]) -> Words:
        """The pieces that occur. Raises DataError when there are none, or when a count can't be."""
        if isinstance(counts, PieceCounts):
            found = cls(*counts.flat())
        else:
            try:
                weights = array("q", counts.values())
            except OverflowError as error:
                raise DataError("A piece's count is beyond 64 bits: count less text.") from error
            found = cls(b"".join(counts), array("q", accumulate(map(len, counts))), weights)
        if not found.data:
            raise DataError(
                "There are no pieces to learn from: give some text, or see what the splitter leaves of it."
            )
        if min(found.counts) < 1:
            found = cls.of(
                {piece: count for piece, count in zip(found, found.counts) if found.positive(piece, count)}
            )
        if sum(found.counts) * found.longest >= 1 << 62 or len(found.data) >= 1 << 29:
            raise UsageError(
                f"{len(found.counts)} distinct pieces of {len(found.data)} bytes, {sum(found.counts)} in all, are more "
                "than can be counted: split the text into shorter pieces, or cap what is counted."
            )
        return found

    @property
    def longest(self) -> int:
        """The bytes of the longest piece."""
        return max(map(int.__sub__, self.ends, chain((0,), self.ends)))

    @staticmethod
    def positive(piece: bytes, count: int) -> bool:
        """Whether a piece occurs; raises DataError for a count below 0."""
        if count < 0:
            raise DataError(f"The piece {piece!r} has the count {count}: counts start at 0.")
        return count > 0

    def __iter__(self):
        return (self.data[start:end] for start, end in pairwise((0, *self.ends)))


@dataclass(frozen=True)
class Symbols:
    """The symbols before any merge: special tokens, the bytes to fall back on, the alphabet, and its affixed forms."""

    special: tuple[bytes, ...]
    fallback: tuple[bytes, ...]
    alphabet: tuple[bytes, ...]
    affixed: tuple[bytes, ...]

    @property
    def all(self) -> list[bytes]:
        """Every symbol, by id."""
        return [*self.special, *self.fallback, *self.alphabet, *self.affixed]

    @property
    def ids(self) -> dict[bytes, int]:
        """The ids of the symbols that text is made of."""
        first = len(self.special) + len(self.fallback)
        return {symbol: first + i for i, symbol in enumerate((*self.alphabet, *self.affixed))}

    def word(self, piece: bytes, how: BPETraining) -> list[bytes]:
        """A piece as symbols; what the alphabet lacks is left out."""
        parts = cut(piece, how.initial)
        known, last = set(self.alphabet), len(parts) - 1
        return [affix(part, i, last, how) for i, part in enumerate(parts) if part in known]


def affix(part: bytes, i: int, last: int, how: BPETraining) -> bytes:
    """The symbol number i of a word, with its prefix and suffix."""
    return (how.prefix if i else b"") + part + (how.suffix if i == last else b"")


def first_symbols(words: Words, how: BPETraining) -> Symbols:
    """Which symbols there are before any merge, in the order of their ids."""
    always: list[bytes]
    if isinstance(how.alphabet, bytes):
        always = cut(how.alphabet, how.initial)
    elif how.alphabet is not None:
        always = [part for text in how.alphabet for part in cut(text.encode(), how.initial)]
    else:
        always = [bytes([byte]) for byte in range(256)] if how.initial == "bytes" else []
    seen: Counter[bytes] = Counter()
    plain = how.initial == "bytes" and how.limit is None
    if plain:
        seen.update(bytes([byte]) for byte in set(words.data))
    else:
        for piece, count in zip(words, words.counts):
            for part in cut(piece, how.initial):
                seen[part] += count
    kept = {*always, *seen}
    if how.limit is not None and len(kept) > how.limit:
        ranked = sorted(kept, key=lambda part: (part not in always, -seen[part], part))
        kept = set(ranked[: how.limit])
    order = {bytes([byte]): i for i, byte in enumerate(PRINTED)}
    by_print = how.initial == "bytes" and how.ties == "hf"
    alphabet = tuple(sorted(kept, key=(lambda part: order[part]) if by_print else None))
    affixed = () if not how.prefix and not how.suffix else affixes(words, kept, how)
    fallback = tuple(bytes([byte]) for byte in range(256)) if how.byte_fallback else ()
    special = tuple(name.encode() for name in how.special)
    clash = {*special} & {*alphabet, *affixed}
    if clash:
        raise UsageError(
            f"The special token {clash.pop()!r} is a symbol of the text too: give it a longer name."
        )
    return Symbols(special, fallback, alphabet, affixed)


def affixes(words: Words, kept: set[bytes], how: BPETraining) -> tuple[bytes, ...]:
    """The symbols with prefix or suffix that occur; in the order of their bytes (Hugging Face's changes from run to run)."""
    found: set[bytes] = set()
    for piece in words:
        parts = cut(piece, how.initial)
        found.update(affix(part, i, len(parts) - 1, how) for i, part in enumerate(parts) if part in kept)
    return tuple(sorted(found - kept))


def learn(
    words: Words, symbols: Symbols, most: int, how: BPETraining
) -> tuple[list[bytes], list[tuple[int, int]]]:
    """All tokens, and the merges that made them, in the order in which they were learned."""
    core = compiled(CORE)
    first, ids = symbols.all, symbols.ids
    # No corpus gives as many tokens as the core can number.
    limit = min(most, BEYOND if how.merges is None else len(first) + how.merges, BEYOND)
    if core is None:
        pieces = [[ids[part] for part in symbols.word(piece, how)] for piece in words]
        return merge_pairs(pieces, words.counts, first, limit, how)
    if how.initial == "bytes" and not symbols.affixed and len(symbols.alphabet) == 256:
        table = array("i", (ids[bytes([byte])] for byte in range(256)))
        cells = core.laid_out(words.data, words.ends, table)
    else:
        flat = array("i")
        for number, piece in enumerate(words):
            for part in symbols.word(piece, how):
                flat.extend((ids[part], 0, 0, number))
        cells = memoryview(flat)
    room = min(limit, len(first) + len(cells) // 4)
    wanted = limit - len(first) if how.merges is None else how.merges
    pairs = core.Pairs(
        cells,
        memoryview(words.counts),
        b"".join(first),
        [*accumulate(map(len, first))],
        room,
        len(symbols.special) + len(symbols.fallback),
        how.prefix,
        BEYOND if how.longest is None else min(how.longest, BEYOND),
        how.ties == "text",
    )
    # A merge that makes a token there was already adds none, so that there may be more merges than new tokens.
    done, cap, least = 0, len(cells) if how.merges is None else how.merges, min(how.min_frequency, 1 << 62)
    more, merges = cap > 0, dict.fromkeys(())
    while more:
        steps = min(STEP, cap - (len(merges) or done))
        more = pairs.run(limit, least, steps)
        done += steps
        if how.progress is not None and more:
            how.progress(min(done, wanted), wanted)
        if done >= cap:
            # A pair whose parts were made once more is merged again, but is one merge.
            made = pairs.found()[0]
            merges = dict.fromkeys(zip(made[0::3], made[1::3]))
            more = more and len(merges) < cap
    made, text, ends = pairs.found()
    merges = list(dict.fromkeys(zip(made[0::3], made[1::3])))
    if how.progress is not None:
        how.progress(len(merges), wanted)
    tokens = [text[start:end] for start, end in pairwise((0, *ends))]
    return tokens, merges


def merge_pairs(
    pieces: Sequence[list[int]], counts: Iterable[int], first: list[bytes], most: int, how: BPETraining
) -> tuple[list[bytes], list[tuple[int, int]]]:
    """The rule: merge the most frequent pair of neighbours everywhere, again and again, until there are `most` tokens.

    pieces: as ids of `first`; they are changed. Pairs are counted at every place, also where they overlap.
    """
    tokens, weights = list(first), list(counts)
    known = {token: i for i, token in reversed([*enumerate(tokens)])}
    spans, protected = [1] * len(tokens), len(how.special) + 256 * how.byte_fallback
    frequency: Counter[tuple[int, int]] = Counter()
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for i, piece in enumerate(pieces):
        for pair in pairwise(piece):
            frequency[pair] += weights[i]
            places[pair].add(i)

    def entry(pair: tuple[int, int]) -> tuple[int, tuple, tuple[int, int]]:
        by_text = tuple((*(-byte for byte in tokens[part]), 1) for part in pair) if how.ties == "text" else ()
        return -frequency[pair], by_text, pair

    heap = [entry(pair) for pair in frequency]
    heapq.heapify(heap)
    merges: dict[tuple[int, int], int] = {}
    while heap and len(tokens) < most and (how.merges is None or len(merges) < how.merges):
        count, _, pair = heap[0]
        if -count != frequency[pair]:
            heapq.heapreplace(heap, entry(pair))
            continue
        if -count < max(how.min_frequency, 1):
            break
        heapq.heappop(heap)
        where, result = places.pop(pair), spell(pair, tokens, how.prefix)
        new = known.get(result, len(tokens))
        if new >= protected and new not in pair:
            if new == len(tokens):
                known[result] = new
                tokens.append(result)
                spans.append(spans[pair[0]] + spans[pair[1]])
            merges[pair] = new
            grown = set()
            for i in where:
                for near, sign in replace(pieces[i], pair, new):
                    if sign < 0 or how.longest is None or spans[near[0]] + spans[near[1]] < how.longest:
                        frequency[near] += sign * weights[i]
                        if sign > 0:
                            places[near].add(i)
                            grown.add(near)
            for near in grown:
                heapq.heappush(heap, entry(near))
        frequency[pair] = 0
    return tokens, [*merges]


def spell(pair: tuple[int, int], tokens: Sequence[bytes], prefix: bytes) -> bytes:
    """The bytes of two tokens as one: the right one's prefix goes."""
    return tokens[pair[0]] + tokens[pair[1]].removeprefix(prefix)


def replace(piece: list[int], pair: tuple[int, int], new: int) -> list[tuple[tuple[int, int], int]]:
    """Merge a pair in a piece from left to right; the pairs that went (-1) and came (1)."""
    changes = []
    i = 0
    while i < len(piece) - 1:
        if (piece[i], piece[i + 1]) == pair:
            if i > 0:
                changes += [((piece[i - 1], pair[0]), -1), ((piece[i - 1], new), 1)]
            if i + 2 < len(piece):
                changes += [((pair[1], piece[i + 2]), -1), ((new, piece[i + 2]), 1)]
            piece[i : i + 2] = [new]
        i += 1
    return changes
