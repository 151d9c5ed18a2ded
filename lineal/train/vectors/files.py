"""The finished vectors in a run's `final/`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lineal.representations.files import save_vectors
from lineal.representations.subwords import Subwords
from lineal.representations.vectors import Vectors
from lineal.train.checkpoint import tensor_chunks
from lineal.train.console import note
from lineal.train.files import write_file
from lineal.train.run import Run

VECTORS, NGRAMS, SUBWORDS = "vectors.bin", "ngrams.safetensors", "subwords.json"


def write_final(
    run: Run,
    recipe: str,
    words: Sequence[str],
    matrix_VD: NDArray[np.float32],
    facts: Mapping[str, Any],
    ngrams: tuple[Subwords, NDArray[np.float32]] | None = None,
) -> None:
    """Write RUN/final/: vectors.bin (word2vec's binary form), a card, and the n-grams' vectors where there are some."""
    size, dim = matrix_VD.shape
    rows = {"words": f"{size:,}", "dimensions": dim, **facts}
    with run.final_folder() as folder:
        save_vectors(folder / VECTORS, Vectors(words, matrix_VD))
        if ngrams is not None:
            save_ngrams(folder, *ngrams)
        table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
        card = (
            f"---\nlibrary_name: lineal\ntags: [lineal, {recipe}, word-vectors]\n---\n"
            f"# Word vectors trained by `lineal run {recipe}`\n\n`{VECTORS}` is in word2vec's binary form.\n\n"
            f"| fact | value |\n|---|---|\n{table}\n"
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
    note(f"vectors {run.final / VECTORS}")


def save_ngrams(folder: Path, subwords: Subwords, ngram_BD: NDArray[np.float32]) -> None:
    """Write the n-grams' vectors, and how words are cut into them, for words that were never seen."""
    write_file(folder / NGRAMS, tensor_chunks({"ngrams": torch.from_numpy(ngram_BD)}))
    (folder / SUBWORDS).write_text(json.dumps(vars(subwords), indent=2) + "\n", encoding="utf-8")


def load_ngrams(folder: Path) -> tuple[Subwords, NDArray[np.float32]]:
    """What `save_ngrams` wrote: `subwords.vector(word, ngrams)` is the vector of a word that was never seen."""
    from safetensors.numpy import load_file

    how = json.loads((folder / SUBWORDS).read_text(encoding="utf-8"))
    return Subwords(**how), load_file(folder / NGRAMS)["ngrams"]
