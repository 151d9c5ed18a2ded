"""TF-IDF beside scikit-learn, and the opening of a large file of word vectors.

    python benchmarks/tfidf.py --json [--quick]

Documents are the 4000 reviews of `imdb` below LINEAL_TEST_DATA (--quick: 400). Both sides run in this process by turns, each
on one thread, and the figure is documents per second, the median of the rounds. A figure is ok only if both sides give the same
columns and weights that differ by no more than 1e-12. The file of vectors has a million words of 300 dimensions (--quick: 50,000);
opening it maps it into memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import harness
from harness import Figure

DIFFERENCE = 1e-12
KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "fit+transform": ({}, 5.0),
    "fit+transform, words and pairs": ({"ngram_range": (1, 2)}, 1.0),
}
"""The options of each figure, and how many times scikit-learn's rate it must show."""


def reviews(count: int) -> list[str]:
    """The first reviews of the data set."""
    lines = harness.text("imdb/train-4000.jsonl.gz").split("\n")
    return [json.loads(line)["text"] for line in lines[:count]]


def tfidf(quick: bool = False) -> Iterator[Figure]:
    """Documents per second of fit and transform, ours and scikit-learn's."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    from lineal.representations.tfidf import Tfidf

    texts = reviews(400 if quick else 4000)
    for name, (options, wanted) in KINDS.items():
        sides = {
            "ours": lambda options=options: Tfidf(**options).fit_transform(texts),
            "peer": lambda options=options: TfidfVectorizer(**options).fit_transform(texts),
        }
        same = _difference(options, texts)
        seconds = harness.interleaved(sides, rounds=2 if quick else 7)
        ours, peer = (len(texts) / harness.median(seconds[side]) for side in ("ours", "peer"))
        yield Figure(
            f"tf-idf {name}",
            ours,
            peer,
            "documents/s",
            f">= {wanted:g}x scikit-learn, equal to {DIFFERENCE:g}",
            ok=ours >= wanted * peer and same <= DIFFERENCE,
            details={"documents": len(texts), "greatest difference": same},
        )


def _difference(options: dict[str, Any], texts: list[str]) -> float:
    """The greatest difference of weights; infinite where the columns differ."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    from lineal.representations.tfidf import Tfidf

    ours, peer = Tfidf(**options), TfidfVectorizer(**options)
    one, other = ours.fit_transform(texts), peer.fit_transform(texts)
    if ours.get_feature_names_out().tolist() != peer.get_feature_names_out().tolist():
        return float("inf")
    return float(abs(one - other).max())


def opening(quick: bool = False) -> Iterator[Figure]:
    """Seconds until the first neighbourless look-up in a file of a gigabyte."""
    import numpy as np

    from lineal.representations.files import load_vectors, save_vectors
    from lineal.representations.vectors import Vectors

    count = 50_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.safetensors"
        block = np.random.default_rng(0).standard_normal((count, 300), dtype=np.float32)
        save_vectors(path, Vectors([f"word{i}" for i in range(count)], block))
        taken = []
        for _ in range(3):
            begun = time.perf_counter()
            vectors = load_vectors(path)
            right = bool((vectors.matrix[count - 1] == block[-1]).all())
            taken.append(time.perf_counter() - begun)
        size = path.stat().st_size / 1e9
    seconds = harness.median(taken)
    yield Figure(
        "opening mapped vectors", seconds, unit=f"s for {size:.2f} GB", bar="< 1 s", ok=seconds < 1 and right
    )


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Every figure."""
    yield from tfidf(arguments.quick)
    yield from opening(arguments.quick)


def options(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the work: whether it runs, not how fast"
    )


if __name__ == "__main__":
    raise SystemExit(harness.main("tfidf", measure, options))
