"""One vocabulary for both languages, learned from all training sentences, with the special tokens of the paper's code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lineal.errors import ModelError
from lineal.generate.translate import Ids
from lineal.tokenizers import Tokenizer, decode, load_tokenizer
from lineal.tokenizers.base import SETTINGS, TOKENIZER
from lineal.tokenizers.opening import open_tokenizer
from lineal.tokenizers.text import normalise
from lineal.tokenizers.training import KINDS, Learning, Parts, train

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
ROLES = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"}


def _parts(kind: str) -> Parts:
    """A word has the same pieces wherever it stands: at the start of a sentence too, and before a full stop."""
    known = replace(KINDS[kind].parts, special=SPECIAL, roles=ROLES)
    if kind == "bpe":
        decoder = decode.Decoders((decode.ByteLevel(), decode.Strip(" ", 1, 0)))
        return replace(known, normaliser=normalise.Prepend(" "), decoder=decoder)
    return known


def learn(sources: list[str], targets: list[str], kind: str, vocab_size: int) -> Tokenizer:
    """A tokenizer of both sides together: bpe over bytes (nothing is unknown), or unigram (▁ for spaces, bytes for the rare).

    A folder's name opens the tokenizer there instead.
    """
    if kind not in ("bpe", "unigram"):
        return open_tokenizer(kind)
    name = "bpe" if kind == "bpe" else "sentencepiece"
    return train(
        name, texts=[*sources, *targets], parts=_parts(name), learning=Learning(vocab_size=vocab_size)
    )


def remembered(folder: Path, make: Callable[[], Tokenizer]) -> Tokenizer:
    """The tokenizer that a run saved in this folder when it began, else a new one, saved there."""
    if not ((folder / TOKENIZER).is_file() and (folder / SETTINGS).is_file()):
        make().save(folder)
    # Opened as it will be later: what is trained and what translates can't differ.
    return load_tokenizer(folder)


def ids_of(tokenizer: Tokenizer) -> Ids:
    """Where targets start and end, and what fills rows; a tokenizer without <s> starts with </s>, without <pad> too."""
    end = tokenizer.eos_id
    if end is None:
        raise ModelError(
            "the tokenizer has no end-of-sentence token (</s>): a translation could not end. Give another one."
        )
    start = tokenizer.bos_id if tokenizer.bos_id is not None else end
    return Ids(start, end, tokenizer.pad_id if tokenizer.pad_id is not None else end)
