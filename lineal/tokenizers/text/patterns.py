"""Where pieces end, character by character: the obvious form of each way of splitting.

Each function reads a text beside `kinds`, the class of each of its characters (`unicode_table.classes`), and yields the
start and end of pieces in characters. `lineal.tokenizers.core.scan` has the same rules for bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lineal.errors import UsageError
from lineal.tokenizers.text.unicode_table import LETTER, LOWER, NUMBER, PUNCTUATION, SPACE, UPPER, WORD

Pieces = Iterator[tuple[int, int]]
Segment = tuple[int, int, bool]
"""Start, end, and whether it is what was looked for (else it lies between two such)."""

BEHAVIOURS = ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
CONTRACTIONS = ("s", "t", "m", "d", "re", "ve", "ll")
LONG_S = "\u017f"


def run(kinds: bytes, at: int, bits: int) -> int:
    """The end of the characters from `at` on that have one of these bits."""
    while at < len(kinds) and kinds[at] & bits:
        at += 1
    return at


def until(kinds: bytes, at: int, bits: int) -> int:
    """The end of the characters from `at` on that have none of these bits."""
    while at < len(kinds) and not kinds[at] & bits:
        at += 1
    return at


def contraction(text: str, at: int, fold: bool) -> int:
    """The end of 's, 't, 're, 've, 'm, 'll or 'd at `at`, else `at`; folded, also of their capitals and of the long s."""
    if text[at : at + 1] != "'":
        return at
    for ending in CONTRACTIONS:
        end = at + 1 + len(ending)
        found = text[at + 1 : end]
        if found == ending or (fold and found.replace(LONG_S, "s").lower() == ending):
            return end
    return at


def whitespace_end(kinds: bytes, at: int) -> int:
    r"""`\s+(?!\S)|\s+`: all of a run of whitespace, but its last character is left to the text that follows."""
    end = run(kinds, at, SPACE)
    return end if end == len(kinds) or end == at + 1 else end - 1


def gpt2(text: str, kinds: bytes) -> Pieces:
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ (the encoder of openai/gpt-2)."""
    at = 0
    while at < len(text):
        first = at + 1 if text[at] == " " and at + 1 < len(text) else at
        end = contraction(text, at, fold=False)
        if end > at:
            pass
        elif kinds[first] & LETTER:
            end = run(kinds, first, LETTER)
        elif kinds[first] & NUMBER:
            end = run(kinds, first, NUMBER)
        elif not kinds[first] & SPACE:
            end = until(kinds, first, LETTER | NUMBER | SPACE)
        else:
            end = whitespace_end(kinds, at)
        yield at, end
        at = end


def cl100k(digits: int, whole_end: bool) -> Callable[[str, bytes], Pieces]:
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+

    digits: at most so many in a piece. whole_end: whitespace that ends the text is one piece, also where it has line breaks
    (the pattern in tiktoken since 0.6: `\s++$` before the others).
    """

    def pieces(text: str, kinds: bytes) -> Pieces:
        at = 0
        while at < len(text):
            first = at if _is_bare(text, kinds, at) else at + 1
            end = contraction(text, at, fold=True)
            if end == at and first < len(text):
                end = run(kinds, first, LETTER) if kinds[first] & LETTER else at
            end = end if end > at else _no_word(text, kinds, at, digits, whole_end, "\r\n")
            yield at, end
            at = end

    return pieces


def o200k(digits: int, contractions: bool) -> Callable[[str, bytes], Pieces]:
    r"""o200k_base of tiktoken: words are capitals then small letters, marks are both, and a contraction ends its word.

    [^\r\n\p{L}\p{N}]?[U]*[l]+(?i:'s|...)? | [^\r\n\p{L}\p{N}]?[U]+[l]*(?i:'s|...)?, then as cl100k, but / may follow marks.
    """

    def pieces(text: str, kinds: bytes) -> Pieces:
        at = 0
        while at < len(text):
            end = _cased_word(text, kinds, at)
            if end == at:
                end = _no_word(text, kinds, at, digits, False, "\r\n/")
            elif contractions:
                end = contraction(text, end, fold=True)
            yield at, end
            at = end

    return pieces


def _is_bare(text: str, kinds: bytes, at: int) -> bool:
    """Whether a word can't have the character at `at` in front of it."""
    return bool(kinds[at] & (LETTER | NUMBER)) or text[at] in "\r\n"


def _cased_word(text: str, kinds: bytes, at: int) -> int:
    """The end of o200k's word at `at`, else `at`; its alternatives in the order in which a regular expression tries them."""
    starts = [at] if _is_bare(text, kinds, at) else [at + 1, at]
    for start in starts:
        capitals = run(kinds, start, UPPER)
        end = run(kinds, capitals, LOWER)
        if end > capitals:
            return end
        while capitals > start:
            if kinds[capitals - 1] & LOWER:
                return capitals
            capitals -= 1
    for start in starts:
        capitals = run(kinds, start, UPPER)
        if capitals > start:
            return capitals
    return at


def _no_word(text: str, kinds: bytes, at: int, digits: int, whole_end: bool, after: str) -> int:
    """The end of numbers, of marks with what may come `after` them, or of whitespace."""
    if kinds[at] & NUMBER:
        return at + run(kinds[at : at + digits], 0, NUMBER)
    first = at + 1 if text[at] == " " else at
    end = until(kinds, first, LETTER | NUMBER | SPACE)
    if end > first:
        while text[end : end + 1] in tuple(after):
            end += 1
        return end
    end = run(kinds, at, SPACE)
    last = max(text.rfind("\r", at, end), text.rfind("\n", at, end))
    if last >= 0 and not (whole_end and end == len(text)):
        return last + 1
    return whitespace_end(kinds, at)


def words(text: str, kinds: bytes) -> Pieces:
    r"""\w+|[^\w\s]+: runs of word characters, and runs of what is neither word nor whitespace."""
    at = 0
    while at < len(text):
        if kinds[at] & SPACE:
            at += 1
            continue
        end = run(kinds, at, WORD) if kinds[at] & WORD else until(kinds, at, WORD | SPACE)
        yield at, end
        at = end


def bert(text: str, kinds: bytes) -> Pieces:
    """Runs between whitespace, which is dropped, and punctuation, each of whose marks is a piece (Devlin et al. 2018)."""
    for start, end, space in matches(kinds, SPACE):
        if space:
            continue
        for a, b in behave(matches(kinds[start:end], PUNCTUATION), "isolated"):
            yield start + a, start + b


def matches(kinds: bytes, bits: int) -> Iterator[Segment]:
    """Each character that has one of these bits, and each run of others between them."""
    at = 0
    while at < len(kinds):
        end = until(kinds, at, bits)
        if end > at:
            yield at, end, False
        if end < len(kinds):
            yield end, end + 1, True
        at = end + 1


def behave(segments: Iterable[Segment], behaviour: str) -> Pieces:
    """What is to become of the segments that were looked for, in the words of Hugging Face's `Split`.

    removed; isolated; merged_with_previous and merged_with_next, with a segment of the other sort (or, for the first of
    several matches in a row, with nothing); contiguous: neighbours of the same sort together.
    """
    if behaviour not in BEHAVIOURS:
        raise UsageError(f"A match can't be {behaviour!r}: choose one of {', '.join(BEHAVIOURS)}.")
    if behaviour == "removed":
        return ((start, end) for start, end, match in segments if not match)
    if behaviour == "isolated":
        return ((start, end) for start, end, _ in segments)
    return iter(_merge(list(segments), behaviour))


def _merge(segments: list[Segment], behaviour: str) -> list[tuple[int, int]]:
    """The segments with neighbours joined."""
    backwards = behaviour == "merged_with_next"
    found: list[tuple[int, int]] = []
    before: bool | None = None
    for start, end, match in reversed(segments) if backwards else segments:
        joins = match == before if behaviour == "contiguous" else match and before is False
        if not joins:
            found.append((start, end))
        elif backwards:
            found[-1] = (start, found[-1][1])
        else:
            found[-1] = (found[-1][0], end)
        before = match
    return found[::-1] if backwards else found
