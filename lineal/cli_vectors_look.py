"""`lineal vectors evaluate|plot`: how good vectors are, and how they lie."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lineal.cli_runs import print_table
from lineal.cli_vectors import ACTIONS, Reading, asked, free, opened
from lineal.errors import UsageError

if TYPE_CHECKING:
    from lineal.representations.analogies import Score
    from lineal.representations.vectors import Vectors


@dataclass(frozen=True)
class Tests:
    """What is measured."""

    analogies: str | None = None
    """A file of questions in sections, such as questions-words.txt."""
    pairs: tuple[str, ...] = ()
    """Files of word pairs with people's scores, such as those of WordSim353, SimLex-999, MEN, RG-65."""
    corpus: str | None = None
    """A text, a document a line: the ratios of co-occurrence probabilities of table 1 of the GloVe paper, beside its own."""
    window: int = 10
    """Words on either side that count as near (--corpus)."""
    method: Literal["add", "mul", "both"] = "add"
    """How analogies are answered: add (3CosAdd), mul (3CosMul) or both."""
    restrict: int = 30_000
    """Answers come from so many first words of the file; 0 for all."""
    fold: bool = True
    """Capitals and small letters are the same."""
    unknown: bool = False
    """List the words that have no vector."""
    json: bool = False
    """Print one JSON object instead of tables."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Everything `lineal vectors evaluate` can be told."""

    tests: Tests = field(default_factory=Tests)
    reading: Reading = field(default_factory=Reading)


def evaluate(words: list[str]) -> int:
    """`lineal vectors evaluate VECTORS --analogies FILE --pairs FILE ...`: accuracy and rank correlation, with coverage."""
    found = asked(words, EvaluateOptions(), "evaluate")
    if found is None:
        return 0
    names, options = found
    tests = options.tests
    if len(names) > 1:
        raise UsageError(f"{len(names)} files of vectors were given: evaluate one at a time.")
    if not (tests.analogies or tests.pairs or tests.corpus):
        raise UsageError("nothing to evaluate on: give --analogies FILE, --pairs FILE ..., or --corpus FILE.")
    if tests.restrict < 0:
        raise UsageError(f"--restrict {tests.restrict}: must be at least 0.")
    vectors = opened(names[0], options.reading)
    report: dict[str, Any] = {"words": len(vectors), "dimensions": vectors.dimensions}
    if tests.analogies:
        report["analogies"] = _analogies(vectors, tests)
    if tests.pairs:
        report["similarity"] = _similarity(vectors, tests)
    if tests.corpus:
        report["ratios"] = _ratios(tests)
    if tests.json:
        print(json.dumps(report, ensure_ascii=False))
    return 0


def _analogies(vectors: Vectors, tests: Tests) -> dict[str, Any]:
    from lineal.representations.analogies import evaluate_analogies, read_questions, totals

    sections = read_questions(tests.analogies or "")
    methods = ("add", "mul") if tests.method == "both" else (tests.method,)
    made = {}
    for method in methods:
        scores = evaluate_analogies(
            vectors, sections, method=method, restrict=tests.restrict or None, fold=tests.fold
        )
        made[method] = [*scores, *totals(scores)]
    if not tests.json:
        head = ("section", "questions", "covered", *(f"3Cos{method.capitalize()}" for method in methods))
        print_table(head, [_score_row(scores) for scores in zip(*made.values())])
        _say_unknown(made[methods[0]][-1].unknown, tests)
    return {method: [_score_facts(score) for score in scores] for method, scores in made.items()}


def _score_row(scores: Sequence[Score]) -> list[str]:
    first = scores[0]
    shown = ["none covered" if s.accuracy is None else f"{s.accuracy:.2%}" for s in scores]
    return [first.name, f"{first.asked:,}", f"{first.coverage:.1%}", *shown]


def _score_facts(score: Score) -> dict[str, Any]:
    facts = {"section": score.name, "questions": score.asked, "covered": score.covered, "right": score.right}
    return {**facts, "accuracy": score.accuracy, "unknown": sorted(score.unknown)}


def _similarity(vectors: Vectors, tests: Tests) -> list[dict[str, Any]]:
    from lineal.representations.similarity import evaluate_similarity, read_pairs

    made = [
        evaluate_similarity(vectors, read_pairs(name), Path(name).name, fold=tests.fold)
        for name in tests.pairs
    ]
    if not tests.json:
        if tests.analogies:
            print()
        rows = [
            [one.name, f"{one.asked:,}", f"{one.coverage:.1%}", _rho(one.rho), _rho(one.with_zeros)]
            for one in made
        ]
        print_table(("pairs", "number", "covered", "Spearman", "unknown as 0"), rows)
        _say_unknown({word for one in made for word in one.unknown}, tests)
    return [asdict(one) for one in made]


def _rho(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _say_unknown(unknown: set[str], tests: Tests) -> None:
    if unknown and tests.unknown:
        print(f"without a vector: {' '.join(sorted(unknown))}")
    elif unknown:
        print(f"{len(unknown):,} words have no vector (--unknown lists them)")


def _ratios(tests: Tests) -> dict[str, Any]:
    from lineal.representations.cooccurrence import PAPER, cooccurrence, probability_ratios
    from lineal.tokenizers.corpus.documents import read_lines

    asked = ("ice", "steam")
    documents = (line.lower().split() for _, line in read_lines(tests.corpus or ""))
    # Other documents have no part in what stands beside the two.
    counts = cooccurrence(
        (words for words in documents if any(word in words for word in asked)),
        tests.window,
        weighting="harmonic",
    )
    made = probability_ratios(counts, *asked, list(PAPER))
    if not tests.json:
        if tests.analogies or tests.pairs:
            print()
        rows = [
            [probe, f"{one:.2e}", f"{other:.2e}", f"{ratio:.3g}", f"{PAPER[probe]:.3g}"]
            for probe, (one, other, ratio) in made.items()
        ]
        print_table(("k", "P(k | ice)", "P(k | steam)", "ratio", "GloVe paper, 6B words"), rows)
    return {
        probe: {"ice": one, "steam": other, "ratio": ratio} for probe, (one, other, ratio) in made.items()
    }


@dataclass(frozen=True)
class Plot:
    """What is drawn, and where."""

    out: str = "map.svg"
    """The file: .svg is a picture, .html a page to move, zoom and search in."""
    first: int | None = None
    """Draw so many first words of the file (default: 2000 on a page where no word is named)."""
    input: str | None = None
    """A file of words to draw, one a line."""
    arrows: tuple[str, ...] = ()
    """Words in pairs, each pair joined by an arrow: man king woman queen."""
    method: Literal["pca", "tsne", "umap"] = "pca"
    """How dimensions become two: pca, tsne, umap."""
    bars: bool = False
    """Draw the neighbours of one word as bars instead."""
    count: int = 10
    """How many neighbours a word has."""
    seed: int = 0
    """Of t-SNE and UMAP."""
    projector: str | None = None
    """A folder for vectors.tsv and metadata.tsv of the Embedding Projector, with the words drawn."""
    overwrite: bool = False
    """Replace the file that is there."""


@dataclass(frozen=True)
class PlotOptions:
    """Everything `lineal vectors plot` can be told."""

    plot: Plot = field(default_factory=Plot)
    reading: Reading = field(default_factory=Reading)


PAGE_WORDS = 2000
"""Words on a page where none is named."""


def plot(words: list[str]) -> int:
    """`lineal vectors plot VECTORS WORD ... --out map.svg`: a map of words, or bars of the neighbours of one."""
    found = asked(words, PlotOptions(), "plot")
    if found is None:
        return 0
    (name, *named), options = found
    chosen = options.plot
    out = free(chosen.out, chosen.overwrite)
    if out.suffix not in (".svg", ".html"):
        raise UsageError(f"--out {out}: a name that ends in .svg or .html says what to draw.")
    if len(chosen.arrows) % 2:
        raise UsageError(f"--arrows has {len(chosen.arrows)} words: give pairs.")
    vectors = opened(name, options.reading)
    if chosen.bars:
        text = _bars(vectors, named, chosen)
    else:
        drawn = vectors.only(_words(vectors, named, chosen, out.suffix == ".html"))
        text = _map(drawn, chosen, f"{Path(name).name}: {len(drawn):,} words", out.suffix == ".html")
        if chosen.projector:
            _projector(Path(chosen.projector), drawn, chosen.overwrite)
    from lineal.representations.writing import replaced

    with replaced(out) as file:
        file.write(text.encode())
    print(f"wrote {out}", file=sys.stderr)
    return 0


def _words(vectors: Vectors, named: Sequence[str], chosen: Plot, page: bool) -> list[str]:
    """What is drawn, each word once."""
    from lineal.tokenizers.corpus.documents import read_lines

    listed = [line.strip() for _, line in read_lines(chosen.input) if line.strip()] if chosen.input else []
    first = chosen.first
    if first is None:
        first = 0 if named or listed or chosen.arrows or not page else PAGE_WORDS
    words = list(dict.fromkeys([*named, *chosen.arrows, *listed, *vectors.words[: max(0, first)]]))
    if not words:
        raise UsageError(f"no word was named: lineal vectors {ACTIONS['plot'].usage}, or say --first 100.")
    return words


def _map(drawn: Vectors, chosen: Plot, title: str, page: bool) -> str:
    from lineal.representations.neighbours import nearest
    from lineal.representations.projection import project
    from lineal.web.word_map import Spot, map_svg
    from lineal.web.word_page import map_page

    places = project(drawn.matrix, chosen.method, seed=chosen.seed).tolist()
    spots = [Spot(word, x, y) for word, (x, y) in zip(drawn.words, places)]
    arrows = list(zip(chosen.arrows[::2], chosen.arrows[1::2]))
    if not page:
        return map_svg(spots, arrows, title)
    row_NK, score_NK = nearest(drawn, drawn.matrix, min(chosen.count + 1, len(drawn)))
    near = [
        [(j, score) for j, score in zip(rows, scores) if j != i][: chosen.count]
        for i, (rows, scores) in enumerate(zip(row_NK.tolist(), score_NK.tolist()))
    ]
    return map_page(title, spots, near, arrows)


def _bars(vectors: Vectors, named: Sequence[str], chosen: Plot) -> str:
    from lineal.representations.neighbours import near
    from lineal.web.word_map import bars_svg

    if len(named) != 1 or Path(chosen.out).suffix != ".svg":
        raise UsageError(
            "--bars draws the neighbours of one word as .svg: lineal vectors plot VECTORS WORD --bars"
        )
    return bars_svg(named[0], near(vectors, named[0], chosen.count))


def _projector(folder: Path, drawn: Vectors, overwrite: bool) -> None:
    from lineal.representations.projection import write_projector

    for name in ("vectors.tsv", "metadata.tsv"):
        free(folder / name, overwrite)
    write_projector(folder, drawn)
    print(f"wrote {folder}/vectors.tsv and metadata.tsv", file=sys.stderr)
