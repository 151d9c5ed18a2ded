"""word2vec's binary form: "V D\\n", then for each word its bytes, a space and D little-endian float32.

word2vec.c ends a vector with a line feed, gensim does not; both are read, and what is written is gensim's.
"""

from __future__ import annotations

from io import BufferedIOBase
from pathlib import Path

import numpy as np

from lineal.errors import DataError
from lineal.representations.vector_text import Reading, Words, header_of
from lineal.representations.vectors import Vectors
from lineal.representations.writing import replaced

LONGEST_WORD = 1 << 16
ROWS = 1 << 14


def read_binary(file: BufferedIOBase, reading: Reading) -> Vectors:
    """The vectors of an open file; DataError, with the number of the record, where the file is not what it says."""
    claim = header_of(file.readline(64))
    if claim is None or not claim.dimensions or not claim.count:
        raise reading.bad(
            1, "the first line must say how many vectors there are and of how many numbers: V D."
        )
    width, count = 4 * claim.dimensions, claim.count
    if width > 1 << 30:
        raise reading.bad(
            1, f"vectors of {claim.dimensions} numbers can't be: the file is damaged, or no file of vectors."
        )
    wanted = count if reading.limit is None else min(count, reading.limit)
    words, blocks, data, at, done = Words(reading), [], b"", 0, 0
    rows: list[np.ndarray] = []
    while done < count and len(words.lines) < wanted:
        if len(data) - at < width + LONGEST_WORD:
            data, at = data[at:] + file.read(max(1 << 24, 2 * (width + LONGEST_WORD))), 0
        while data[at : at + 1] == b"\n":
            at += 1
        end = data.find(b" ", at, at + LONGEST_WORD)
        if end < 0 or end + 1 + width > len(data):
            raise _short(reading, done, count, data[at : at + 40], end)
        done += 1
        if words.add(data[at:end], done, f"record {done}"):
            rows.append(np.frombuffer(data, dtype="<f4", count=claim.dimensions, offset=end + 1))
        at = end + 1 + width
        if len(rows) == ROWS:
            blocks.append(_checked(rows, reading, words))
            rows = []
    if done == count and (data[at:] + file.read(1)).strip(b"\n"):
        raise DataError(
            f"{reading.path}:1: line 1 says {count} vectors of {claim.dimensions} numbers, and there is more behind them: the line is wrong."
        )
    if rows:
        blocks.append(_checked(rows, reading, words))
    return Vectors(list(words.lines), np.concatenate(blocks))


def _checked(rows: list[np.ndarray], reading: Reading, words: Words) -> np.ndarray:
    block_ND = np.stack(rows).astype(np.float32, copy=False)
    finite = np.isfinite(block_ND).all(axis=1)
    if not finite.all():
        names = list(words.lines)[-len(rows) :]
        name = names[int(np.argmin(finite))]
        raise DataError(
            f"{reading.path}: record {words.lines[name]}: the vector of {name!r} is not finite: the file is damaged, or line 1 is wrong."
        )
    return block_ND


def _short(reading: Reading, done: int, count: int, start: bytes, end: int) -> DataError:
    if end < 0 and len(start) == 40:
        return DataError(
            f"{reading.path}: record {done + 1}: no word ends after {start!r}: line 1 is wrong about the length of a vector."
        )
    return DataError(
        f"{reading.path}: record {done + 1}: the file ends after {done} of the {count} vectors that line 1 says: it was cut "
        "short, or the line is wrong."
    )


def write_binary(path: Path, vectors: Vectors) -> None:
    """Write word2vec's binary form; DataError for a word that it can't hold."""
    for record, word in enumerate(vectors.words, 1):
        if not word or " " in word or word.startswith("\n") or "\x00" in word:
            raise DataError(
                f"The word {word!r} can't stand in record {record} of {path}, where a space ends a word: rename it, or write .safetensors."
            )
        if 4 * len(word) >= LONGEST_WORD and len(word.encode()) >= LONGEST_WORD:
            raise DataError(
                f"The word {word[:20]!r}... in record {record} of {path} has {len(word):,} characters: shorten it, or write .safetensors."
            )
    with replaced(path) as file:
        file.write(f"{len(vectors)} {vectors.dimensions}\n".encode())
        for word, row_D in zip(vectors.words, vectors.matrix):
            file.write(word.encode() + b" " + np.asarray(row_D, dtype="<f4").tobytes())
