"""A corpus for a model that reads characters: its sentences as a stream of word types, and each type's characters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lineal.errors import DataError
from lineal.models.char_cnn import BOS, EOS, character_ids
from lineal.tokenizers.text import split

UNKNOWN = "<UNK>"
SPECIAL = (BOS, EOS, UNKNOWN)
"""The first words of every vocabulary, as in bilm-tf."""
# Unicode's white space, which parts words; Python's has four control characters beside, and those are words.
BLANK = r"[^\S\x1c-\x1f]"
ENDS = re.compile(rf"([.!?][\"')\]]*){BLANK}+(?=[\"'(\[]*[A-Z0-9])")
EMPTY = re.compile(rf"\n{BLANK}*\n")


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence; a sentence ends at . ! or ? before a capital or a digit, and at an empty line."""
    splitter, found = split.BertSplit(), []
    for piece in EMPTY.split(ENDS.sub(r"\1\n\n", text)):
        data = piece.encode()
        spans = splitter.spans(data)
        words = [data[spans[i] : spans[i + 1]].decode() for i in range(0, len(spans), 2)]
        if words:
            found.append(words)
    return found


def vocabulary(counts: Counter[str], size: int) -> list[str]:
    """The special words, then the most frequent ones; of equally frequent ones the first in the order of the alphabet."""
    ordered = sorted((word for word in counts if word not in SPECIAL), key=lambda word: (-counts[word], word))
    return [*SPECIAL, *ordered][:size]


@dataclass(frozen=True)
class TypedCorpus:
    """Documents as numbers of word types.

    documents: each a stream of types with <S> and </S> around its sentences. character_UC: the characters of each type.
    target_U: the number of each type in the output layer's vocabulary.
    """

    documents: list[Tensor]
    character_UC: Int[Tensor, "U C"]
    target_U: Int[Tensor, " U"]

    def unknown_share(self) -> float:
        """Share of words that the output layer does not tell apart."""
        unknown = SPECIAL.index(UNKNOWN)
        hits = sum(int((self.target_U[d.long()] == unknown).sum()) for d in self.documents)
        return hits / sum(map(len, self.documents))


def count_words(texts: Iterable[Sequence[Sequence[str]]]) -> Counter[str]:
    """How often each word occurs in documents of sentences."""
    return Counter(word for document in texts for sentence in document for word in sentence)


def typed(
    texts: Sequence[Sequence[Sequence[str]]], words: Sequence[str], most_characters: int
) -> TypedCorpus:
    """The corpus of documents of sentences, for a vocabulary. Raises DataError where there is no word."""
    types: dict[str, int] = {BOS: 0, EOS: 1}
    documents = []
    for document in texts:
        ids: list[int] = []
        for sentence in document:
            ids.append(0)
            ids += [types.setdefault(word, len(types)) for word in sentence]
            ids.append(1)
        if ids:
            documents.append(torch.tensor(ids, dtype=torch.int32))
    if not documents:
        raise DataError("there is no text to read: every document is empty.")
    number, unknown = {word: i for i, word in enumerate(words)}, SPECIAL.index(UNKNOWN)
    target_U = torch.tensor([number.get(word, unknown) for word in types])
    return TypedCorpus(documents, character_ids(list(types), most_characters).to(torch.int16), target_U)
