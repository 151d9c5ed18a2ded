"""From a file of prompts and answers: does `sft` and then `grpo` on it raise the exact match on prompts held out?

    LINEAL_TEST_DATA=... python benchmarks/arithmetic_file.py [--quick] [--json] [--save]

The file is simple_arithmetic_nospaces.jsonl (1,000 sums, differences and products of 2 to 5 numbers, `25-759=`); 250 of its
rows are held out. 750 rows teach a fresh model nothing, so the model that is given to both recipes was pre-trained on a text of
made-up lines of two numbers only (a product in each ten), none of whose problems is in the file: it knows such sums, and
neither where an answer ends nor longer ones. Three ordinary runs, one after the other, each a cell: `pretrain`, `sft` from
it, `grpo` from that.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import harness

from lineal.train.metrics import read_lines

FIELDS = {"--prompt-field": "context", "--completion-field": "continuation"}
LINES, HELD, SAMPLES = 600_000, 250, 32


def rows() -> list[str]:
    """The file's lines."""
    return harness.text("arithmetic/simple_arithmetic_nospaces.jsonl").splitlines(keepends=True)


def made_up(count: int) -> str:
    """Lines `a+b=c`, `a-b=c` and, one in ten, `a*b=c`; the file's own problems are left out, and those of `b+a`, `b*a`."""
    taken = {json.loads(line)["context"] for line in rows()}
    draw, found = random.Random(0), []
    while len(found) < count:
        sign = draw.choices("+-*", (45, 45, 10))[0]
        top = 100 if sign == "*" else 1000
        a, b = draw.randint(1, top), draw.randint(1, top)
        turned = f"{a}{sign}{b}=" if sign == "-" else f"{b}{sign}{a}="
        if f"{a}{sign}{b}=" not in taken and turned not in taken:
            value = a + b if sign == "+" else a - b if sign == "-" else a * b
            found.append(f"{a}{sign}{b}={value}\n")
    return "".join(found)


def judged(run: Path, first: bool = False) -> dict[str, float]:
    """Exact match on the rows held out, sampled at temperature 1 and greedy, after training (or before it)."""
    found, *_ = [
        x for x in read_lines(run / "metrics.jsonl") if x.get("eval/final") and (x["step"] == 0) == first
    ]
    return {name: found[f"eval/{name}"] for name in ("accuracy", "greedy", "error")}


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Pre-training, then both recipes; a run of grpo without a step judges what sft starts from."""
    folder, quick = arguments.cells / ("quick" if arguments.quick else "full"), arguments.quick
    text = harness.write_once(folder / "made-up.txt", made_up(20_000 if quick else LINES))
    shuffled = rows()
    random.Random(0).shuffle(shuffled)
    learnt = harness.write_once(folder / "train.jsonl", "".join(shuffled[HELD:]))
    held = harness.write_once(folder / "held-out.jsonl", "".join(shuffled[:HELD]))
    file = {"--data": str(learnt), "--eval-data": str(held), **FIELDS, "--threads": "2"}
    file["--eval-samples"] = str(2 if quick else SAMPLES)

    def cell(name: str, recipe: str, model: Path | None, **more: object) -> Path:
        start = {} if model is None else {"--model": str(model / "final"), **file}
        words = {"--" + key.replace("_", "-"): str(value) for key, value in more.items()}
        return harness.Cell(folder / name, recipe, start | words).run()

    known = cell(
        "pretrained", "pretrain", None, data=text, layers=4, width=192, heads=6, context=128, block=128, batch_size=24,
        learning_rate=1e-3, schedule="cosine", warmup=40 if quick else 200, steps=40 if quick else arguments.steps,
        eval_every=1000, save_every=500, threads=2,
    )  # fmt: skip
    before = cell("before", "grpo", known, steps=0)
    told = cell("sft", "sft", known, steps=5 if quick else 100, learning_rate=1e-4, batch_size=64)
    rewarded = cell(
        "grpo", "grpo", told, steps=3 if quick else 200, learning_rate=5e-5, prompts=32, group_size=16, reference_kl=0.02
    )  # fmt: skip
    for name, found, earlier in (
        ("sft", judged(told), judged(before, first=True)),
        ("grpo", judged(rewarded), judged(rewarded, first=True)),
    ):
        details = {"greedy": found["greedy"], "greedy before": earlier["greedy"], "rows": HELD}
        details |= {"standard error, the rows being drawn anew": found["error"]}
        yield harness.Figure(
            f"exact match on rows held out, before and after {name}", found["accuracy"], earlier["accuracy"],
            "share of samples at temperature 1", "above before", quick or found["accuracy"] > earlier["accuracy"],
            seeds=(0,), details=details,
        )  # fmt: skip


def options(parser: argparse.ArgumentParser) -> None:
    """What can be varied."""
    parser.add_argument("--quick", action="store_true", help="a few steps of each; no bar")
    parser.add_argument("--steps", type=int, default=4000, help="of pre-training")
    parser.add_argument(
        "--cells", type=Path, default=Path("benchmarks/cells/arithmetic_file"), help="where they go"
    )


if __name__ == "__main__":
    raise SystemExit(harness.main("arithmetic_file", measure, options))
