"""BERT in small: pre-training from raw documents, its speed beside transformers' model, and what it is worth when tuned.

    LINEAL_TEST_DATA=... python benchmarks/bert.py --json        (--quick: a few minutes, two seeds, no bar)

Speed: tokens a second of our training step and of transformers' BertForPreTraining of the same size, which gets the same
pairs in their random order, padded to the longest there may be, in the same number format, on as many threads; its batches
are ready, ours are made while the clock runs. Pre-training: 30 minutes on two cores on novels_en, wikisplit_en and
wikitext2; hidden words and next sentences told right on documents that are in none of them. Fine-tuning: MRPC and SICK
(pairs) and SST-2 from that model and, seed by seed, from fresh weights of the same shape, as resumable cells.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from harness import text

from lineal.recipes import bert, bert_loop
from lineal.recipes.config import BertRunConfig, to_json, with_options
from lineal.train.guard import Guard
from lineal.train.masked_batches import padding
from lineal.train.run import Run

Row = dict[str, Any]
WORDS = 1000
"""Of a document that is cut from a novel."""
PARTS = ("speed", "pretraining", "tuning")
METHODS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "tuned": ({}, ()),
    "from scratch": ({}, ("--fresh",)),
}


@dataclass(frozen=True)
class Task:
    """A task: its kind, rows to train on, passes over them, and the rate."""

    name: str
    kind: str
    rows: int
    epochs: int
    rate: str = "3e-4"


TASKS = (
    Task("MRPC", "pair", 3000, 4),
    Task("SICK", "pair", 4500, 4),
    Task("SST-2", "classification", 2000, 4),
)


def chapters(novels: str) -> Iterator[str]:
    """Stretches of a novel, of about WORDS words, a paragraph a line; where nothing parts paragraphs, a sentence a line."""
    kept: list[str] = []
    words = 0
    for part in re.split(r"\n\s*\n", novels):
        line = " ".join(part.split())
        whole = len(line.split()) <= WORDS // 2
        for piece in [line] if whole else re.split(r"(?<=[.!?]) ", line):
            if piece:
                kept.append(piece)
                words += len(piece.split())
            if words >= WORDS:
                yield "\n".join(kept)
                kept, words = [], 0


def plain(line: str) -> str:
    """A line of tokenised text as people write it, as far as BERT's splitting is concerned."""
    return re.sub(r" @(.)@ ", r"\1", line).replace("<unk>", "").replace(" ' s ", " 's ").strip()


def articles(wiki: str) -> Iterator[str]:
    """The articles of wikitext, a paragraph a line, without headings."""
    for article in re.split(r"\n = [^=].*? = \n", "\n" + wiki):
        lines = [plain(line) for line in article.splitlines() if line.strip() and not line.startswith(" =")]
        if len(lines) > 1:
            yield "\n".join(lines)


def splits(table: str) -> list[str]:
    """The two sentences that one was split into, each pair a document."""
    return [plain(row.split("\t")[1]).replace(" <::::> ", "\n") for row in table.splitlines() if "\t" in row]


def corpus(folder: Path, quick: bool) -> tuple[str, str]:
    """The files to train on and to judge by; a document is in one of them."""
    train, held = folder / "train.jsonl", folder / "held.jsonl"
    if not held.exists():
        novels = [*chapters(text("novels_en/train-00.txt.gz")), *chapters(text("novels_en/train-01.txt.gz"))]
        wiki = [*articles(text("wikitext2/valid.txt.gz")), *articles(text("wikitext2/test.txt.gz"))]
        pairs = splits(text("wikisplit_en/test.tsv.gz"))
        other = list(chapters(text("novels_en/valid.txt.gz")))
        judged = [*other[::4], *wiki[::10], *pairs[::10]]
        kept = [
            *novels,
            *(x for i, x in enumerate(wiki) if i % 10),
            *(x for i, x in enumerate(pairs) if i % 10),
        ]
        random.Random(0).shuffle(kept)
        if quick:
            kept, judged = kept[:150], judged[:20]
        folder.mkdir(parents=True, exist_ok=True)
        for path, documents in ((train, kept), (held, judged)):
            part = path.with_suffix(".part")
            part.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
            part.replace(path)
    return str(train), str(held)


def options_of(folder: Path, quick: bool) -> dict[str, str]:
    """The pre-training's options."""
    train, held = corpus(folder, quick)
    found = {"--data": train, "--eval-data": held, "--seed": "0", "--threads": "1" if quick else "2"}
    if quick:
        return found | {"--preset": "seconds", "--steps": "150", "--vocab-size": "1000", "--block": "64"}
    return found | {"--preset": "cpu-30min"}


def configured(words: dict[str, str]) -> BertRunConfig:
    """The same options as a configuration."""
    from lineal.cli_options import parse

    flat = [word for pair in words.items() for word in pair]
    return parse(bert.tuned(parse(bert.default(), flat)), flat)


def speed(folder: Path, words: dict[str, str], quick: bool) -> Iterator[harness.Figure]:
    """Tokens a second of both, taking turns; padding is no token. A small model's speed has no bar."""
    rounds, chunk = (3, 4) if quick else (7, 10)
    import transformers

    config = with_options(configured(words), quiet=True)
    with Run.create(folder / "speed", {"recipe": "bert", "options": to_json(config)}) as run:
        parts = bert_loop.build(config, run)
        guard, steps, shape = Guard(run.refused), {"ours": 0}, parts.model.config
        peer = transformers.BertForPreTraining(
            transformers.BertConfig(
                vocab_size=shape.vocab_size, hidden_size=shape.width, num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads, intermediate_size=shape.inner, max_position_embeddings=shape.context,
                hidden_dropout_prob=shape.dropout, attention_probs_dropout_prob=shape.attention_dropout,
            )
        ).train()  # fmt: skip
        optimiser = torch.optim.AdamW(peer.parameters(), 1e-4, fused=True)
        batches = [
            padded(parts, number, config.optimiser.batch_size, config.optimiser.block)
            for number in range(chunk)
        ]
        counted: dict[str, list[float]] = {"ours": [], "peer": []}

        def ours() -> None:
            done = 0.0
            for _ in range(chunk):
                steps["ours"] += 1
                done += bert_loop.train_step(config, parts, steps["ours"], guard)["tokens"]
            counted["ours"].append(done)

        def theirs() -> None:
            for batch in batches:
                optimiser.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=parts.half is not None):
                    loss = peer(**batch).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
                optimiser.step()
            counted["peer"].append(float(sum(batch["attention_mask"].sum() for batch in batches)))

        seconds = harness.interleaved({"ours": ours, "peer": theirs}, rounds)
        # A warm-up, where there is one, is counted and not timed.
        rates = {
            name: statistics.median(n / s for n, s in zip(counted[name][-len(spent) :], spent, strict=True))
            for name, spent in seconds.items()
        }
        first, length_N = parts.order.epoch(0), parts.train.of(0).lengths() + 3
    ratio, share = rates["ours"] / rates["peer"], padding(first, length_N)
    details = {"threads": torch.get_num_threads(), "bfloat16": parts.half is not None, "parameters": sum(p.numel() for p in parts.model.parameters())}  # fmt: skip
    yield harness.Figure(
        "pre-training: tokens a second", rates["ours"], rates["peer"], "tokens/s", ">= 1.5x BertForPreTraining, padded",
        quick or ratio >= 1.5, details=details,
    )  # fmt: skip
    theirs_share = 1 - float(length_N.mean()) / config.optimiser.block
    yield harness.Figure(
        "pre-training: padding", 100 * share, 100 * theirs_share, "% of tokens", "< 10 %", share < 0.1
    )


def padded(parts: bert_loop.Parts, number: int, size: int, block: int) -> dict[str, torch.Tensor]:
    """A batch as transformers takes it: pairs of one epoch in a random order, all as long as the longest may be."""
    count = len(parts.train.of(0))
    rows = np.random.default_rng(number).permutation(count)[:size]
    batch = parts.train.batch(0, rows)
    label_N = torch.full((batch.token_BT.numel(),), -100)
    label_N[batch.at_M] = batch.word_M
    more = (0, block - batch.token_BT.shape[1])
    return {
        "input_ids": torch.nn.functional.pad(batch.token_BT, more),
        "token_type_ids": torch.nn.functional.pad(batch.segment_BT, more),
        "attention_mask": torch.nn.functional.pad(batch.mask_BT.long(), more),
        "labels": torch.nn.functional.pad(label_N.view(batch.token_BT.shape), more, value=-100),
        "next_sentence_label": batch.random_B,
    }


def pretraining(run: Path, quick: bool) -> Iterator[harness.Figure]:
    """What the pre-trained model knows of documents it has not seen."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (final,) = [line for line in lines if line.get("eval/final")]
    timing = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    minutes = math.fsum(line["step_time"] for line in timing) / 60
    details = {
        "minutes": round(minutes, 1), "steps": final["step"], "pairs": final["eval/pairs"],
        "masked perplexity": round(final["eval/masked_perplexity"], 2),
        "padding, %": round(100 * statistics.mean(line["padding"] for line in lines if "padding" in line), 2),
    }  # fmt: skip
    yield harness.Figure(
        "pre-training: next sentences told on held-out documents", 100 * final["eval/next_accuracy"],
        100 * final["eval/next_usual"], "%", ">= 70 % in <= 30.5 minutes", quick or (final["eval/next_accuracy"] >= 0.7 and minutes <= 30.5),
        seeds=(0,), details=details,
    )  # fmt: skip
    yield harness.Figure(
        "pre-training: hidden words filled on held-out documents", 100 * final["eval/masked_accuracy"], None, "%",
        "", True, seeds=(0,),
    )  # fmt: skip


def paraphrases(name: str) -> list[Row]:
    """MRPC: two sentences and whether they say the same."""
    rows = (line.split("\t") for line in text(name).splitlines()[1:])
    return [
        {"first": r[3], "second": r[4], "label": ("other", "same")[int(r[0])]} for r in rows if len(r) == 5
    ]


def entailment(name: str) -> list[Row]:
    """SICK: two sentences and whether the first entails the second."""
    table = csv.DictReader(io.StringIO(text(name)), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        {"first": row["sentence_A"], "second": row["sentence_B"], "label": row["entailment_judgment"]}
        for row in table
    ]


def sentiment(name: str) -> list[Row]:
    """SST-2: a sentence, a tab, 0 or 1."""
    rows = (line.rpartition("\t") for line in text(name).splitlines())
    return [{"text": sentence, "label": ("negative", "positive")[int(label)]} for sentence, _, label in rows]


def rows_of(task: Task) -> tuple[list[Row], list[Row]]:
    """Rows to choose from for training, and to judge by."""
    if task.name == "MRPC":
        # The test set is not there: the end of the training set helps to judge.
        known = paraphrases("mrpc/msr-para-train.tsv.gz")
        return known[: task.rows], [*known[task.rows :], *paraphrases("mrpc/msr-para-val.tsv")]
    if task.name == "SICK":
        return entailment("sick/SICK_train.txt.gz"), entailment("sick/SICK_test_annotated.txt.gz")
    return sentiment("sst2/train.tsv.gz"), sentiment("sst2/test.tsv")


def of_task(task: Task, model: Path, quick: bool) -> harness.Tuning:
    """The fine-tunings of a task."""
    train, judged = rows_of(task)
    fields = {"--text-field": "first", "--second-field": "second"} if task.kind == "pair" else {}
    options = {
        "--model": str(model), "--task": task.kind, "--learning-rate": task.rate, "--warmup": "0.1",
        "--epochs": "1" if quick else str(task.epochs), **fields,
    }  # fmt: skip
    rows, judged = (120, judged[:200]) if quick else (task.rows, judged)
    return harness.Tuning(task.name, train, judged, rows, options, METHODS)


def tuning(folder: Path, model: Path, arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Pre-trained against from scratch, paired by seed; and on how many tasks the first is better."""
    seeds = range(2 if arguments.quick else 5)
    better = []
    for task in TASKS:
        by_method = of_task(task, model, arguments.quick).reached(folder, seeds, arguments.jobs)
        mean, error = harness.gain(*by_method.values())
        better.append(mean > 0 and mean >= 2 * error)
        yield harness.compared(task.name, by_method, seeds)
    yield harness.Figure(
        "tasks on which pre-training gains >= 2 standard errors", float(sum(better)), None, f"of {len(TASKS)}",
        "none in a quick run" if arguments.quick else ">= 2", arguments.quick or sum(better) >= 2, seeds=tuple(seeds),
    )  # fmt: skip


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Speed, the pre-training, and every fine-tuning."""
    quick = arguments.quick
    folder = Path(arguments.cells) / ("quick" if quick else "full")
    words = options_of(folder / "data", quick)
    asked = set(arguments.only or PARTS)
    if "speed" in asked:
        with tempfile.TemporaryDirectory() as place:
            yield from speed(Path(place), words, quick)
    if {"pretraining", "tuning"} & asked:
        if arguments.steps:
            words["--steps"] = str(arguments.steps)
        model = harness.Cell(folder / "pretrained", "bert", words).run()
        if "pretraining" in asked:
            yield from pretraining(model, quick)
        if "tuning" in asked:
            yield from tuning(folder, model, arguments)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be varied."""
    parser.add_argument("--quick", action="store_true", help="small model, two seeds, few rows; no bar")
    parser.add_argument(
        "--cells", default="runs/bert-benchmark", help="folder of the cells; finished ones are kept"
    )
    parser.add_argument("--jobs", type=int, default=2, help="fine-tunings at a time, one thread each")
    parser.add_argument("--steps", type=int, default=0, help="of the pre-training (default: the preset's)")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some of the parts; the other figures stay")


if __name__ == "__main__":
    sys.exit(harness.main("bert", measure, options))
