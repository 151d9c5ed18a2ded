"""Vectors in a .safetensors file: a matrix that is mapped into memory, not read, and the words, one a line, as bytes.

Tensors: `matrix` F32 [V, D], `words` U8 [N]: the words in UTF-8 with a line feed between two. Opening takes the time that
cutting the words apart takes, a fifth of a second for three million; pages of the matrix come from the disk when they are
used, and are shared by all processes that have the file open.
"""

from __future__ import annotations

import json
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from lineal.errors import DataError
from lineal.representations.vectors import Vectors
from lineal.representations.writing import replaced

ROWS = 1 << 14


def open_mapped(path: Path, limit: int | None = None) -> Vectors:
    """The vectors of a file, the matrix mapped read-only; DataError where the file is not what its header says."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, 1 << 26):
            raise _damaged(path, "its header is longer than the file")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"its header is no JSON ({error})") from error
        start, end, _ = _tensor(path, header, "words", "U8", 1, size - 8 - length)
        file.seek(8 + length + start)
        text = file.read(end - start)
        offset, _, shape = _tensor(path, header, "matrix", "F32", 2, size - 8 - length)
    try:
        words = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise _damaged(path, f"its words are no UTF-8 ({error.reason} at byte {error.start})") from error
    if len(words) != shape[0]:
        raise _damaged(path, f"it has {len(words)} words and {shape[0]} vectors")
    matrix = np.memmap(path, dtype="<f4", mode="r", offset=8 + length + offset, shape=(shape[0], shape[1]))
    vectors = Vectors(words, matrix)
    return vectors if limit is None else vectors.first(limit)


def _tensor(
    path: Path, header: Any, name: str, kind: str, axes: int, size: int
) -> tuple[int, int, list[int]]:
    """Where a tensor starts and ends in the data, and its shape."""
    entry = header.get(name) if isinstance(header, dict) else None
    if not isinstance(entry, dict):
        raise DataError(f"{path} has no tensor {name!r}: it holds something else than word vectors.")
    try:
        start, end = map(index, entry["data_offsets"])
        shape = list(map(index, entry["shape"]))
        sound = (
            entry["dtype"] == kind
            and len(shape) == axes
            and 0 <= start <= end <= size
            and min(shape) >= axes - 1
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"the entry of {name!r} is not one of a tensor ({error})") from error
    if not sound or end - start != int(np.prod(shape, dtype=object)) * (4 if kind == "F32" else 1):
        raise _damaged(
            path, f"the tensor {name!r} ({entry['dtype']} {shape}) does not fit in its {size} bytes of data"
        )
    return start, end, shape


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is damaged: {why}. Write or fetch it again.")


def write_mapped(path: Path, vectors: Vectors) -> None:
    """Write vectors so that they can be mapped; DataError for a word with a line feed."""
    for row, word in enumerate(vectors.words):
        if "\n" in word:
            raise DataError(
                f"The word {word!r} (row {row}) has a line feed, which ends a word in {path}: rename it."
            )
    text = "\n".join(vectors.words).encode()
    size = 4 * len(vectors) * vectors.dimensions
    header = {
        "__metadata__": {"format": "lineal.vectors"},
        "matrix": {"dtype": "F32", "shape": list(vectors.matrix.shape), "data_offsets": [0, size]},
        "words": {"dtype": "U8", "shape": [len(text)], "data_offsets": [size, size + len(text)]},
    }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with replaced(path) as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for at in range(0, len(vectors), ROWS):
            file.write(np.ascontiguousarray(vectors.matrix[at : at + ROWS], dtype="<f4").tobytes())
        file.write(text)
