"""The corpus as ids, in the run's folder: read once from the text, then mapped from the disk, whatever its size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineal.errors import CheckpointError, DataError
from lineal.representations.words import (
    SPLITTERS,
    Vocabulary,
    count_words,
    encode,
    lengths,
    sentences,
)
from lineal.train.console import note, warn
from lineal.train.data import named, stream_documents
from lineal.train.files import hash_file
from lineal.train.manifest import MANIFEST, verify_folder, write_folder
from lineal.train.vectors.options import WordsOptions

WORDS, IDS = "words.txt", "ids.bin"


@dataclass(frozen=True)
class Corpus:
    """A vocabulary, and the text as its ids, END after each sentence, int32 [N]; mark: a hash of both."""

    vocabulary: Vocabulary
    ids: NDArray[np.int32]
    mark: str


def read_vocabulary(options: WordsOptions) -> Vocabulary:
    """Count the words of the text, and keep those that the options ask for."""
    try:
        return Vocabulary.of(count_words(_sentences(options)), options.min_count, options.max_words)
    except DataError as error:
        if str(error).startswith(str(options.data)):
            raise
        raise DataError(f"{options.data}: {error}") from error


def _sentences(options: WordsOptions) -> Iterator[list[str]]:
    source = named(options.data, "this recipe")
    documents = stream_documents(source, text_field=options.text_field, on_bad_row=options.on_bad_row)
    return sentences(documents, SPLITTERS[options.words], options.across_lines)


def open_corpus(folder: Path, options: WordsOptions, window: int) -> Corpus:
    """The corpus that the run has on disk, or the text read into it.

    Raises DataError where no window holds two words; warns where `window` is wider than every sentence.
    """
    try:
        verify_folder(folder)
    except CheckpointError:
        vocabulary = read_vocabulary(options)
        ids = (part.tobytes() for part in encode(_sentences(options), vocabulary))
        write_folder(folder, {WORDS: _lines(vocabulary), IDS: ids}, {}, durable=False)
    vocabulary = _read_words(folder / WORDS)
    found = Corpus(vocabulary, np.memmap(folder / IDS, np.int32, "r"), hash_file(folder / MANIFEST).sha256)
    longest = int(lengths(found.ids).max(initial=0))
    if longest < 2:
        raise DataError(
            f"{options.data}: no line has two words that are kept, so no word is near another: give longer lines, lower "
            "--min-count, or let windows go on over line ends (--across-lines)."
        )
    if window >= longest:
        warn(
            f"--window {window} reaches beyond the longest sentence ({longest} words): it acts as {longest - 1}."
        )
    note(
        f"{len(vocabulary):,} words, {vocabulary.total:,} of text in {np.count_nonzero(found.ids < 0):,} sentences"
    )
    return found


def _lines(vocabulary: Vocabulary) -> Iterable[bytes]:
    """A word and its count a line, as GloVe's and word2vec.c's vocabularies are."""
    for word, count in zip(vocabulary.words, vocabulary.counts.tolist()):
        yield f"{word} {count}\n".encode()


def _read_words(path: Path) -> Vocabulary:
    rows = [line.rsplit(" ", 1) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    return Vocabulary(tuple(word for word, _ in rows), np.array([int(count) for _, count in rows], np.int64))
