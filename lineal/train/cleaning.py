"""The paper's cleaning of raw text: ftfy repairs what is broken, punctuation is made plain, spaCy cuts into words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lineal.errors import UsageError

PLAIN = str.maketrans({"—": "-", "–": "-", "―": "-", "…": "...", "´": "'"})
"""Signs that books write in several ways."""
RUNS = re.compile(r"([-~!\";?+,()\\/*\[\]{}|_])\1*")
"""Runs of one sign that stand as words of their own."""
SPACES = re.compile(r"[^\S\n]+")


def clean(documents: Sequence[str]) -> list[str]:
    """Each document repaired, with plain punctuation, its words separated by single spaces  (Radford et al. 2018, 4.1).

    Lines stay lines. Raises UsageError where ftfy or spaCy is not installed.
    """
    try:
        import ftfy
        import spacy
    except ImportError as error:
        raise UsageError(f"--clean paper needs {error.name}: pip install 'lineal[text]'.") from error
    # The tokenizer alone is rules: nothing is downloaded.
    cut = spacy.blank("en").tokenizer
    found = []
    for document in documents:
        lines = (standard(ftfy.fix_text(line)) for line in document.split("\n"))
        found.append(
            "\n".join(" ".join(word.text for word in cut(line) if not word.is_space) for line in lines)
        )
    return found


def standard(line: str) -> str:
    """One sign for each purpose, runs of signs as words, single spaces."""
    return SPACES.sub(" ", RUNS.sub(r" \g<0> ", line.translate(PLAIN))).strip()
