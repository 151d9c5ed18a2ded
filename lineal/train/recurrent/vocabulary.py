"""Words and their ids: learned from a corpus, and carried over from one corpus to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from lineal.errors import DataError, UsageError
from lineal.tokenizers import Tokenizer
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.text import normalise, split
from lineal.tokenizers.training import KINDS, Learning, train
from lineal.tokenizers.words import WordLevel


def learn_words(documents: Sequence[str], vocab_size: int, min_frequency: int) -> Tokenizer:
    """Lower-case words and marks of punctuation, the most frequent `vocab_size` of them; any other is <unk>."""
    parts = replace(
        KINDS["word"].parts, normaliser=normalise.Bert(strip_accents=False), splitter=split.BertSplit()
    )
    learning = Learning(vocab_size=vocab_size, min_frequency=min_frequency)
    return train("word", texts=documents, parts=parts, learning=learning)


def words_of(tokenizer: Tokenizer) -> Sequence[bytes]:
    """The vocabulary of a word tokenizer by id; UsageError for any other tokenizer."""
    if isinstance(tokenizer, Pipeline) and isinstance(tokenizer.model, WordLevel):
        return tokenizer.model.tokens
    raise UsageError("the model's tokenizer is no list of words: keep its vocabulary (--vocabulary keep).")


def origins(new: Tokenizer, old: Tokenizer) -> list[int | None]:
    """For each token of the new vocabulary its id in the old one; None for a word that is new."""
    before = words_of(old)
    old_id = {word: i for i, word in enumerate(before) if word}

    def same_place(i: int) -> int | None:
        # Special tokens are hidden from the lists; both vocabularies have the same ones, in the same places.
        return i if i < len(before) and not before[i] else None

    return [old_id.get(word) if word else same_place(i) for i, word in enumerate(words_of(new))]


def encoded(documents: Sequence[str], tokenizer: Tokenizer) -> list[Int[Tensor, " N"]]:
    """The ids of each document that is not empty, the end-of-text token after each."""
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    found = [torch.tensor([*ids, *end], dtype=torch.int32) for ids in map(tokenizer.encode, documents) if ids]
    if not found:
        raise DataError("there is no text to train on: every document is empty.")
    return found


def unknown_share(documents: Sequence[Tensor], tokenizer: Tokenizer) -> float:
    """Share of tokens that the vocabulary does not know."""
    unknown = tokenizer.model.unknown if isinstance(tokenizer, Pipeline) else None  # type: ignore[attr-defined]
    if unknown is None:
        return 0.0
    return sum(int((d == unknown).sum()) for d in documents) / sum(map(len, documents))
