"""Text to train on and to evaluate on."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lineal.errors import UsageError
from lineal.train.data import TextSource, read_sources


@runtime_checkable
class HeldOut(TextSource, Protocol):
    """Where a recipe's text comes from, and the share that is held out where no other text is to be evaluated on."""

    @property
    def held_out(self) -> float:
        """Of all documents, by characters."""
        ...


def read_parts(options: HeldOut, recipe: str) -> tuple[list[str], list[str]]:
    """Documents to train on and to evaluate on; UsageError where no document is left for the second."""
    given, judged = read_sources(options, recipe)
    train, held = parted(given, options.held_out) if judged is None else (given, judged)
    if not held:
        raise UsageError(
            f"--held-out {options.held_out:g} leaves no document of {options.data} to evaluate on: raise it, or give --eval-data."
        )
    return train, held


def parted(documents: list[str], share: float) -> tuple[list[str], list[str]]:
    """Documents to train on and the last `share` of them (by characters; a single document is cut) to evaluate on."""
    total = sum(map(len, documents))
    cut, seen = int(total * (1 - share)), 0
    for index, document in enumerate(documents):
        if seen + len(document) > cut:
            inside = cut - seen
            if len(documents) == 1:
                # At a space, so that no word is cut in two.
                inside = document.rfind(" ", 0, inside + 1) if " " in document[: inside + 1] else inside
                return [document[:inside]], [document[inside:]]
            edge = max(1, index)
            return documents[:edge], documents[edge:]
        seen += len(document)
    return documents, []
