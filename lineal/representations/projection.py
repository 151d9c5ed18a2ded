"""From D dimensions to two: principal components of our own, t-SNE and UMAP through libraries; and files for a projector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from lineal.errors import DataError, UsageError
from lineal.representations.vectors import Vectors, unit_rows
from lineal.representations.writing import replaced

METHODS = ("pca", "tsne", "umap")


def project(
    matrix_ND: Float32[np.ndarray, "N D"], method: str = "pca", *, seed: int = 0
) -> Float64[np.ndarray, "N 2"]:
    """Places in the plane of rows scaled to length 1, so that near means a high cosine.

    pca: the two directions of greatest variance; t-SNE and UMAP keep neighbours together instead of distances, and
    need scikit-learn or umap-learn (the extra `maps`). Raises DataError for fewer than three rows.
    """
    if method not in METHODS:
        raise UsageError(f"method={method!r} can't be: choose one of {', '.join(METHODS)}.")
    if len(matrix_ND) < 3:
        raise DataError(f"{len(matrix_ND)} words make no map: give at least 3.")
    unit_ND = unit_rows(matrix_ND)
    if method == "pca":
        return principal_components(unit_ND.astype(np.float64))[0]
    return (_tsne if method == "tsne" else _umap)(unit_ND, seed)


def principal_components(
    matrix_ND: Float64[np.ndarray, "N D"], count: int = 2
) -> tuple[Float64[np.ndarray, "N K"], Float64[np.ndarray, " K"]]:
    """Coordinates along the directions of greatest variance, and the share of the variance that each explains.

    By singular value decomposition of the centred rows; the sign of a direction is such that its largest entry is positive, so
    that the same data always give the same picture. Directions beyond the rank are 0.
    """
    centred = matrix_ND - matrix_ND.mean(axis=0)
    left, value, right = np.linalg.svd(centred, full_matrices=False)
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    scores = np.zeros((len(matrix_ND), count))
    share = np.zeros(count)
    found = min(count, len(value))
    scores[:, :found] = (left * value * np.where(sign == 0, 1, sign))[:, :found]
    whole = float((value**2).sum())
    share[:found] = value[:found] ** 2 / whole if whole else 0.0
    return scores, share


def _tsne(unit_ND: Float32[np.ndarray, "N D"], seed: int) -> Float64[np.ndarray, "N 2"]:
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise UsageError(
            "A t-SNE map needs scikit-learn: pip install 'lineal[maps]', or take pca."
        ) from error
    perplexity = min(30.0, (len(unit_ND) - 1) / 3)
    return (
        TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit_ND).astype(np.float64)
    )


def _umap(unit_ND: Float32[np.ndarray, "N D"], seed: int) -> Float64[np.ndarray, "N 2"]:
    try:
        from umap import UMAP
    except ImportError as error:
        raise UsageError("A UMAP map needs umap-learn: pip install 'lineal[maps]', or take pca.") from error
    neighbours = min(15, len(unit_ND) - 1)
    made = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, init="random").fit_transform(
        unit_ND
    )
    return np.asarray(made, dtype=np.float64)


def write_projector(
    folder: str | Path, vectors: Vectors, columns: dict[str, Sequence[object]] | None = None
) -> list[Path]:
    """vectors.tsv and metadata.tsv, as the Embedding Projector (projector.tensorflow.org) loads them.

    columns: further things to know about each word. A file of one column has no head, one of several has. Raises DataError for a
    word with a tab or a line break.
    """
    folder, more = Path(folder), columns or {}
    for name, values in more.items():
        if len(values) != len(vectors):
            raise DataError(
                f"The column {name!r} has {len(values)} values for {len(vectors)} words: give one of each."
            )
    for word in vectors.words:
        if any(mark in word for mark in "\t\n\r"):
            raise DataError(f"The word {word!r} can't stand in a .tsv file: it has a tab or a line break.")
    with replaced(folder / "vectors.tsv") as file:
        for row_D in vectors.matrix:
            file.write(("\t".join(map(str, np.asarray(row_D).astype("U32"))) + "\n").encode())
    with replaced(folder / "metadata.tsv") as file:
        if more:
            file.write(("\t".join(["word", *more]) + "\n").encode())
        for row in zip(vectors.words, *more.values()):
            file.write(("\t".join(map(str, row)) + "\n").encode())
    return [folder / "vectors.tsv", folder / "metadata.tsv"]
