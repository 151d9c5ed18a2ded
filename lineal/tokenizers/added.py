"""Tokens that are found in a text before anything else: special tokens, and words added to a vocabulary.

The rules are those of Hugging Face's `tokenizers`: of several that begin at one place the longest wins; tokens that are
not normalised are looked for in the text as it was given, the others in what lies between, normalised, by their own
normalised form; a token may ask to stand alone as a word and may swallow the white space beside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from lineal.tokenizers.parts import Normaliser

WHITE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""The characters with Unicode's property White_Space (`str.isspace` takes four control characters more)."""


@dataclass(frozen=True)
class AddedToken:
    """A token with a written form of its own.

    special: never made from a user's text unless asked, and left out in decoding. single_word: only where no letter,
    digit or mark touches it. lstrip, rstrip: it takes the white space before or behind it along. normalised: it is
    matched in normalised text.
    """

    content: str
    id: int
    special: bool = True
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalised: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is matched exactly as it is written, wherever it stands."""
        return not (self.single_word or self.lstrip or self.rstrip)


Cut = tuple[int, int, int]
"""start, end, and the id of the added token that stands there, or -1 for text."""


class Finder:
    """Finds one set of added tokens in a text.

    forms: the written form that is looked for, of each token. Where two share one, the first has it.
    """

    def __init__(self, tokens: Sequence[AddedToken], forms: Sequence[str] | None = None):
        forms = [token.content for token in tokens] if forms is None else forms
        self._tokens: dict[str, AddedToken] = {}
        for form, token in zip(forms, tokens, strict=True):
            if form:
                self._tokens.setdefault(form, token)
        ordered = sorted(self._tokens, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self.quiet = all(token.special for token in self._tokens.values())

    def cut(self, text: str, special: bool) -> list[Cut]:
        """The text in order, cut at its added tokens; special ones stay text unless `special`.

        As in the library, a special token that stays text still hides a shorter one that begins at the same place.
        """
        cuts: list[Cut] = []
        done = 0
        if self.pattern is not None and (special or not self.quiet):
            for match in self.pattern.finditer(text):
                token, (start, end) = self._tokens[match[0]], match.span()
                if (token.special and not special) or (token.single_word and not _alone(text, start, end)):
                    continue
                if token.lstrip:
                    start = max(len(text[:start].rstrip(WHITE)), done)
                if token.rstrip:
                    end = len(text) - len(text[end:].lstrip(WHITE))
                if done < start:
                    cuts.append((done, start, -1))
                cuts.append((start, end, token.id))
                done = end
        if done < len(text):
            cuts.append((done, len(text), -1))
        return cuts


def _alone(text: str, start: int, end: int) -> bool:
    return not (start and _in_word(text[start - 1])) and not (end < len(text) and _in_word(text[end]))


def _in_word(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind[0] in "LM" or kind in ("Nd", "Nl", "Pc") or character in "\u200c\u200d"


class AddedTokens:
    """All added tokens of a tokenizer, ready to be found."""

    def __init__(self, tokens: Sequence[AddedToken], normaliser: Normaliser | None = None):
        normalised = [token for token in tokens if token.normalised]
        self.raw = Finder([token for token in tokens if not token.normalised])
        forms = [normaliser(token.content) if normaliser else token.content for token in normalised]
        self.normalised = Finder(normalised, forms)

    def any(self, special: bool) -> bool:
        """Whether there is anything to look for."""
        finders = (self.raw, self.normalised)
        return any(found.pattern is not None and (special or not found.quiet) for found in finders)
