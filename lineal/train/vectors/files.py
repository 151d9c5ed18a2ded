"""The finished vectors in a run's `final/`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lineal.representations.subwords import Subwords
from lineal.train.checkpoint import tensor_chunks
from lineal.train.files import write_file

VECTORS, NGRAMS = "vectors.bin", "ngrams.safetensors"


def save_words(folder: Path, words: Sequence[str], matrix_VD: NDArray[np.float32]) -> None:
    """Write FOLDER/vectors.bin, in word2vec's binary form."""
    write_word2vec(folder / VECTORS, words, matrix_VD)


def write_word2vec(path: Path, words: Sequence[str], matrix_VD: NDArray[np.float32]) -> None:
    """word2vec's binary form: "V D" on a line; for each word it, a space, D float32 (little-endian), a line end."""
    with open(path, "wb") as file:
        file.write(f"{len(words)} {matrix_VD.shape[1]}\n".encode())
        for word, vector_D in zip(words, matrix_VD.astype("<f4", copy=False)):
            file.write(word.encode() + b" " + vector_D.tobytes() + b"\n")


def save_ngrams(folder: Path, subwords: Subwords, ngram_BD: NDArray[np.float32]) -> None:
    """Write the n-grams' vectors and how words are cut into them, for words that were never seen."""
    write_file(folder / NGRAMS, tensor_chunks({"ngrams": torch.from_numpy(ngram_BD)}))
    (folder / "subwords.json").write_text(json.dumps(vars(subwords), indent=2) + "\n", encoding="utf-8")


def card(recipe: str, facts: Mapping[str, Any]) -> str:
    """A card with the front matter that hubs read."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return (
        f"---\nlibrary_name: lineal\ntags: [lineal, {recipe}, word-vectors]\n---\n"
        f"# Word vectors trained by `lineal run {recipe}`\n\n`vectors.bin` is in word2vec's binary form.\n\n"
        f"| fact | value |\n|---|---|\n{rows}\n"
    )
