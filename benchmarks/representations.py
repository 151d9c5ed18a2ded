"""word2vec beside gensim, GloVe beside its authors' program: speed, quality over seeds, worked examples, determinism.

    python benchmarks/representations.py --json [--save] [--quick] [--only speed/exact]

Both sides read the same sentences (novels in English) and take turns; gensim is measured with its sentences in memory and
with its corpus file, and the faster of the two counts. Speeds are words of the text per second of wall time while training, in
the median of the rounds. Needs the [bench] extra and the data sets that LINEAL_TEST_DATA names. The program of GloVe's authors
is not built here: its figures are those measured for it before (1.2 million words, window 10, dimension 100, one thread).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import harness
import numpy as np
from harness import Figure

from lineal.representations.glove import Glossary, Glove
from lineal.representations.near import PAIR, count, merged, pairs_of, shuffled
from lineal.representations.vectors import Vectors
from lineal.representations.word2vec import Embedding, Word2Vec, pairs
from lineal.representations.words import Vocabulary, count_words, encode, letters, sentences, spaces

GLOVE_COUNTING, GLOVE_TRAINING = 677_000, 466_000
"""The authors' program: words a second counted, and co-occurrences a second learned."""
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Text:
    """Sentences as lists of words, and the same as ids."""

    sentences: list[list[str]]
    vocabulary: Vocabulary
    ids: np.ndarray

    @property
    def words(self) -> int:
        """How many words they have, rare ones included."""
        return sum(map(len, self.sentences))


def text_of(content: str, words: int) -> Text:
    """The first sentences of a text, up to so many words."""
    kept: list[list[str]] = []
    size = 0
    for sentence in sentences([content.splitlines()], letters):
        if size >= words:
            break
        kept.append(sentence)
        size += len(sentence)
    vocabulary = Vocabulary.of(count_words(kept), 5)
    return Text(kept, vocabulary, np.concatenate(list(encode(kept, vocabulary))))


# ---------------------------------------------------------------------------------------------------------------- speed

SETTINGS: dict[str, tuple[Word2Vec, int, float]] = {
    "exact, 1 thread": (Word2Vec(), 1, 1.0),
    "exact, 2 threads": (Word2Vec(), 2, 1.0),
    "shared, 1 thread": (Word2Vec(shared=True), 1, 2.5),
    "shared, 2 threads": (Word2Vec(shared=True), 2, 2.5),
    "tree, 1 thread": (Word2Vec(output="tree"), 1, 1.8),
    "dim 300, exact, 2 threads": (Word2Vec(dim=300), 2, 1.0),
    "dim 300, shared, 2 threads": (Word2Vec(dim=300, shared=True), 2, 1.3),
}
"""What is measured: the method, its threads, and how many times gensim's speed it must reach."""


def gensim_model(method: Word2Vec, text: Text, threads: int, seed: int = 1) -> Any:
    """gensim's model of the same method, its vocabulary built."""
    from gensim.models import Word2Vec as Peer

    model = Peer(
        vector_size=method.dim, window=method.window, sg=int(method.model == "skipgram"),
        hs=int(method.output == "tree"), negative=method.negatives if method.output == "negative" else 0,
        sample=method.sample, alpha=method.rate, min_alpha=method.final_rate, min_count=5, workers=threads, seed=seed,
    )  # fmt: skip
    model.build_vocab(text.sentences)
    return model


def speed(text: Text, folder: Path, rounds: int, wanted: Callable[[str], bool]) -> Iterator[Figure]:
    """Words a second of each setting, ours and gensim's taking turns."""
    file = folder / "sentences.txt"
    file.write_text("".join(" ".join(words) + "\n" for words in text.sentences))
    for name in SETTINGS:
        if wanted(f"speed/{name}"):
            yield speed_of(name, text, file, rounds)


def speed_of(name: str, text: Text, file: Path, rounds: int) -> Figure:
    """One setting's figure."""
    method, threads, least = SETTINGS[name]
    ours = Embedding(method, text.vocabulary, text.ids, 1)
    peer = gensim_model(method, text, threads)
    total = {"total_examples": len(text.sentences), "total_words": text.words, "epochs": 1}
    seconds = harness.interleaved(
        {
            "ours": lambda: ours.train(0, 0, len(text.ids), threads),
            "gensim": lambda: peer.train(corpus_iterable=text.sentences, **total),
            "gensim, file": lambda: peer.train(corpus_file=str(file), **total),
        },
        rounds,
    )
    speeds = {side: text.words / harness.median(times) for side, times in seconds.items()}
    best = max(speeds["gensim"], speeds["gensim, file"])
    return Figure(
        f"speed/{name}", speeds["ours"], best, "words/s", f">= {least} x gensim", speeds["ours"] >= least * best,
        details={side: round(value) for side, value in speeds.items()},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- GloVe


def counting(file: Path, vocabulary: Vocabulary, folder: Path) -> int:
    """What the authors' `cooccur` does: read words between spaces, look them up, count, merge and write."""
    with open(file) as lines:
        ids = np.concatenate(list(encode(sentences([lines], spaces), vocabulary)))
    written = 0
    with open(folder / "pairs", "wb") as out:
        for block in pairs_of(merged(list(count(ids, 10)))):
            out.write(block.tobytes())
            written += len(block)
    return written


def glove(text: Text, folder: Path, rounds: int, wanted: Callable[[str], bool]) -> Iterator[Figure]:
    """Words counted and co-occurrences learned a second."""
    file = folder / "words.txt"
    file.write_text("".join(" ".join(words) + "\n" for words in text.sentences))
    if wanted("glove/counting"):
        seconds = harness.interleaved({"ours": lambda: counting(file, text.vocabulary, folder)}, rounds)[
            "ours"
        ]
        found = text.words / harness.median(seconds)
        yield Figure(
            "glove/counting", found, GLOVE_COUNTING, "words/s", ">= 2 x the authors' program (measured before)",
            found >= 2 * GLOVE_COUNTING,
        )  # fmt: skip
    if wanted("glove/training"):
        blocks = shuffled(pairs_of(merged(list(count(text.ids, 10)))), 0, folder / "heaps")
        learned = np.concatenate(list(blocks))
        model = Glossary(Glove(), len(text.vocabulary), learned)
        seconds = harness.interleaved({"ours": lambda: model.train(0, len(learned))}, rounds)["ours"]
        found = len(learned) / harness.median(seconds)
        yield Figure(
            "glove/training", found, GLOVE_TRAINING, "co-occurrences/s",
            ">= 1.2 x the authors' program (measured before)", found >= 1.2 * GLOVE_TRAINING,
            details={"co-occurrences": len(learned), "bytes each": PAIR.itemsize},
        )  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- quality


def judged(vectors: Vectors) -> dict[str, float]:
    """Share of analogies answered, and Spearman's rho on two sets of pairs."""
    from lineal.representations.analogies import evaluate_analogies, read_questions
    from lineal.representations.similarity import evaluate_similarity, read_pairs

    folder = Path(os.environ["LINEAL_TEST_DATA"]) / "word_eval"
    sections = evaluate_analogies(vectors, read_questions(folder / "questions-words.txt.gz"))
    answered = sum(score.covered for score in sections)
    found = {"analogies": sum(score.right for score in sections) / max(1, answered)}
    for name, file in (("WS353", "EN-WS-353-ALL.txt"), ("SimLex", "EN-SIMLEX-999.txt")):
        rho = evaluate_similarity(vectors, read_pairs(folder / file)).rho
        found[name] = math.nan if rho is None else rho
    return found


def trained(side: str, text: Text, seed: int, epochs: int, threads: int) -> Vectors:
    """Vectors of one side and seed."""
    if side == "gensim":
        model = gensim_model(Word2Vec(), text, threads, seed + 1)
        model.train(text.sentences, total_examples=len(text.sentences), total_words=text.words, epochs=epochs)
        return Vectors(list(model.wv.index_to_key), model.wv.vectors)
    ours = Embedding(Word2Vec(shared=side == "shared"), text.vocabulary, text.ids, epochs, seed)
    for epoch in range(epochs):
        ours.train(epoch, 0, len(text.ids), threads)
    return Vectors(list(text.vocabulary.words), ours.vectors())


def quality(text: Text, seeds: tuple[int, ...], epochs: int) -> Iterator[Figure]:
    """Means over seeds of each measure, and whether ours differ from gensim's by more than its own spread."""
    found: dict[str, list[dict[str, float]]] = {"gensim": [], "exact": [], "shared": []}
    for seed in seeds:
        for side, results in found.items():
            results.append(judged(trained(side, text, seed, epochs, threads=2)))
            print(f"seed {seed} {side}: {results[-1]}", file=sys.stderr)
    for side in ("exact", "shared"):
        for measure in ("analogies", "WS353", "SimLex"):
            peer, ours = ([one[measure] for one in found[name]] for name in ("gensim", side))
            mean, target = statistics.mean(ours), statistics.mean(peer)
            spread = statistics.stdev(peer) if len(peer) > 1 else math.inf
            yield Figure(
                f"quality/{side}, {measure}", mean, target, "share" if measure == "analogies" else "rho",
                "not below gensim's mean by more than 2 of its standard deviations", mean >= target - 2 * spread,
                seeds=seeds, details={"ours": ours, "gensim": peer, "standard deviation": spread},
            )  # fmt: skip


# ------------------------------------------------------------------------------------------- worked examples, determinism


def worked() -> Figure:
    """P(pizza | is) = 1 / 4 of two documents within one word, and the pairs of a sentence."""
    lines = ["Pizza is the best", "Margherita is my favorite"]
    vocabulary = Vocabulary.of(count_words(sentences([lines], letters)), 1)
    ids, index = np.concatenate(list(encode(sentences([lines], letters), vocabulary))), vocabulary.index()
    found = np.concatenate(list(pairs_of(merged(list(count(ids, 1))))))
    row = found[found["row"] == index["is"]]
    share = float(row["count"][row["column"] == index["pizza"]].sum() / row["count"].sum())
    right = list(pairs(["a", "b", "c"], 1)) == [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")]
    return Figure("worked examples", share, 0.25, "P(pizza | is)", "exact", share == 0.25 and right)


def determinism(folder: Path, content: str) -> Iterator[Figure]:
    """One thread, twice, and killed in its middle and resumed: the same file of vectors."""
    (folder / "text.txt").write_text(content)
    for recipe, options in (("word2vec", ["--epochs", "2"]), ("glove", ["--epochs", "5", "--dim", "50"])):
        command = [
            sys.executable,
            "-m",
            "lineal",
            "run",
            recipe,
            "--data",
            str(folder / "text.txt"),
            "--quiet",
        ]
        command += [*options, "--save-every", "3"]
        for name in ("once", "twice"):
            subprocess.run(
                [*command, "--out", str(folder / recipe / name)], check=True, stdout=subprocess.DEVNULL
            )
        broken = folder / recipe / "broken"
        process = subprocess.Popen([*command, "--out", str(broken)], stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(broken.glob("checkpoints/step-*")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        harness.lineal("resume", str(broken))
        names = [
            path / "final" / "vectors.bin"
            for path in (folder / recipe / n for n in ("once", "twice", "broken"))
        ]
        hashes = {hashlib.sha256(name.read_bytes()).hexdigest() for name in names}
        yield Figure(
            f"determinism/{recipe}", len(hashes), 1, "different files of vectors",
            "run twice, and killed and resumed: bit-identical", len(hashes) == 1, details={"killed in its middle": killed},
        )  # fmt: skip


def tfidf(arguments: argparse.Namespace) -> Iterator[Figure]:
    """TF-IDF's figures, of tfidf.py beside this file."""
    spec = importlib.util.spec_from_file_location("benchmark_tfidf", Path(__file__).with_name("tfidf.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield from module.tfidf(arguments.quick)


GROUPS = ("speed", "glove", "worked examples", "determinism", "tf-idf", "quality")


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Every figure, or those whose names begin as asked."""
    only = arguments.only or ""
    if not any(name.startswith(only) or only.startswith(name) for name in GROUPS):
        sys.exit(f"--only {only}: no figure begins so; there are {', '.join(GROUPS)}.")

    def wanted(name: str) -> bool:
        return name.startswith(only) or only.startswith((f"{name}/", f"{name} "))

    quick, novels = arguments.quick, harness.text("novels_en/train-00.txt.gz")
    rounds = 1 if quick else arguments.rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if wanted("speed") or wanted("glove"):
            text = text_of(novels, 50_000 if quick else 1_200_000)
            yield from speed(text, folder, rounds, wanted)
            yield from glove(text, folder, rounds, wanted)
        if wanted("worked examples"):
            yield worked()
        if wanted("determinism"):
            yield from determinism(folder, novels[: 300_000 if quick else 3_000_000])
        if wanted("tf-idf"):
            yield from (figure for figure in tfidf(arguments) if figure.figure.startswith(only))
    if wanted("quality"):
        parts = [
            novels,
            harness.text("novels_en/train-01.txt.gz"),
            harness.text("wikitext2/valid.txt.gz"),
            harness.text("wikitext2/test.txt.gz"),
        ]
        text = text_of("\n".join(parts), 200_000 if quick else 1 << 40)
        yield from quality(text, SEEDS[:2] if quick else SEEDS, 1 if quick else arguments.epochs)


def options(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument(
        "--only", help="figures whose names begin so: speed, speed/exact, glove, quality, determinism"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small texts, one round: that it works, not how fast"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each side (5)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the quality figures (3)")


if __name__ == "__main__":
    sys.exit(harness.main("representations", measure, options))
