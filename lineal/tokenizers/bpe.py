"""Byte-pair encoding: symbols are merged pair by pair, in the order in which the merges were learned.

Sennrich, Haddow and Birch 2016; on bytes, Radford et al. 2019 (GPT-2). `BPE.segment` is the rule;
`lineal.tokenizers.core.bpe_encode` does the same with a cache of pieces.
"""

from __future__ import annotations

import heapq
import random
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

from lineal.errors import DataError, ModelError, UsageError
from lineal.native import compiled
from lineal.tokenizers.bpe_learn import BPETraining, Words, cut, first_symbols, learn, spell
from lineal.tokenizers.corpus.counting import PieceCounts
from lineal.tokenizers.parts import Model
from lineal.tokenizers.piece_table import outside

TABLES, ENCODER = "lineal.tokenizers.core.bpe_tables", "lineal.tokenizers.core.bpe_encode"
CACHE = 16
"""An encoder's cache has 2 << CACHE lines of 32 bytes, and as many of 64 bytes that are touched only where needed."""
SHORT, BLOCK = 1 << 15, 1 << 18
"""Texts of fewer than SHORT bytes go to a thread together, up to BLOCK bytes."""
Token = tuple[int, int, int]
"""An id, and where it starts and ends in the bytes of its piece."""


@dataclass(frozen=True)
class BPE(Model):
    """A vocabulary and its merges; of all neighbours that can merge, those of the first merge do, the leftmost first.

    tokens: the bytes of each id, b"" for a gap; of two with the same bytes, text gives the first. merges: pairs of ids;
    a pair makes the token that has the bytes of both (less the right one's prefix). initial: what a piece is made of
    first, bytes or characters; `prefix` is put before each but a piece's first, `suffix` after its last.
    A symbol that is no token is spelled by `byte_fallback` (the ids of the 256 bytes), else becomes `unknown`, a run
    of them only one with `fuse_unknown`; where that is None it is dropped, as in Hugging Face's.
    ignore_merges: a piece that is a token is that token (Llama 3). by_rank: there are no merges; any two neighbours
    whose bytes together are a token merge, the lowest id first. tiktoken's rule is both of these.
    dropout: each merge is passed over with this probability whenever it could be made (Provilkov et al. 2020).
    silent: ids that text never gives: special tokens; those of byte_fallback are silent too, but as fallback.

    Raises ModelError, saying which merge or id, when an id is out of range, a merge gives no token or one of its own
    parts, or stands twice.
    """

    tokens: Sequence[bytes] = field(repr=False)
    merges: Sequence[tuple[int, int]] = field(repr=False)
    _: KW_ONLY
    initial: str
    unknown: int | None = None
    byte_fallback: tuple[int, ...] | None = None
    fuse_unknown: bool = False
    suffix: bytes = b""
    prefix: bytes = b""
    ignore_merges: bool = False
    by_rank: bool = False
    dropout: float = 0.0
    silent: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for name in ("tokens", "merges"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "silent", frozenset(self.silent))
        self._check()
        # One of the two checks the merges.
        _ = self._core or self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, ({item.name: getattr(self, item.name) for item in fields(self)},)

    def _check(self) -> None:
        """Raise ModelError for what can't be, merges aside."""
        size = len(self.tokens)
        named = {"unknown": () if self.unknown is None else (self.unknown,), "silent": self.silent}
        for name, ids in (named | {"byte_fallback": self.byte_fallback or ()}).items():
            wrong = [i for i in ids if not 0 <= i < size]
            if wrong:
                raise ModelError(
                    f"{name} has the id {wrong[0]}, and there are {size} tokens: add it, or mend the id."
                )
        if self.byte_fallback is not None and (len(self.byte_fallback) != 256 or self.prefix or self.suffix):
            raise ModelError(
                "byte_fallback needs the ids of all 256 bytes, and symbols without prefix and suffix."
            )
        if self.initial not in ("bytes", "characters"):
            raise ModelError(
                f"initial={self.initial!r} is no choice: pieces are made of bytes or characters first."
            )
        if self.by_rank and self.merges:
            raise ModelError("by_rank merges whatever makes a token: leave the merges out, or by_rank.")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout={self.dropout} is no probability below 1.")

    def _refuse(self, number: int, problem: int) -> ModelError:
        """Why the merge of this number can't be."""
        pair = self.merges[number]
        if problem == 1:
            why = f"an id is out of range, as there are {len(self.tokens)} tokens"
        else:
            left, right = (self.tokens[part] for part in pair)
            result = spell(pair, self.tokens, self.prefix)
            why = f"{left!r} + {right!r}: " + {
                2: f"{result!r} is no token",
                3: "one of them is empty, or what they make is one of them, so that it would go on for ever",
                4: "it stands twice",
            }.get(problem, "")
        return ModelError(
            f"merge {number + 1} of {len(self.merges)}, {pair}, can't be: {why}; mend the file or the list."
        )

    def _tables(self, core: Any) -> Any:
        """The core's tables."""
        text = b"".join(self.tokens)
        ends = memoryview(array("q", accumulate(map(len, self.tokens))))
        hidden = bytearray(len(self.tokens))
        for i in self._hidden:
            hidden[i] = 1
        tables = core.Tables(
            text, ends, bytes(hidden), (self.prefix, self.suffix), self.initial == "characters"
        )
        if self.by_rank:
            tables.ranks()
        else:
            try:
                pairs = array("i", chain.from_iterable(self.merges))
            except OverflowError:
                far = (
                    i for i, pair in enumerate(self.merges) if not all(-1 < part < 1 << 31 for part in pair)
                )
                raise self._refuse(next(far), 1) from None
            wrong, problem = tables.merges(memoryview(pairs))
            if problem:
                raise self._refuse(wrong, problem)
        return tables.arrays(), text, ends, list(range(len(self.tokens)))

    @cached_property
    def _core(self) -> tuple[Any, Any] | None:
        """The tables of the core, and the core; None where nothing is compiled."""
        tables, encode = compiled(TABLES), compiled(ENCODER)
        return (self._tables(tables), encode) if tables and encode else None

    @cached_property
    def _encoders(self) -> list[Any]:
        """Encoders that no thread uses now."""
        return []

    @cached_property
    def _hidden(self) -> frozenset[int]:
        return self.silent | frozenset(self.byte_fallback or ())

    @cached_property
    def _index(self) -> dict[bytes, int]:
        """The ids that text gives, by their bytes."""
        found: dict[bytes, int] = {}
        for i, token in enumerate(self.tokens):
            if token and i not in self._hidden:
                found.setdefault(token, i)
        return found

    @cached_property
    def _made(self) -> dict[tuple[int, int], tuple[int, int]]:
        """The rank of each merge, and what it makes."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, pair in enumerate(self.merges):
            if not all(0 <= part < len(self.tokens) for part in pair):
                raise self._refuse(rank, 1)
            left, right = (self.tokens[part] for part in pair)
            result = self._index.get(spell(pair, self.tokens, self.prefix))
            if result in pair or not left or not right.removeprefix(self.prefix):
                raise self._refuse(rank, 3)
            if result is None or pair in found:
                raise self._refuse(rank, 2 if result is None else 4)
            found[pair] = rank, result
        return found

    def _make(self, left: int, right: int) -> tuple[int, int] | None:
        """The rank and result of a merge, None where there is none."""
        if not self.by_rank:
            return self._made.get((left, right))
        # An unknown token may be a gap, or spelled like another.
        if any(self._index.get(self.tokens[part]) != part for part in (left, right)):
            return None
        result = self._index.get(self.tokens[left] + self.tokens[right])
        return None if result is None else (result, result)

    def _symbols(self, piece: bytes) -> Iterator[Token]:
        """The symbols of a piece before any merge."""
        parts, start, unknown = cut(piece, self.initial), 0, -1
        for i, part in enumerate(parts):
            end = start + len(part)
            symbol = (self.prefix if i else b"") + part + (self.suffix if i == len(parts) - 1 else b"")
            found = self._index.get(symbol)
            if (found is not None or self.byte_fallback) and unknown >= 0:
                yield self.unknown or 0, unknown, start
                unknown = -1
            if found is not None:
                yield found, start, end
            elif self.byte_fallback:
                yield from (
                    (self.byte_fallback[byte], start + j, start + j + 1) for j, byte in enumerate(part)
                )
            elif self.unknown is not None:
                if unknown >= 0 and not self.fuse_unknown:
                    yield self.unknown, unknown, start
                    unknown = start
                unknown = start if unknown < 0 else unknown
            start = end
        if unknown >= 0:
            yield self.unknown or 0, unknown, start

    def segment(self, piece: bytes) -> list[Token]:
        """(id, start, end) of each token of a piece; without dropout."""
        return self._segment(piece, None)

    def _segment(self, piece: bytes, drop: Callable[[], bool] | None) -> list[Token]:
        """The rule: a heap of the merges that can be made, by rank and then from left to right."""
        if self.ignore_merges and piece in self._index:
            return [(self._index[piece], 0, len(piece))]
        parts: list[Token | None] = [*self._symbols(piece)]
        after, before = [*range(1, len(parts) + 1)], [*range(-1, len(parts) - 1)]
        heap: list[tuple[int, int, int, int]] = []
        dropped: list[tuple[int, int, int, int]] = []

        def meet(i: int, j: int) -> None:
            left, right = (parts[k] if 0 <= k < len(parts) else None for k in (i, j))
            made = self._make(left[0], right[0]) if left and right else None
            if left and right and made:
                heapq.heappush(heap, (made[0], i, left[2], right[2]))

        for i in range(len(parts) - 1):
            meet(i, i + 1)
        while heap:
            entry = heapq.heappop(heap)
            _, i, middle, end = entry
            left, right = parts[i], parts[after[i]] if after[i] < len(parts) else None
            if left is None or right is None or (left[2], right[2]) != (middle, end):
                continue  # One of the two has been merged since.
            if drop is not None and drop():
                dropped.append(entry)
                continue
            while dropped:
                heapq.heappush(heap, dropped.pop())
            made = self._make(left[0], right[0])
            parts[i], parts[after[i]] = (made[1] if made else 0, left[1], end), None
            after[i] = after[after[i]]
            if after[i] < len(parts):
                before[after[i]] = i
            meet(before[i], i)
            meet(i, after[i])
        return [part for part in parts if part]

    def encode(self, data: bytes, spans: array[int]) -> list[int]:
        """Ids of the pieces of a text; with dropout another draw at every call (`sample` takes a seed).

        Threads may call this at once; each works with a cache of its own, and a long text lets the others run.
        Raises DataError for a piece too long for the memory there is.
        """
        if self.dropout:
            return self.sample(data, spans, random.Random())
        if self._core is None:
            return [token for piece in _pieces(data, spans) for token in self._known(piece)]
        encoder = self._encoder()
        try:
            found = encoder.encode(data, memoryview(spans))
        except IndexError as error:
            raise outside(data) from error
        except MemoryError as error:
            longest = max(spans[i + 1] - spans[i] for i in range(0, len(spans), 2))
            raise DataError(
                f"A piece of {longest} bytes is too long to be merged in the memory there is: split the text into smaller ones."
            ) from error
        self._encoders.append(encoder)
        return found

    def encode_batch(
        self, datas: Sequence[bytes], spans: Sequence[array[int]], threads: int = 1
    ) -> list[list[int]]:
        """`encode` of several texts, in threads."""
        if threads < 1 or len(datas) != len(spans):
            raise UsageError(
                f"{len(datas)} texts, {len(spans)} lists of spans and {threads} threads don't go together."
            )
        blocks = list(_blocks(datas))
        if self.dropout or self._core is None or threads == 1:
            return [self.encode(data, places) for data, places in zip(datas, spans)]

        def work(block: range) -> list[list[int]]:
            if len(block) == 1:
                return [self.encode(datas[block[0]], spans[block[0]])]
            encoder, own = self._encoder(), [spans[i] for i in block]
            begins = [0, *accumulate(len(datas[i]) for i in block)][:-1]
            joined = memoryview(array("i", b"".join(own)))
            try:
                found = encoder.encode_many(
                    b"".join(datas[i] for i in block), joined, begins, [*map(len, own)]
                )
            except IndexError:
                # One by one the text at fault is found and named.
                return [self.encode(datas[i], spans[i]) for i in block]
            self._encoders.append(encoder)
            return found

        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            return [ids for found in pool.map(work, blocks) for ids in found]

    def sample(
        self, data: bytes, spans: array[int], source: random.Random, dropout: float | None = None
    ) -> list[int]:
        """Ids of the pieces with merges dropped at random (Provilkov et al. 2020, "BPE-Dropout").

        At each step every merge that could be made is passed over with probability `dropout` (this model's where
        None), and the first of the others is made; when none is left, the piece is done. 0 gives `encode`.
        Raises UsageError for a dropout that is no probability.
        """
        share = self.dropout if dropout is None else dropout
        if not 0 <= share <= 1:
            raise UsageError(f"dropout={share} is no probability: give a number from 0 to 1.")

        def drop() -> bool:
            return source.random() < share

        return [
            token
            for piece in _pieces(data, spans)
            for token, _, _ in self._segment(piece, drop if share else None)
        ]

    def _known(self, piece: bytes) -> list[int]:
        """Ids of a piece, remembered."""
        memory: dict[bytes, list[int]] = self._memory
        found = memory.get(piece)
        if found is None:
            found = [token for token, _, _ in self.segment(piece)]
            if len(memory) < 2 << CACHE and len(piece) < 64:
                memory[piece] = found
        return found

    @cached_property
    def _memory(self) -> dict[bytes, list[int]]:
        return {}

    def _encoder(self) -> Any:
        """An encoder for one thread."""
        try:
            return self._encoders.pop()
        except IndexError:
            pass
        assert self._core is not None
        (tables, text, ends, numbers), core = self._core
        return core.Encoder(
            tables,
            text,
            ends,
            memoryview(array("i", self.byte_fallback or ())),
            -1 if self.unknown is None else self.unknown,
            bool(self.prefix) + 2 * bool(self.suffix),
            (self.initial == "characters", self.fuse_unknown, self.ignore_merges),
            numbers,
            CACHE,
        )


def _remake(values: dict[str, Any]) -> BPE:
    """A copy, in another process say."""
    return BPE(**values)


def _pieces(data: bytes, spans: array[int]) -> Iterator[bytes]:
    """The pieces of a text; raises DataError for one outside it."""
    for start, end in zip(spans[::2], spans[1::2]):
        if not 0 <= start <= end <= len(data):
            raise outside(data)
        yield data[start:end]


def _blocks(datas: Sequence[bytes]) -> Iterator[range]:
    """Texts that go to a thread together."""
    start = size = 0
    for i, data in enumerate(datas):
        if i > start and (len(data) >= SHORT or size + len(data) > BLOCK):
            yield range(start, i)
            start, size = i, 0
        size += len(data) if len(data) < SHORT else BLOCK
    if start < len(datas):
        yield range(start, len(datas))


def train_bpe(counts: PieceCounts | Mapping[bytes, int], vocab_size: int, **options: Any) -> BPE:
    """Learn a vocabulary of `vocab_size` tokens from how often each piece occurs; options are those of `BPETraining`.

    Special tokens come first, then the alphabet, then what merging makes, as in Hugging Face's BpeTrainer, whose merges
    these are, with two departures: no merge makes a special token out of text, and symbols with a prefix or suffix
    are ordered by their bytes. Where no pair is left before the vocabulary is full, it is smaller:
    len(result.tokens) says the size reached.
    Raises UsageError when the vocabulary is smaller than the alphabet, DataError when there is nothing to learn from.
    """
    names = [item.name for item in fields(BPETraining)]
    for name in options:
        if name not in names:
            raise UsageError(f"train_bpe has no option {name!r}: it has {', '.join(names)}.")
    how = BPETraining(**options)
    words = Words.of(counts)
    symbols = first_symbols(words, how)
    if vocab_size < len(symbols.all):
        raise UsageError(
            f"vocab_size={vocab_size} is smaller than the {len(symbols.all)} tokens there are before any merge "
            "(special ones and the alphabet): ask for more, or limit the alphabet."
        )
    tokens, merges = learn(words, symbols, vocab_size, how)
    first = len(how.special)
    return BPE(
        tokens,
        merges,
        initial=how.initial,
        unknown=None if how.unknown is None else [*how.special].index(how.unknown),
        byte_fallback=tuple(range(first, first + 256)) if how.byte_fallback else None,
        suffix=how.suffix,
        prefix=how.prefix,
        silent=frozenset(range(first)),
    )
