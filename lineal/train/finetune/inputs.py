"""Task-aware inputs: every task as sequences of one text's form  (Radford et al. 2018, section 3.3; Devlin et al. 2018).

classification  <start> text <extract>                        [CLS] text [SEP]
pair            <start> first <delimiter> second <extract>    [CLS] first [SEP] second [SEP]
similarity      both orders of a pair, whose states are added
choice          <start> context <delimiter> choice <extract>, one sequence per choice
tagging         as classification, of which each word's piece is read
span            a pair of question and context, of which each piece of the context is read
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from lineal.errors import UsageError
from lineal.models.finetuned import Inputs
from lineal.tokenizers import Tokenizer
from lineal.tokenizers.added import AddedToken
from lineal.tokenizers.lengths import truncate_pair
from lineal.tokenizers.pipeline import Pipeline

NAMES = ("<start>", "<delimiter>", "<extract>")
"""How the three tokens of a decoder are written in the tokenizer's file."""
STRIDE = 2
"""A long context is read in windows that share a half (1 / STRIDE) of their length."""


@dataclass(frozen=True)
class Framed:
    """A sequence: texts with the tokens around them.

    second: where the second text begins, the length where there is none. read: positions whose states a head reads. skipped:
    pieces of the context before those that are read.
    """

    ids: list[int]
    second: int
    read: tuple[int, ...] = ()
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@runtime_checkable
class Framing(Protocol):
    """Which tokens stand around a text, or around two. filler: stands for a word of which the tokenizer makes nothing."""

    last_piece: bool
    """Of a word the last piece is read (a model that looks back), else the first."""

    @property
    def filler(self) -> int:
        """An id that stands for nothing."""
        ...

    def added(self, pair: bool) -> int:
        """How many tokens `enclose` adds."""
        ...

    def enclose(self, first: Sequence[int], second: Sequence[int] | None = None) -> Framed:
        """The sequence of one text or two."""
        ...


@dataclass(frozen=True)
class Marks:
    """The ids of the three tokens that fine-tuning adds to a decoder's vocabulary."""

    start: int
    delimiter: int
    extract: int

    last_piece = True

    @property
    def filler(self) -> int:
        """The delimiter."""
        return self.delimiter

    def added(self, pair: bool) -> int:
        """Two around a text, three around two."""
        return 3 if pair else 2

    def enclose(self, first: Sequence[int], second: Sequence[int] | None = None) -> Framed:
        """<start> first <extract>, or <start> first <delimiter> second <extract>."""
        between = [] if second is None else [self.delimiter, *second]
        ids = [self.start, *first, *between, self.extract]
        return Framed(ids, len(ids) if second is None else len(first) + 2)


@dataclass(frozen=True)
class ClassMarks:
    """The ids of BERT's own tokens: [CLS] begins a sequence, [SEP] ends each of its texts."""

    cls: int
    sep: int

    last_piece = False

    @property
    def filler(self) -> int:
        """The separator."""
        return self.sep

    def added(self, pair: bool) -> int:
        """Two around a text, three around two."""
        return 3 if pair else 2

    def enclose(self, first: Sequence[int], second: Sequence[int] | None = None) -> Framed:
        """[CLS] first [SEP], or [CLS] first [SEP] second [SEP], the second with its last token in segment 1."""
        after = [] if second is None else [*second, self.sep]
        return Framed([self.cls, *first, self.sep, *after], len(first) + 2)


def extended(tokenizer: Tokenizer) -> tuple[Tokenizer, Marks]:
    """The tokenizer with a decoder's three tokens, which are never made from a text, and their ids.

    A tokenizer whose files cannot hold more tokens stays as it is; the ids follow its last one all the same.
    """
    if isinstance(tokenizer, Pipeline):
        known = {token.content: token.id for token in tokenizer.added}
        if all(name in known for name in NAMES):
            return tokenizer, Marks(*(known[name] for name in NAMES))
    first = tokenizer.vocab_size
    marks = Marks(first, first + 1, first + 2)
    if not isinstance(tokenizer, Pipeline):
        return tokenizer, marks
    added = [AddedToken(name, first + i) for i, name in enumerate(NAMES)]
    wider = Pipeline(
        tokenizer.model, normaliser=tokenizer.normaliser, splitter=tokenizer.splitter, decoder=tokenizer.decoder,
        template=tokenizer.template, added=(*tokenizer.added, *added), settings=tokenizer.settings,
        lengths=tokenizer.lengths,
    )  # fmt: skip
    return wider, marks


def sequences(kind: str, texts: Sequence[list[int]], marks: Framing, context: int) -> list[Framed]:
    """The sequences of one row's texts (as ids), none longer than `context`.

    What does not fit is cut: the end of a text, of a pair the longer one's first, and of what choices continue the
    beginning. Nothing of tagging (texts: the words) and span (question and context) is cut: they go on in more sequences.
    """
    room = context - marks.added(kind not in ("classification", "tagging"))
    if kind == "classification":
        return [marks.enclose(texts[0][:room])]
    if kind == "choice":
        return [_choice(texts[0], choice, marks, room) for choice in texts[1:]]
    if kind == "tagging":
        return _words(texts, marks, room)
    if kind == "span":
        return _windows(texts[0], texts[1], marks, room)
    first, second = truncate_pair(texts[0], texts[1], room)
    orders = [(first, second)] if kind == "pair" else [(first, second), (second, first)]
    return [marks.enclose(a, b) for a, b in orders]


def _choice(before: list[int], choice: list[int], marks: Framing, room: int) -> Framed:
    kept = choice[: room // 2] if len(before) > room // 2 else choice[: room - len(before)]
    return marks.enclose(before[max(0, len(before) - (room - len(kept))) :], kept)


def _words(words: Sequence[list[int]], marks: Framing, room: int) -> list[Framed]:
    found: list[Framed] = []
    pieces: list[int] = []
    read: list[int] = []
    for word in [*words, None]:
        own = None if word is None else word[:room] or [marks.filler]
        if own is None or len(pieces) + len(own) > room:
            framed = marks.enclose(pieces)
            found.append(Framed(framed.ids, framed.second, tuple(read)))
            pieces, read = [], []
        if own is not None:
            pieces += own
            read.append(len(pieces) if marks.last_piece else len(pieces) - len(own) + 1)
    return found


def _windows(question: list[int], context: list[int], marks: Framing, room: int) -> list[Framed]:
    question = question[: room // 2]
    size = room - len(question)
    step, found = max(1, size // STRIDE), []
    for start in range(0, max(1, len(context) - (size - step)), step):
        framed = marks.enclose(question, context[start : start + size])
        inside = range(framed.second, framed.second + len(context[start : start + size]))
        # Position 0 says that the answer is not in this window.
        found.append(Framed(framed.ids, framed.second, (0, *inside), start))
    return found


def lay_out(rows: Sequence[Sequence[Framed]], device: torch.device | str = "cpu") -> Inputs:
    """Rows of sequences as one rectangle."""
    flat = [sequence for row in rows for sequence in row]
    lengths = torch.tensor([len(sequence) for sequence in flat])
    width = int(lengths.max())
    token_NT = torch.tensor([[*sequence.ids, *[0] * (width - len(sequence))] for sequence in flat])
    across = torch.arange(width)
    mask_NT = across < lengths[:, None]
    second_N = torch.tensor([sequence.second for sequence in flat])
    segment_NT = ((across >= second_N[:, None]) & mask_NT).long()
    read_NT = torch.zeros_like(mask_NT)
    for i, sequence in enumerate(flat):
        read_NT[i, list(sequence.read)] = True
    parts = (part.to(device) for part in (token_NT, mask_NT, segment_NT, read_NT))
    return Inputs(*parts, each=len(rows[0]))


def micro_batches(rows: Sequence[Sequence[Sized]], budget: int) -> list[list[int]]:
    """Indices of rows in groups of like length, each of at most `budget` tokens with its padding (or one row)."""
    size = [max(map(len, row)) for row in rows]
    groups: list[list[int]] = []
    held = 0
    for i in sorted(range(len(rows)), key=lambda i: size[i]):
        # Sorted: the newest row is the longest of its group.
        if groups and (held + len(rows[i])) * size[i] <= budget:
            groups[-1].append(i)
            held += len(rows[i])
        else:
            groups.append([i])
            held = len(rows[i])
    return groups


def decisions(kind: str, row: Sequence[Framed]) -> int:
    """How many decisions a row asks for: one; of tagging one per word; of span where to begin and to end in each window."""
    if kind == "tagging":
        return sum(len(sequence.read) for sequence in row)
    return 2 * len(row) if kind == "span" else 1


def places(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text and the characters that each stands for; UsageError where the tokenizer cannot say."""
    if not isinstance(tokenizer, Pipeline):
        raise UsageError(
            f"--task span needs a tokenizer that says where its tokens stand, and a {type(tokenizer).__name__} does not."
        )
    found = tokenizer.encode_with_offsets(text)
    return found.ids, found.offsets
