"""The loop of GloVe: co-occurrences counted once, then learned one stretch after another."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineal.errors import CheckpointError
from lineal.recipes.config import GloveConfig, GloveOptions
from lineal.representations.glove import Glossary, Glove, core
from lineal.representations.near import PAIR, count, merged, pairs_of, shuffled, spill
from lineal.representations.word2vec import padded
from lineal.train.console import note
from lineal.train.files import remove_folder
from lineal.train.manifest import verify_folder, write_folder
from lineal.train.run import Run
from lineal.train.vectors.corpus import open_corpus, read_vocabulary
from lineal.train.vectors.files import write_final
from lineal.train.vectors.session import Stretch, go

PAIRS = "pairs.bin"


def plan(config: GloveConfig) -> list[str]:
    """What a run would do, without doing it."""
    asked, vocabulary = config.vectors, read_vocabulary(config.corpus)
    size = 16 * len(vocabulary) * padded(asked.dim)
    return [
        f"minimise Σ over pairs of f(x) (w·v + b + c - log x)² / 2, f(x) = min(1, (x / {asked.x_max:g})^{asked.alpha:g})",
        f"data: {len(vocabulary):,} words, {vocabulary.total:,} of text",
        f"x: within {asked.window} words" + (", on both sides" if asked.symmetric else " before a word"),
        f"vectors: 2 x {len(vocabulary):,} x {asked.dim}, {asked.epochs} epochs",
        f"memory, about: {asked.memory} MiB while counting, then {size / 2**20:.0f} MiB, and as much again while it is saved",
    ]


def open_pairs(folder: Path, ids_N: NDArray[np.int32], options: GloveOptions, seed: int) -> np.ndarray:
    """The co-occurrences that the run has on disk, or the corpus counted into it: mapped, in the order of learning."""
    try:
        verify_folder(folder)
    except CheckpointError:
        work = folder.with_name(folder.name + ".work")
        if work.exists():
            remove_folder(work)
        parts = spill(count(ids_N, options.window, options.symmetric, options.memory), work)
        blocks = shuffled(pairs_of(merged(parts), options.symmetric), seed, work, options.memory)
        write_folder(folder, {PAIRS: (block.tobytes() for block in blocks)}, {}, durable=False)
        if work.exists():
            remove_folder(work)
    found = np.memmap(folder / PAIRS, PAIR, "r")
    note(f"{len(found):,} co-occurrences")
    return found


def run(config: GloveConfig, run: Run) -> None:
    """Train vectors of words; resumes by itself, in the middle of an epoch, when the run folder holds a checkpoint."""
    if run.final.exists():
        return
    asked = config.vectors
    corpus = open_corpus(run.path / "corpus", config.corpus, asked.window)
    pairs = open_pairs(run.path / "cooccurrence", corpus.ids, asked, config.run.seed)
    method = Glove(asked.dim, asked.x_max, asked.alpha, asked.learning_rate)
    glossary = Glossary(method, len(corpus.vocabulary), pairs, config.run.seed)
    size = config.run.step_size or max(1000, math.ceil(len(pairs) * asked.epochs / 200))
    each = math.ceil(len(pairs) / size)

    def step(number: int) -> Stretch:
        first = (number - 1) % each * size
        last = min(len(pairs), first + size)
        loss = glossary.train(first, last, config.run.threads)
        return Stretch(loss, last - first, last - first, {"learning_rate": asked.learning_rate})

    done = go(config.run, run, glossary, each * asked.epochs, step, core=core(), mark=corpus.mark)
    facts = {"co-occurrences": f"{len(pairs):,}", "window": asked.window, "x_max": asked.x_max, "steps": done}
    write_final(run, "glove", corpus.vocabulary.words, glossary.vectors(), facts)
