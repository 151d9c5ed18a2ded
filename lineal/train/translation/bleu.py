"""BLEU as it can be compared: sacrebleu on detokenised text with its signature, and tokenised as older papers have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec


@dataclass(frozen=True)
class Bleu:
    """Scores of a test set, 0 to 100, each of the same translations.

    detokenised: sacrebleu's own, cased, on plain text, with its signature. tokenised: on punctuation-normalised text cut by
    Moses's rules, cased; lower: the same in lower case, which is how Multi30k's tokenised files (`*.lc.norm.tok`) are, and so
    what its papers report. Tokenised scores are higher, and compare only to scores of text cut the same way.
    """

    detokenised: float
    signature: str
    tokenised: float | None = None
    lower: float | None = None

    def metrics(self) -> dict[str, float]:
        """As they go into metrics.jsonl."""
        found = {
            "eval/bleu": self.detokenised,
            "eval/bleu_tokenised": self.tokenised,
            "eval/bleu_tokenised_lower": self.lower,
        }
        return {name: value for name, value in found.items() if value is not None}

    def line(self) -> str:
        """One line for the user."""
        parts = [f"BLEU {self.detokenised:.2f} ({self.signature})"]
        if self.tokenised is not None:
            parts.append(f"tokenised {self.tokenised:.2f}, in lower case {self.lower:.2f} (Moses)")
        return "; ".join(parts)


@cache
def available() -> bool:
    """Whether sacrebleu, of the extra [mt], is installed."""
    return find_spec("sacrebleu") is not None


HINT = "BLEU is not measured: pip install 'lineal[mt]'"


def bleu(found: Sequence[str], references: Sequence[str], language: str, whole: bool = True) -> Bleu | None:
    """BLEU of translations against one reference each; None without the extra. whole: tokenised scores too."""
    if not available():
        return None
    from sacrebleu.metrics.bleu import BLEU

    plain = BLEU()
    score = plain.corpus_score(list(found), [list(references)]).score
    signature = str(plain.get_signature())
    if not whole or find_spec("sacremoses") is None:
        return Bleu(score, signature)
    sides = [_tokenised(texts, language) for texts in (found, references)]
    cut = BLEU(tokenize="none", force=True)
    cased = cut.corpus_score(sides[0], [sides[1]]).score
    low = [[text.lower() for text in side] for side in sides]
    return Bleu(score, signature, cased, cut.corpus_score(low[0], [low[1]]).score)


def _tokenised(texts: Sequence[str], language: str) -> list[str]:
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normaliser, tokenizer = MosesPunctNormalizer(lang=language), MosesTokenizer(lang=language)
    return [
        str(tokenizer.tokenize(normaliser.normalize(text), return_str=True, escape=False)) for text in texts
    ]


def sentence_score(found: str, reference: str) -> float:
    """How near one translation is, 0 to 1: smoothed sentence BLEU; without the extra 1 for the very words, else 0."""
    if not available():
        return float(found == reference)
    from sacrebleu import sentence_bleu

    return min(1.0, sentence_bleu(found, [reference]).score / 100)
