"""Files of word vectors: those of word2vec, GloVe and fastText, and one that is mapped into memory.

Formats, by name: `word2vec` (text, "V D" on its first line; fastText's .vec is the same), `word2vec-binary`, `glove` (text
without a first line), `lineal` (.safetensors). Only the last can be opened without reading it: in text and in word2vec's
binary form a vector lies wherever the words before it end. So gigabytes are converted once, and open in well under a second.
No pickle is read: gensim's own files go through its `save_word2vec_format`.
"""

from __future__ import annotations

import gzip
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from lineal.errors import DataError, UsageError
from lineal.representations.vector_binary import read_binary, write_binary
from lineal.representations.vector_mapped import open_mapped, write_mapped
from lineal.representations.vector_text import BOM, Reading, header_of, read_text, write_text
from lineal.representations.vectors import Vectors

FORMATS = ("word2vec", "word2vec-binary", "glove", "lineal")
PEEK = 1 << 12
FASTTEXT = (793712314).to_bytes(4, "little")
"""How a model of fastText (.bin) begins."""


def load_vectors(
    path: str | Path,
    format: str | None = None,
    *,
    limit: int | None = None,
    duplicates: str = "refuse",
    spaces: bool = False,
) -> Vectors:
    """The vectors of a file, plain or .gz.

    format: one of `FORMATS`; by default the file's own bytes tell. limit: read no more than so many words. duplicates: "refuse"
    a word that is there twice, or keep its "first" vector. spaces: take what stands before the last D numbers of a line as
    the word even if it has spaces, as some of GloVe's files need. Raises DataError, with file and line, for a first line that is not
    true, an end that comes too soon, vectors of different lengths, and what is no number.
    """
    path = Path(path)
    if duplicates not in ("refuse", "first"):
        raise UsageError(f"duplicates={duplicates!r} can't be: choose refuse or first.")
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} words leaves none: give at least 1, or None for all.")
    reading = Reading(path, limit, duplicates == "first", spaces)
    try:
        with _opened(path) as file:
            start = file.read(PEEK).removeprefix(BOM)
            chosen = _check(format) if format else format_of(path, start)
            if chosen == "lineal":
                if isinstance(file, gzip.GzipFile):
                    raise DataError(
                        f"{path} is zipped, so it can't be mapped into memory: unzip it (gunzip)."
                    )
                return open_mapped(path, limit)
            file.seek(0)
            if chosen == "word2vec-binary":
                return read_binary(file, reading)
            return read_text(file, reading, header=chosen == "word2vec")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): check the path, and that it is whole.") from error


def save_vectors(path: str | Path, vectors: Vectors, format: str | None = None) -> Path:
    """Write vectors in one of `FORMATS`, by default the one that the name says; the file is there whole or not at all.

    .bin is word2vec's binary form, .safetensors the mapped one, .glove and glove*.txt GloVe's, everything else word2vec's text
    (fastText's .vec). Numbers of text are the shortest that give the same float32 again, so nothing is lost in any format.
    Raises DataError for a word that the format can't hold: one with spaces or line ends, or an empty one; and for no vectors.
    """
    path = Path(path)
    chosen = _check(format) if format else _format_of_name(path)
    _check_vectors(path, vectors)
    if chosen == "lineal":
        if path.suffix == ".gz":
            raise UsageError(f"{path}: what is to be mapped can't be zipped: leave .gz out.")
        write_mapped(path, vectors)
    elif chosen == "word2vec-binary":
        write_binary(path, vectors)
    else:
        write_text(path, vectors, header=chosen == "word2vec")
    return path


def _check_vectors(path: Path, vectors: Vectors) -> None:
    """DataError for what no format can hold."""
    if not len(vectors) or not vectors.dimensions:
        raise DataError(f"There is no vector to write to {path}: {vectors}.")
    for row, word in enumerate(vectors.words):
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            raise DataError(f"The word {word!r} (row {row}) is no UTF-8: it has half of a pair; rename it.")


def format_of(path: Path, start: bytes) -> str:
    """The format of a file from its first bytes; DataError for one that holds no vectors that are read here."""
    if not start:
        raise DataError(f"{path}: the file is empty (0 bytes). Did writing or fetching it finish?")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30:
        return "lineal"
    if start.startswith(FASTTEXT):
        raise DataError(f"{path} is a model of fastText: give its vectors, the .vec file beside it.")
    if start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")):
        raise DataError(
            f"{path} is pickled, and pickles can run code: load it with the library that wrote it, and save it as "
            "word2vec does (gensim: vectors.save_word2vec_format)."
        )
    first, _, rest = start.partition(b"\n")
    if header_of(first) is None:
        return "glove"
    return "word2vec-binary" if _is_binary(rest, cut=len(start) >= PEEK - len(BOM)) else "word2vec"


def _is_binary(rest: bytes, cut: bool) -> bool:
    """Whether what follows the first line is no text: its floats are neither UTF-8 nor free of control codes."""
    if any(byte < 9 or 13 < byte < 32 for byte in rest):
        return True
    try:
        rest.decode()
    except UnicodeDecodeError as error:
        # The last character may have been cut, where the file goes on.
        return not cut or error.start < len(rest) - 3
    return False


def _format_of_name(path: Path) -> str:
    name = path.name.removesuffix(".gz").lower()
    if name.endswith(".safetensors"):
        return "lineal"
    if name.endswith(".bin"):
        return "word2vec-binary"
    return (
        "glove"
        if name.endswith(".glove") or (name.startswith("glove") and name.endswith(".txt"))
        else "word2vec"
    )


def _check(format: str) -> str:
    if format not in FORMATS:
        raise UsageError(f"There is no format {format!r} of vectors: choose one of {', '.join(FORMATS)}.")
    return format


def _opened(path: Path) -> BufferedIOBase:
    """The file's bytes, unzipped if they are zipped."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name the file of vectors in it.")
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(BufferedIOBase, gzip.open(path, "rb")) if zipped else open(path, "rb")
