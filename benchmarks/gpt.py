"""GPT-1 in small: what pre-training and the auxiliary loss are worth, on five paired seeds, as resumable cells.

    LINEAL_TEST_DATA=... python benchmarks/gpt.py --json        (--quick: a few minutes, two seeds, no bar)

One pre-training of 20 minutes on two cores (preset cpu-20min) on 26 novels. Then for each seed and task three fine-tunings
that differ in one thing: from the pre-trained model; from fresh weights of the same shape (--fresh); and without the
auxiliary language-model loss (--auxiliary 0). A seed chooses the training rows, the fresh weights and the order alike for
all three. Tasks: SST-2 with 500 labels (classification), SICK (entailment as a pair), and a multiple choice made from two
novels that are not among the 26: which of four passages continues a passage, the wrong ones taken from the same book.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
from harness import text

Row = dict[str, Any]
METHODS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "tuned": ({}, ()),
    "from scratch": ({}, ("--fresh",)),
    "no auxiliary loss": ({"--auxiliary": "0"}, ()),
}
CONTEXT_WORDS, CHOICE_WORDS, CHOICES = 30, 12, 4


@dataclass(frozen=True)
class Task:
    """A task: its options, and how many rows are trained on and judged on."""

    name: str
    rows: int
    judged: int
    options: dict[str, str] = field(default_factory=dict)
    epochs: int = 3


TASKS = (
    Task("SST-2, 500 labels", 500, 1820, {}, 6),
    Task(
        "SICK entailment",
        4500,
        4927,
        {"--task": "pair", "--text-field": "first", "--second-field": "second"},
        4,
    ),
    Task("continuation among 4", 1000, 1000, {"--task": "choice"}, 3),
)


def sentiment(split: str) -> list[Row]:
    """SST-2: a sentence, a tab, 0 or 1."""
    lines = text("sst2/train.tsv.gz" if split == "train" else "sst2/test.tsv").splitlines()
    return [
        {"text": sentence, "label": ("negative", "positive")[int(label)]}
        for sentence, _, label in (line.rpartition("\t") for line in lines)
    ]


def entailment(split: str) -> list[Row]:
    """SICK: two sentences and whether the first entails the second."""
    name = "sick/SICK_train.txt.gz" if split == "train" else "sick/SICK_test_annotated.txt.gz"
    table = csv.DictReader(io.StringIO(text(name)), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        {"first": row["sentence_A"], "second": row["sentence_B"], "label": row["entailment_judgment"]}
        for row in table
    ]


def continuations(split: str) -> list[Row]:
    """A passage and four that may continue it, one of which does; training and judging use different parts of each book."""
    draw = random.Random(0)
    found: list[Row] = []
    # The two novels stand one after the other: a passage's wrong continuations come from its own half.
    words = text("novels_en/valid.txt.gz").split()
    for half in (words[: len(words) // 2], words[len(words) // 2 :]):
        size = CONTEXT_WORDS + CHOICE_WORDS
        pieces = [half[i : i + size] for i in range(0, len(half) - size, size)]
        edge = int(0.7 * len(pieces))
        pieces = pieces[:edge] if split == "train" else pieces[edge:]
        ends = [" ".join(piece[CONTEXT_WORDS:]) for piece in pieces]
        for i, piece in enumerate(pieces):
            others = draw.sample([j for j in range(len(pieces)) if j != i], CHOICES - 1)
            right = draw.randrange(CHOICES)
            choices = [ends[j] for j in others]
            choices.insert(right, ends[i])
            found.append({"text": " ".join(piece[:CONTEXT_WORDS]), "choices": choices, "label": right})
    draw.shuffle(found)
    return found


READERS = {
    "SST-2, 500 labels": sentiment,
    "SICK entailment": entailment,
    "continuation among 4": continuations,
}


def pretrained(folder: Path, quick: bool) -> tuple[Path, float]:
    """The pre-trained run, and the seconds it trained."""
    path = folder / "novels.txt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        whole = "\n\n".join(text(f"novels_en/train-0{i}.txt.gz") for i in range(2))
        path.write_text(whole[:400_000] if quick else whole)
    held = folder / "held.txt"
    if not held.exists():
        novels = text("novels_en/valid.txt.gz")
        held.write_text(novels[:50_000] if quick else novels)
    options = {
        "--data": str(path),
        "--eval-data": str(held),
        "--threads": "1" if quick else "2",
        "--seed": "0",
    }
    if quick:
        options |= {"--preset": "seconds", "--block": "64", "--steps": "200", "--vocab-size": "1000"}
    else:
        options |= {"--preset": "cpu-20min"}
    run = harness.Cell(folder / "pretrained", "gpt", options).run()
    timing = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    return run, math.fsum(line["step_time"] for line in timing)


def tuning(task: Task, model: Path, arguments: argparse.Namespace) -> harness.Tuning:
    """The fine-tunings of a task."""
    train, judged = READERS[task.name]("train"), READERS[task.name]("judged")
    rows, most = (120, 200) if arguments.quick else (task.rows, task.judged)
    options = {
        "--model": str(model), "--learning-rate": arguments.learning_rate,
        "--epochs": str(1 if arguments.quick else task.epochs), **task.options,
    }  # fmt: skip
    return harness.Tuning(task.name, train, judged[:most], rows, options, METHODS)


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Pre-train once, fine-tune every cell, and compare seed by seed."""
    folder = Path(arguments.cells) / ("quick" if arguments.quick else "full")
    seeds = range(2 if arguments.quick else 5)
    model, seconds = pretrained(folder, arguments.quick)
    final = json.loads((model / "metrics.jsonl").read_text().splitlines()[-1])
    names = ("eval/perplexity", "eval/bits_per_byte", "eval/token_accuracy")
    yield harness.Figure(
        "pre-training: minutes", seconds / 60, None, "min", "<= 20.5 on two cores", seconds <= 1230 or arguments.quick,
        details={name.removeprefix("eval/"): round(final[name], 4) for name in names},
    )  # fmt: skip
    bar = "" if arguments.quick else "gain over from scratch >= 2 standard errors"
    for task in TASKS:
        if not arguments.only or task.name in arguments.only:
            reached = tuning(task, model, arguments).reached(folder, seeds, arguments.jobs)
            yield harness.compared(task.name, reached, seeds, bar)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be varied."""
    parser.add_argument("--quick", action="store_true", help="small model, two seeds, few rows; no bar")
    parser.add_argument(
        "--cells", default="runs/gpt-benchmark", help="folder of the cells; finished ones are kept"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(READERS), help="some of the tasks; the other figures stay"
    )
    parser.add_argument("--jobs", type=int, default=2, help="fine-tunings at a time, one thread each")
    parser.add_argument("--learning-rate", default="5e-4", help="of every fine-tuning")


if __name__ == "__main__":
    sys.exit(harness.main("gpt", measure, options))
