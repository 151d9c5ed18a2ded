"""The loop of word2vec: one stretch of the text after another, each a step that is logged and may be saved."""

from __future__ import annotations

import math

import numpy as np

from lineal.errors import UsageError
from lineal.recipes.config import Word2VecConfig
from lineal.representations.subwords import Subwords
from lineal.representations.word2vec import Embedding, Word2Vec, core, padded
from lineal.train.run import Run
from lineal.train.vectors.corpus import open_corpus, read_vocabulary
from lineal.train.vectors.files import write_final
from lineal.train.vectors.session import Stretch, go

SOFTMAX_WORDS = 5000
FORMULAS = {
    "negative": "maximise mean over pairs of log σ(x·y) + Σ over {k} negatives n ~ count^.75 of log σ(-x·y_n)",
    "tree": "maximise mean over pairs of Σ over the nodes of the word's way of log σ(±x·y_node)",
    "softmax": "maximise mean over pairs of log softmax(x·Y)[word]",
}


def method_of(config: Word2VecConfig) -> Word2Vec:
    """What the options ask to be learned."""
    asked = config.vectors
    subwords = Subwords(asked.min_ngram, asked.max_ngram, asked.buckets) if asked.subwords else None
    return Word2Vec(
        asked.model, asked.output, asked.dim, asked.window, asked.dynamic, asked.negatives, asked.shared,
        asked.sample, asked.sampling, asked.learning_rate, asked.final_rate, subwords,
    )  # fmt: skip


def plan(config: Word2VecConfig) -> list[str]:
    """What a run would do, without doing it."""
    method, vocabulary = method_of(config), read_vocabulary(config.corpus)
    rows = 2 * len(vocabulary) + (method.subwords.buckets if method.subwords else 0)
    x = "x the vector of a word near y" if method.model == "skipgram" else "x the mean of the words near y"
    negatives = f"{method.negatives}" + (", the same for a whole window," if method.shared else "")
    return [
        f"{FORMULAS[method.output].format(k=negatives)}, {x}",
        f"data: {len(vocabulary):,} words, {vocabulary.total:,} of text, {config.vectors.epochs} times",
        f"vectors: {rows:,} x {method.dim}",
        f"memory, about: {rows * padded(method.dim) * 4 / 2**20:.0f} MiB, and as much again while it is saved",
    ]


def run(config: Word2VecConfig, run: Run) -> None:
    """Train vectors of words; resumes by itself, in the middle of an epoch, when the run folder holds a checkpoint."""
    if run.final.exists():
        return
    method, options = method_of(config), config.vectors
    corpus = open_corpus(run.path / "corpus", config.corpus, options.window)
    if method.output == "softmax" and len(corpus.vocabulary) > SOFTMAX_WORDS:
        raise UsageError(
            f"--output softmax with {len(corpus.vocabulary):,} words: each pair would cost as much as all of them. It is for "
            f"small vocabularies: --max-words {SOFTMAX_WORDS} or fewer, or --output negative."
        )
    embedding = Embedding(method, corpus.vocabulary, corpus.ids, options.epochs, config.run.seed)
    places = len(corpus.ids)
    size = config.run.step_size or max(1000, math.ceil(places * options.epochs / 200))
    each = math.ceil(places / size)

    def step(number: int) -> Stretch:
        epoch, part = divmod(number - 1, each)
        first = part * size
        last = min(places, first + size)
        loss, count = embedding.train(epoch, first, last, config.run.threads)
        return Stretch(
            loss, count, last - first, {"learning_rate": embedding.job.rate_at(epoch * places + first)}
        )

    done = go(config.run, run, embedding, each * options.epochs, step, core=core(), mark=corpus.mark)
    ngrams = None
    if method.subwords:
        ngrams = method.subwords, np.ascontiguousarray(embedding.state()["inputs"][len(corpus.vocabulary) :])
    facts = {"model": method.model, "output": method.output, "window": method.window, "steps": done}
    write_final(run, "word2vec", corpus.vocabulary.words, embedding.vectors(), facts, ngrams)
