"""What there is to see about a tokenizer: how it cuts a text, what its vocabulary is made of, what it costs and loses."""

from __future__ import annotations

import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from lineal.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from lineal.tokenizers.bpe import BPE
    from lineal.tokenizers.parts import Model

SYMBOL = "▁"
_FALLBACK = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Controls, and characters that show nothing or change what stands beside them."""


@dataclass(frozen=True)
class Cell:
    """A stretch of a text and the tokens that it is: several where they share a character."""

    text: str
    ids: tuple[int, ...]
    tokens: tuple[bytes, ...]


def cells(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[Cell]:
    """A text cut by its tokens, none of its characters left out; what no token stands for has no ids."""
    found: list[Cell] = []
    at = 0
    for start, end, token in located(tokenizer, text, special):
        content = token_bytes(tokenizer, token)
        if found and (end <= at or start < at):
            # It shares a character with the token before, or stands for nothing of the text.
            last = found[-1]
            found[-1] = Cell(last.text + text[at : max(at, end)], (*last.ids, token), (*last.tokens, content))
        else:
            if start > at:
                found.append(Cell(text[at:start], (), ()))
            found.append(Cell(text[max(at, start) : end], (token,), (content,)))
        at = max(at, end)
    return [*found, Cell(text[at:], (), ())] if at < len(text) else found


def located(tokenizer: Tokenizer, text: str, special: bool = False) -> Iterator[tuple[int, int, int]]:
    """Start, end (in characters) and id of each token of a text; special: as `encode` has it."""
    from lineal.tokenizers.pipeline import Pipeline

    if isinstance(tokenizer, Pipeline):
        found = tokenizer.encode_with_offsets(text, special=special)
        yield from ((start, end, token) for token, (start, end) in zip(found.ids, found.offsets))
        return
    ids = tokenizer.encode(text, special=special)
    if len(ids) == len(text):
        yield from ((at, at + 1, token) for at, token in enumerate(ids))
        return
    stream, at, waiting = tokenizer.stream(), 0, list[int]()
    for token in ids:
        part = stream.push(token)
        waiting.append(token)
        if part:
            yield from ((at, at + len(part), one) for one in waiting)
            at, waiting = at + len(part), []
    yield from ((at, len(text), one) for one in waiting)


def token_bytes(tokenizer: Tokenizer, index: int) -> bytes:
    """What an id stands for, as bytes; special tokens by their name."""
    tokens = getattr(tokenizer, "tokens", None)
    if tokens is not None:
        return tokens[index] if 0 <= index < len(tokens) else b""
    if tokenizer.vocab_size == 258 and index < 256:
        return bytes([index])
    return tokenizer.decode([index], skip_special=False).encode("utf-8", "replace")


def visible(token: bytes, space: str = "␣") -> str:
    """A token as a person can read it: controls as pictures, spaces as `space`, bytes that are no character as <0xE2>."""
    return _HIDDEN.sub(_picture, token.decode("utf-8", "surrogateescape")).replace(" ", space)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"<0x{code - 0xDC00:02X}>"
    if code < 32 or code == 127:
        return {10: "⏎", 127: "␡"}.get(code) or chr(0x2400 + code)
    return f"<U+{code:04X}>"


@dataclass(frozen=True)
class Loss:
    """The first place where a text did not come back: what stood there, and what came."""

    place: int
    before: str
    after: str


@dataclass(frozen=True)
class Measure:
    """What a tokenizer does to texts.

    unknown: tokens that are the unknown token. lossless: texts that came back as they were. loss: the first that did
    not. seconds: of CPU time, the encoding alone.
    """

    texts: int
    bytes: int
    characters: int
    tokens: int
    unknown: int
    lossless: int
    seconds: float
    loss: Loss | None = None

    @property
    def bytes_per_token(self) -> float:
        """Bytes of UTF-8 per token: the larger, the shorter the sequences."""
        return self.bytes / max(1, self.tokens)

    @property
    def characters_per_token(self) -> float:
        """Characters per token."""
        return self.characters / max(1, self.tokens)

    @property
    def speed(self) -> float:
        """Megabytes encoded per second."""
        return self.bytes / 1e6 / max(self.seconds, 1e-9)


def measure(
    tokenizer: Tokenizer, texts: Iterable[str], clock: Callable[[], float] = time.process_time
) -> Measure:
    """Encode and decode texts, each by itself, and add up."""
    unknown_id = getattr(tokenizer, "unk_id", None)
    size = characters = tokens = unknown = lossless = count = 0
    seconds, loss = 0.0, None
    for text in texts:
        began = clock()
        ids = tokenizer.encode(text)
        seconds += clock() - began
        back = tokenizer.decode(ids)
        if back == text:
            lossless += 1
        elif loss is None:
            loss = first_loss(text, back)
        count, size, characters = (
            count + 1,
            size + len(text.encode("utf-8", "replace")),
            characters + len(text),
        )
        tokens += len(ids)
        unknown += 0 if unknown_id is None else ids.count(unknown_id)
    return Measure(count, size, characters, tokens, unknown, lossless, seconds, loss)


def first_loss(text: str, back: str, around: int = 12) -> Loss | None:
    """The first difference between a text and what came back, with what stands around it; None without one."""
    if text == back:
        return None
    same = next((at for at, (a, b) in enumerate(zip(text, back)) if a != b), min(len(text), len(back)))
    start = max(0, same - around)
    return Loss(same, text[start : same + around], back[start : same + around])


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of special tokens."""
    found = getattr(tokenizer, "special_ids", None)
    if found is None:
        found = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, getattr(tokenizer, "unk_id", None)} - {
            None
        }
    return frozenset(found)


def make_up(tokenizer: Tokenizer) -> dict[str, int]:
    """How many ids are of which sort, each counted once; those that stand for nothing are "unused"."""
    found: Counter[str] = Counter()
    special = special_ids(tokenizer)
    model = getattr(tokenizer, "model", None)
    marks = getattr(model, "prefix", b""), getattr(model, "suffix", b"")
    for at in range(tokenizer.vocab_size):
        found["special" if at in special else _sort(token_bytes(tokenizer, at), *marks)] += 1
    order = ("special", "bytes, or parts of characters", "single characters", "begin a word (space in front)", "inside a word",
             "end a word", "numbers", "white space", "others", "unused")  # fmt: skip
    return {name: found[name] for name in order if found[name]}


def _sort(token: bytes, prefix: bytes, suffix: bytes) -> str:
    if not token:
        return "unused"
    if _FALLBACK.fullmatch(token):
        return "bytes, or parts of characters"
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return "bytes, or parts of characters"
    bare = text.replace(SYMBOL, " ")
    if prefix and token.startswith(prefix) and len(token) > len(prefix):
        return "inside a word"
    if suffix and token.endswith(suffix):
        return "end a word"
    if bare.isspace() and len(bare) > 1:
        return "white space"
    if len(text) == 1:
        return "single characters"
    if bare.startswith(" "):
        return "begin a word (space in front)"
    return "numbers" if bare.isnumeric() else "others"


def scripts(tokenizer: Tokenizer) -> dict[str, int]:
    """How many tokens have letters of which script, by the first letter's name in Unicode; the most frequent first."""
    found: Counter[str] = Counter()
    for at in range(tokenizer.vocab_size):
        text = token_bytes(tokenizer, at).decode("utf-8", "ignore")
        letter = next((character for character in text if character.isalpha()), None)
        if letter is not None:
            found[unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0].capitalize()] += 1
    return dict(found.most_common())


def longest(tokenizer: Tokenizer, count: int) -> list[tuple[int, bytes]]:
    """The ids and bytes of the tokens with the most characters; of equal ones the lowest id first."""
    special = special_ids(tokenizer)
    tokens = ((at, token_bytes(tokenizer, at)) for at in range(tokenizer.vocab_size) if at not in special)
    return sorted(tokens, key=lambda item: (-len(item[1].decode("utf-8", "replace")), item[0]))[:count]


@dataclass(frozen=True)
class Branch:
    """A token of a word and the two that were merged into it (none: it was there from the start). rank: of the merge, from 0."""

    id: int
    token: bytes
    rank: int | None = None
    parts: tuple[Branch, ...] = ()


def merge_tree(model: BPE, piece: bytes) -> list[Branch]:
    """How BPE comes to the tokens of a piece: the lowest merge first, the leftmost of equal ones, until there is none."""
    start = replace(model, merges=(), by_rank=False, ignore_merges=False, dropout=0.0)
    row = [Branch(token, model.tokens[token]) for token, _, _ in start.segment(piece)]
    ranks, results = _merges(model)
    while len(row) > 1:
        pairs = [_rank(model, ranks, results, *pair) for pair in pairwise(row)]
        best = min((rank for rank in pairs if rank is not None), default=None)
        if best is None:
            break
        at = pairs.index(best)
        made = _joined(model, row[at], row[at + 1])
        row[at : at + 2] = [Branch(results[made], made, best, (row[at], row[at + 1]))]
    return row


def _merges(model: BPE) -> tuple[dict[tuple[int, int], int], dict[bytes, int]]:
    hidden = model.silent | set(model.byte_fallback or ())
    results = {token: at for at, token in reversed([*enumerate(model.tokens)]) if token and at not in hidden}
    return {pair: rank for rank, pair in enumerate(model.merges)}, results


def _joined(model: BPE, left: Branch, right: Branch) -> bytes:
    return left.token + right.token[len(model.prefix) :]


def _rank(
    model: BPE, ranks: dict[tuple[int, int], int], results: dict[bytes, int], left: Branch, right: Branch
) -> int | None:
    return results.get(_joined(model, left, right)) if model.by_rank else ranks.get((left.id, right.id))


def tree_lines(branches: Sequence[Branch]) -> list[str]:
    """The trees of a word as lines: each token with its id and the number of its merge, its parts below it."""
    lines: list[str] = []

    def draw(branch: Branch, front: str, below: str) -> None:
        how = f"merge {branch.rank + 1}, " if branch.rank is not None else ""
        lines.append(f"{front}{visible(branch.token)}  ({how}id {branch.id})")
        for part in branch.parts:
            last = part is branch.parts[-1]
            draw(part, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))

    for branch in branches:
        draw(branch, "", "")
    return lines


def pieces_of(tokenizer: Tokenizer, text: str) -> tuple[Model, list[bytes]] | None:
    """The model and the pieces that it is given of a text; None for a tokenizer that is not made of parts."""
    from lineal.tokenizers.pipeline import Pipeline

    if not isinstance(tokenizer, Pipeline):
        return None
    for part in (tokenizer.normaliser, tokenizer.splitter.before):
        text = text if part is None else part(text)
    data = text.encode()
    spans = tokenizer.splitter.spans(data)
    return tokenizer.model, [data[spans[i] : spans[i + 1]] for i in range(0, len(spans), 2)]
