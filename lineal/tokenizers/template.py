"""What is put around one text or two: `[CLS] $A [SEP] $B:1 [SEP]:1`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lineal.errors import UsageError


@dataclass(frozen=True)
class Slot:
    """One place of a template: the first text ("A"), the second ("B"), or tokens that stand there.

    type: the number that tells a model which text a token belongs to. name: how a template's text calls the tokens.
    """

    text: str = ""
    ids: tuple[int, ...] = ()
    type: int = 0
    name: str = ""


Slots = tuple[Slot, ...]


@dataclass(frozen=True)
class Template:
    """What is put around one text, and around two; as Hugging Face's TemplateProcessing.

    trim: offsets leave out the white space at the ends of a token (the ByteLevel and Roberta post-processors' wish).
    """

    single: Slots = (Slot("A"),)
    pair: Slots = (Slot("A"), Slot("B", type=1))
    trim: bool = False

    @classmethod
    def parse(
        cls, single: str, pair: str, ids: Mapping[str, int | Sequence[int]], *, trim: bool = False
    ) -> Template:
        """From words like `[CLS]`, `$A`, `$B:1`, `[SEP]:1`, and the ids that the names stand for.

        Raises UsageError for a name without ids, a type that is no number, or a pair without both texts.
        """
        slots = tuple(_slot(word, ids) for word in single.split())
        both = tuple(_slot(word, ids) for word in pair.split())
        if {"A", "B"} - {slot.text for slot in both}:
            raise UsageError(
                f"the template for two texts {pair!r} has no place for both: it needs $A and $B."
            )
        return cls(slots, both, trim)

    @property
    def prefix(self) -> tuple[int, ...]:
        """The ids before a single text."""
        return tuple(i for slot in self.single[: self._place()] for i in slot.ids)

    @property
    def suffix(self) -> tuple[int, ...]:
        """The ids behind a single text."""
        return tuple(i for slot in self.single[self._place() + 1 :] for i in slot.ids)

    def added(self, pair: bool = False) -> int:
        """How many ids a template puts in."""
        return sum(len(slot.ids) for slot in (self.pair if pair else self.single))

    def apply(self, first: Sequence[int], second: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
        """The ids around one text or two, and the type of each."""
        ids: list[int] = []
        types: list[int] = []
        texts = {"A": first, "B": second or ()}
        for slot in self.single if second is None else self.pair:
            part = texts[slot.text] if slot.text else slot.ids
            ids += part
            types += [slot.type] * len(part)
        return ids, types

    def _place(self) -> int:
        return next((i for i, slot in enumerate(self.single) if slot.text), len(self.single))


def _slot(word: str, ids: Mapping[str, int | Sequence[int]]) -> Slot:
    name, colon, kind = word.partition(":") if word.startswith("$") else word.rpartition(":")
    if not colon or (not word.startswith("$") and word in ids):
        name, kind = word, "0"
    if not kind.isdecimal():
        raise UsageError(f"the template's {word!r} has a type that is no number: write it as NAME:1.")
    if name.startswith("$"):
        rest = name[1:]
        if rest.isdecimal():
            return Slot("A", type=int(rest) if not colon else int(kind))
        if rest.upper() not in ("", "A", "B"):
            raise UsageError(f"the template's {word!r} is no text: write $A or $B.")
        return Slot(rest.upper() or "A", type=int(kind))
    if name not in ids:
        raise UsageError(f"the template names {name!r}, which has no ids: {', '.join(ids) or 'none'} have.")
    found = ids[name]
    return Slot("", (found,) if isinstance(found, int) else tuple(found), int(kind), name)
