"""Split patterns of files, and the splitters that do the same without a regular expression."""

from __future__ import annotations

from lineal.tokenizers.parts import Splitter
from lineal.tokenizers.text.split import Cl100k, O200k, Regex, Whole, built_in

ALL = r"[\s\S]+"
# White space at the end of a text. Without the second plus, Oniguruma takes `$` for the end of any line.
_END, _SURE_END = r"|\s+$", r"|\s++$"


def splitter_of(pattern: str) -> Splitter | None:
    """The splitter that keeps what a pattern matches, where we have one of its own."""
    if pattern == ALL:
        return Whole()
    return built_in().get(pattern) or built_in().get(pattern.replace(_SURE_END, _END))


def pattern_of(splitter: Splitter) -> str | None:
    """The pattern that matches a splitter's pieces, for files that want one; None where there is none."""
    if isinstance(splitter, Regex):
        return splitter.pattern if (splitter.behaviour, splitter.invert) == ("removed", True) else None
    if splitter == Whole():
        return ALL
    if isinstance(splitter, (Cl100k, O200k)):
        return splitter.pattern.replace(_END, _SURE_END)
    return next((pattern for pattern, known in built_in().items() if known == splitter), None)
