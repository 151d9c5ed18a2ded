"""ULMFiT in small: what each stage and each technique is worth, on paired seeds, as resumable cells.

    LINEAL_TEST_DATA=... python benchmarks/ulmfit.py --json        (--quick: minutes, small models, no bar)

One language model is trained for at most 30 minutes on two cores (preset cpu-30min) on 26 novels and a part of Wikipedia, and
tuned on 8,000 film reviews without their labels. Then for 100, 500 and 4,000 labelled reviews and each of five seeds a
classifier from the tuned model, and one from fresh weights of the same shape and vocabulary; a seed chooses the rows, the
order and the fresh weights alike for both. Beside them stands TF-IDF with logistic regression on the same rows. The ablation
changes one technique at a time, on the first three seeds; TREC-6 and SST-2 are read from files. Only --only NAME ... is run
where it is given.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
from harness import final, gain, text

Row = dict[str, Any]
SIZES = {100: 30, 500: 15, 4000: 5}
"""Labels, and passes over them."""
METHODS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "pre-trained": ({}, ()),
    "from scratch": ({"--unfreeze": "all", "--discriminative": "1"}, ("--fresh",)),
}
"""What is compared for every number of labels; both rows stand in the ablation too."""
ABLATION: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "pre-trained": ("tuned", *METHODS["pre-trained"]),
    "not pre-trained (language model of the target only)": ("target", {}, ()),
    "not tuned on the target": ("lm", {}, ()),
    "tuned at one rate": ("tuned-one-rate", {}, ()),
    "tuned at a constant rate": ("tuned-constant", {}, ()),
    "classifier at one rate": ("tuned", {"--discriminative": "1"}, ()),
    "classifier at a constant rate": ("tuned", {"--schedule": "constant"}, ()),
    "classifier by a cosine": ("tuned", {"--schedule": "cosine"}, ()),
    "all layers from the start": ("tuned", {"--unfreeze": "all"}, ()),
    "the last layer only": ("tuned", {"--unfreeze": "last"}, ()),
    "chain-thaw": ("tuned", {"--unfreeze": "chain"}, ()),
    "last state only": ("tuned", {"--pooling": "last"}, ()),
    "from scratch": ("tuned", *METHODS["from scratch"]),
}
"""Name -> (the model it starts from, options, switches) of a classifier with 500 labels; the first has all techniques."""


@dataclass(frozen=True)
class Plan:
    """How large everything is."""

    preset: str
    threads: str
    seeds: range
    sizes: dict[int, int]
    ablation_seeds: range
    ablation_labels: int
    judged: int
    general: int = 0
    reviews: int = 0
    extra: dict[str, str] = field(default_factory=dict)


FULL = Plan("cpu-30min", "2", range(5), SIZES, range(3), 500, 4000)
QUICK = Plan("seconds", "1", range(2), {60: 4}, range(2), 60, 60, 60_000, 80)


def lines(name: str) -> list[str]:
    """The lines of a text; a review may hold characters at which `splitlines` would cut it."""
    return text(name).removesuffix("\n").split("\n")


def reviews(name: str) -> list[Row]:
    """Rows of a part of IMDb: text, and where it is labelled, label."""
    rows = [json.loads(line) for line in lines(f"imdb/{name}-4000.jsonl.gz")]
    return [{key: row[key] for key in ("text", "label") if key in row} for row in rows]


def questions(name: str) -> list[Row]:
    """TREC: COARSE:fine, then the question."""
    found = lines("trec/TREC.train.txt.gz" if name == "train" else "trec/TREC.test.txt")
    pairs = (line.split(" ", 1) for line in found)
    return [{"text": question, "label": label.partition(":")[0]} for label, question in pairs]


def sentences(name: str) -> list[Row]:
    """SST-2: a sentence, a tab, 0 or 1."""
    found = lines("sst2/train.tsv.gz" if name == "train" else "sst2/test.tsv")
    return [{"text": line.rpartition("\t")[0], "label": line.rpartition("\t")[2]} for line in found]


def write(path: Path, rows: Sequence[Row]) -> Path:
    """Rows as JSONL, unless the file is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        part.replace(path)
    return path


@dataclass
class Grid:
    """All cells of a benchmark in one folder."""

    folder: Path
    plan: Plan

    def data(self, name: str, rows: Sequence[Row] | None = None) -> Path:
        """A file of rows."""
        path = self.folder / "data" / name
        return path if rows is None else write(path, rows)

    def cell(self, name: str, stage: str, data: Path, *switches: str, **options: object) -> harness.Cell:
        """A run of a stage."""
        words = {"--stage": stage, "--preset": self.plan.preset, "--data": str(data), **self.plan.extra}
        words |= {f"--{key.replace('_', '-')}": str(value) for key, value in options.items()}
        return harness.Cell(self.folder / name, "ulmfit", words, switches)

    def prepare(self) -> None:
        """The general text, the reviews without labels, and the reviews that are judged."""
        plan = self.plan
        general, held = self.folder / "data" / "general.txt", self.folder / "data" / "held.txt"
        general.parent.mkdir(parents=True, exist_ok=True)
        if not held.exists():
            parts = [text(f"novels_en/train-0{i}.txt.gz") for i in range(2)] + [
                text("wikitext2/valid.txt.gz")
            ]
            whole = "\n\n".join(parts)
            general.write_text(whole[: plan.general] if plan.general else whole)
            other = text("wikitext2/test.txt.gz")
            held.write_text(other[: plan.general // 4] if plan.general else other[:400_000])
        every = [row["text"] for row in (*reviews("unsup"), *reviews("train"))]
        every = every[: plan.reviews] if plan.reviews else every
        cut = len(every) // 20
        self.data("reviews.jsonl", [{"text": text} for text in every[cut:]])
        self.data("reviews-held.jsonl", [{"text": text} for text in every[:cut]])
        self.data("judged.jsonl", reviews("test")[: plan.judged])

    def models(self, direction: str = "forward") -> dict[str, harness.Cell]:
        """The language models by name; each but the first two starts from `lm`."""
        own = "" if direction == "forward" else f"-{direction}"
        lm = self.cell(
            f"lm{own}", "lm", self.folder / "data" / "general.txt", eval_data=self.folder / "data" / "held.txt",
            threads=self.plan.threads, directions=direction,
        )  # fmt: skip

        def on_reviews(name: str, stage: str, **options: object) -> harness.Cell:
            shared = {"eval_data": self.data("reviews-held.jsonl"), "threads": self.plan.threads}
            return self.cell(f"{name}{own}", stage, self.data("reviews.jsonl"), **shared, **options)

        return {
            "lm": lm,
            "tuned": on_reviews("tuned", "tune", model=lm.folder),
            "target": on_reviews("target", "lm", directions=direction),
            "tuned-one-rate": on_reviews("tuned-one-rate", "tune", model=lm.folder, discriminative=1),
            "tuned-constant": on_reviews("tuned-constant", "tune", model=lm.folder, schedule="constant"),
        }

    def labelled(self, labels: int, seed: int) -> Path:
        """So many labelled reviews, drawn by a seed."""
        rows = random.Random(seed).sample(reviews("train"), min(labels, 4000))
        return self.data(f"labelled-{labels}-{seed}.jsonl", rows)

    def classifier(
        self,
        name: str,
        labels: int,
        seed: int,
        model: Path,
        options: dict[str, str],
        switches: tuple[str, ...] = (),
    ) -> harness.Cell:
        """A classifier of reviews."""
        epochs = self.plan.sizes.get(labels, 8)
        cell = self.cell(
            f"{name.replace(' ', '-')}-{labels}-{seed}", "classify", self.labelled(labels, seed), *switches,
            model=model, eval_data=self.data("judged.jsonl"), epochs=epochs, seed=seed, threads=1, batch_size=32,
        )  # fmt: skip
        cell.options.update(options)
        return cell


def minutes(run: Path) -> float:
    """What its steps took."""
    lines = (json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines())
    return math.fsum(line["step_time"] for line in lines) / 60


def accuracies(cells: Sequence[harness.Cell], jobs: int) -> list[float]:
    """Of the final evaluations, in per cent."""
    return [harness.accuracy(run) for run in harness.run_cells(cells, jobs)]


def counts_and_lines(train: Path, judged: Path) -> float | None:
    """Accuracy of TF-IDF (words and pairs) with logistic regression, in per cent; None without scikit-learn."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        return None
    rows, held = ([json.loads(line) for line in path.read_text().splitlines()] for path in (train, judged))
    counter = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1 if len(rows) < 1000 else 2)
    model = LogisticRegression(C=10.0, max_iter=1000)
    model.fit(counter.fit_transform([row["text"] for row in rows]), [row["label"] for row in rows])
    told = model.predict(counter.transform([row["text"] for row in held]))
    return 100 * statistics.mean(float(a == row["label"]) for a, row in zip(told, held, strict=True))


def language(grid: Grid, quick: bool) -> Iterator[harness.Figure]:
    """The language models, and what tuning does to the perplexity on reviews that none of them has seen."""
    models = grid.models()
    for name in ("lm", "tuned"):
        models[name].run()
    lm, tuned = models["lm"].folder, models["tuned"].folder
    spent = minutes(lm)
    yield harness.Figure(
        "pre-training: minutes", spent, None, "min", "<= 30 on two cores", quick or spent <= 30,
        details={k: v for k, v in final(lm).items() if k.startswith("eval/")},
    )  # fmt: skip
    before = json.loads((tuned / "metrics.jsonl").read_text().splitlines()[0])["eval/perplexity"]
    after = final(tuned)["eval/perplexity"]
    yield harness.Figure(
        "perplexity on held-out reviews, tuned beside before", after, before, "", "falls", after < before,
        details={"minutes": round(minutes(tuned), 1)},
    )  # fmt: skip


def sizes(grid: Grid, arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """From the tuned model beside from scratch, for each number of labels."""
    plan, model = grid.plan, grid.models()["tuned"].run()
    for labels in plan.sizes:
        by_method = {}
        for method, (options, switches) in METHODS.items():
            cells = [grid.classifier(method, labels, seed, model, options, switches) for seed in plan.seeds]
            by_method[method] = accuracies(cells, arguments.jobs)
        lines = [counts_and_lines(grid.labelled(labels, s), grid.data("judged.jsonl")) for s in plan.seeds]
        better, error = gain(by_method["pre-trained"], by_method["from scratch"])
        known = [line for line in lines if line is not None]
        details = {
            "gain": f"{better:+.2f} ± {error:.2f}",
            "TF-IDF + logistic regression": round(statistics.mean(known), 2)
            if known
            else "needs scikit-learn",
            **{name: [round(a, 2) for a in each] for name, each in by_method.items()},
        }
        wanted = 5 if labels < 4000 else 0
        bar = f"gain >= {wanted} points and >= 2 standard errors" if wanted else "printed"
        ok = arguments.quick or not wanted or (better >= wanted and better >= 2 * error)
        yield harness.Figure(
            f"IMDb, {labels} labels: accuracy, pre-trained beside from scratch",
            statistics.mean(by_method["pre-trained"]), statistics.mean(by_method["from scratch"]), "%", bar, ok,
            seeds=tuple(plan.seeds), details=details,
        )  # fmt: skip


def ablation(grid: Grid, arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """One technique less at a time, all beside all of them."""
    plan, models = grid.plan, grid.models()
    full: list[float] = []
    for name, (start, options, switches) in ABLATION.items():
        models["lm"].run()
        model = models[start].run()
        short = "".join(c for c in name if c.isalnum() or c == " ")
        own = name if name in METHODS else f"ablation {short}"
        cells = [
            grid.classifier(own, plan.ablation_labels, seed, model, options, switches)
            for seed in plan.ablation_seeds
        ]
        reached = accuracies(cells, arguments.jobs)
        full = full or reached
        better, error = gain(reached, full) if reached is not full else (0.0, 0.0)
        yield harness.Figure(
            f"ablation, {plan.ablation_labels} labels: {name}", statistics.mean(reached), statistics.mean(full), "%",
            "printed", True, seeds=tuple(plan.ablation_seeds),
            details={"difference": f"{better:+.2f} ± {error:.2f}", "each": [round(a, 2) for a in reached]},
        )  # fmt: skip


def both(grid: Grid, arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """A forward and a backward classifier, and the mean of their probabilities."""
    from lineal.train.finetune.predictor import load_predictor

    plan, judged = grid.plan, grid.data("judged.jsonl")
    rows = [json.loads(line) for line in judged.read_text().splitlines()]
    found: dict[str, list[float]] = {"forward": [], "backward": [], "both": []}
    labels = plan.ablation_labels
    cells: dict[str, list[harness.Cell]] = {}
    for direction in ("forward", "backward"):
        models = grid.models(direction)
        models["lm"].run()
        model = models["tuned"].run()
        name = "pre-trained" if direction == "forward" else f"{direction} only"
        cells[direction] = [grid.classifier(name, labels, seed, model, {}) for seed in plan.seeds]
        harness.run_cells(cells[direction], arguments.jobs)
    for ahead, back in zip(*cells.values(), strict=True):
        told = [load_predictor(c.folder, "cpu")([row["text"] for row in rows]) for c in (ahead, back)]
        names = sorted(told[0][0].probabilities)
        for name, parts in (("forward", told[:1]), ("backward", told[1:]), ("both", told)):
            said = [
                max(names, key=lambda label: sum(p.probabilities[label] for p in each))
                for each in zip(*parts, strict=True)
            ]
            found[name].append(
                100
                * statistics.mean(float(a == str(row["label"])) for a, row in zip(said, rows, strict=True))
            )
    better, error = gain(found["both"], found["forward"])
    yield harness.Figure(
        f"IMDb, {labels} labels: accuracy of both directions averaged, beside forward",
        statistics.mean(found["both"]), statistics.mean(found["forward"]), "%", "printed", True, seeds=tuple(plan.seeds),
        details={"gain": f"{better:+.2f} ± {error:.2f}", **{n: [round(a, 2) for a in e] for n, e in found.items()}},
    )  # fmt: skip


def others(grid: Grid, arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """TREC-6 and SST-2: tuned on their texts and classified, as from any file."""
    plan, lm = grid.plan, grid.models()["lm"].run()
    for name, read in (("TREC-6", questions), ("SST-2", sentences)):
        train, judged = read("train"), read("test")
        if arguments.quick:
            train, judged = (
                train[:80],
                [row for row in judged[:60] if row["label"] in {r["label"] for r in train[:80]}],
            )
        files = [
            grid.data(f"{name}-{part}.jsonl", rows) for part, rows in (("train", train), ("test", judged))
        ]
        tuned = grid.cell(f"{name}-tuned", "tune", files[0], model=lm, epochs=6, threads=plan.threads).run()
        reached = {}
        for method, switches, options in (
            ("pre-trained", (), {}), ("from scratch", ("--fresh",), {"unfreeze": "all", "discriminative": 1}),
        ):  # fmt: skip
            cell = grid.cell(
                f"{name}-{method.replace(' ', '-')}", "classify", files[0], *switches, model=tuned, eval_data=files[1],
                threads=plan.threads, epochs=4 if arguments.quick else 8, **options,
            )  # fmt: skip
            (reached[method],) = accuracies([cell], 1)
        details = {"TF-IDF + logistic regression": counts_and_lines(*files)}
        yield harness.Figure(
            f"{name}: accuracy, pre-trained beside from scratch", reached["pre-trained"], reached["from scratch"], "%",
            "printed", True, seeds=(0,), details=details,
        )  # fmt: skip


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Everything, or the parts that --only names."""
    grid = Grid(
        Path(arguments.cells) / ("quick" if arguments.quick else "full"), QUICK if arguments.quick else FULL
    )
    grid.prepare()
    began = time.perf_counter()
    parts = {
        "language": lambda: language(grid, arguments.quick),
        "sizes": lambda: sizes(grid, arguments),
        "ablation": lambda: ablation(grid, arguments),
        "both": lambda: both(grid, arguments),
        "others": lambda: others(grid, arguments),
    }
    for name, part in parts.items():
        if not arguments.only or name in arguments.only:
            if name != "language":
                grid.models()["lm"].run()
            yield from part()
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be varied."""
    parser.add_argument("--quick", action="store_true", help="small models, two seeds, few rows; no bar")
    parser.add_argument(
        "--cells", default="runs/ulmfit-benchmark", help="folder of the cells; finished ones are kept"
    )
    parser.add_argument("--jobs", type=int, default=2, help="classifiers at a time, one thread each")
    parser.add_argument("--only", nargs="*", help="language, sizes, ablation, both, others")


if __name__ == "__main__":
    sys.exit(harness.main("ulmfit", measure, options))
