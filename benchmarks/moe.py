"""Mixtures of experts: the layer's speed, the ladder of experts at equal work, balance, and routing under policy gradients.

    LINEAL_TEST_DATA=... python benchmarks/moe.py [--quick] [--json] [--save] [--only speed ladder balance policy]

speed: forward and backward of one layer beside a dense layer of the same active work, and beside the block of Mixtral in
transformers, in turn. ladder: the LSTM model of the paper, scaled down, on novels; dense (one expert as wide as the
chosen ones together), 4 and 32 experts see the same tokens, ten minutes each on two quiet cores, 17 on the one thread
that a cell has here. balance: the busiest expert's load over the mean with both losses and with none. policy: a Mixtral
policy on arithmetic under GRPO, GRPO with routing replay and GSPO: how many of the sampled experts an update would not
choose, and how much is clipped.

Every training is an ordinary run in a process of its own under --cells; finished ones are skipped, interrupted ones
resumed. --quick: a twentieth of the steps, and no bar on what is trained.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import torch
from harness import Figure
from torch import Tensor, nn

from lineal.models.gating import ExpertsConfig
from lineal.models.layers import SwiGLU
from lineal.models.moe import Mixture

HERE = Path(__file__).parent
PARTS = ("speed", "ladder", "balance", "policy")
STEPS, VOCABULARY, CHOSEN, INNER = 4500, 2048, 4, 512
"""Of the ladder: optimiser steps of 64 x 32 tokens, the BPE vocabulary, k, and the hidden width of an expert."""
LADDER: dict[str, list[str]] = {
    "dense": f"--experts 1 --chosen 1 --gate top_k --load-weight 0 --inner {CHOSEN * INNER}".split(),
    # Where every expert is chosen there is nothing for noise to try out, and no load to balance.
    "experts-4": ["--experts", "4", "--gate", "top_k", "--load-weight", "0"],
    "experts-32": ["--experts", "32"],
    "experts-32-unbalanced": ["--experts", "32", "--importance-weight", "0", "--load-weight", "0"],
}
POLICY: dict[str, list[str]] = {
    "grpo": ["grpo"],
    "grpo-replay": ["grpo", "--routing-replay"],
    "gspo": ["gspo"],
}


def trained(folder: Path, *words: object) -> list[dict]:
    """The metrics of a run: made now, resumed, or as they are when it is done."""
    if not (folder / "final").exists():
        if (folder / "checkpoints").exists():
            harness.lineal("resume", str(folder))
        else:
            for file in folder.glob("*"):
                file.unlink()
            harness.lineal("run", *map(str, words), "--out", str(folder), "--quiet")
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def novels(cells: Path) -> tuple[Path, Path]:
    """The novels as one file, and a BPE tokenizer learnt on them."""
    text, tokenizer = cells / "novels.txt", cells / f"bpe-{VOCABULARY}"
    cells.mkdir(parents=True, exist_ok=True)
    if not text.exists():
        parts = sorted((harness.data() / "novels_en").glob("train-*.txt.gz"))
        partial = text.with_suffix(".tmp")
        partial.write_bytes(b"".join(gzip.decompress(part.read_bytes()) for part in parts))
        partial.rename(text)
    if not (tokenizer / "tokenizer.json").exists():
        size = str(VOCABULARY)
        harness.lineal(
            "tokenizer", "train", str(text), "--kind", "bpe", "--vocab-size", size, "--out", str(tokenizer)
        )
    return text, tokenizer


def ladder_cell(arguments: argparse.Namespace, name: str, seed: int) -> list[dict]:
    """One model of the ladder."""
    text, tokenizer = novels(arguments.cells)
    steps = STEPS // 20 if arguments.quick else STEPS
    common = ["--preset", "cpu-10min", "--data", text, "--held-out", "0.02", "--tokenizer", tokenizer]
    sizes = ["--chosen", CHOSEN, "--inner", INNER, "--steps", steps, "--eval-every", 0, "--seed", seed]
    folder = arguments.cells / f"{'quick-' if arguments.quick else ''}{name}-{seed}"
    return trained(folder, "moe", *common, *sizes, "--device", "cpu", "--dtype", "float32", *LADDER[name])


def perplexity(metrics: list[dict]) -> float:
    """On the held-out text, at the end."""
    return next(line["eval/perplexity"] for line in metrics if line.get("eval/final"))


def load(metrics: list[dict]) -> float:
    """Most over mean load, over the last tenth of the steps."""
    found = [line["routing/max_over_mean"] for line in metrics if "routing/max_over_mean" in line]
    tail = found[-max(1, len(found) // 10) :]
    return math.fsum(tail) / len(tail)


def layer_times(
    tokens: int, width: int, inner: int, experts: int, chosen: int, rounds: int
) -> dict[str, float]:
    """Least milliseconds of a forward and backward pass: ours, the dense layer, and Mixtral's block where it is."""
    torch.manual_seed(0)
    modules: dict[str, nn.Module] = {
        "ours": Mixture(ExpertsConfig(experts, chosen, inner), width),
        "dense": SwiGLU(width, chosen * inner, False),
    }
    try:
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    except ImportError:
        pass
    else:
        config = MixtralConfig(
            hidden_size=width,
            intermediate_size=inner,
            num_local_experts=experts,
            num_experts_per_tok=chosen,
        )
        # What transformers chooses by itself here, and the loop that it is written as.
        for name in ("eager", "grouped_mm"):
            config._experts_implementation = name
            modules[f"transformers {name}"] = MixtralSparseMoeBlock(config)
    for module in modules.values():
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02)
    x = torch.randn(1, tokens, width, requires_grad=True)
    slope = torch.randn(1, tokens, width)

    def passes(module: nn.Module) -> Callable[[], None]:
        def once() -> None:
            module.zero_grad(set_to_none=True)
            found = module(x)
            (found if isinstance(found, Tensor) else found[0]).backward(slope)

        return once

    seconds = harness.interleaved({name: passes(m) for name, m in modules.items()}, rounds, warm=2)
    return {name: 1000 * min(times) for name, times in seconds.items()}


def speed(arguments: argparse.Namespace) -> Iterator[Figure]:
    """One layer, on one thread."""
    torch.set_num_threads(1)
    shape = (4096, 256, 512, 16, 2)
    times = layer_times(*shape, rounds=5 if arguments.quick else 15)
    named: dict[str, Any] = dict(zip(("tokens", "width", "inner", "experts", "chosen"), shape, strict=True))
    ours, dense = times["ours"], times["dense"]
    bar = "at most 1.15 times a dense layer of the same active work"
    yield Figure("moe/layer beside dense", ours, dense, "ms", bar, ours <= 1.15 * dense, details=named)
    others = {name: value for name, value in times.items() if name.startswith("transformers")}
    if others:
        best = min(others.values())
        details = {name: round(value, 1) for name, value in others.items()}
        yield Figure(
            "moe/layer beside Mixtral's block", ours, best, "ms", "not slower", ours <= best, details=details
        )


def ladder(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Perplexities of dense, 4 and 32 experts on the same tokens."""
    found: dict[str, list[float]] = {}
    for name in ("dense", "experts-4", "experts-32"):
        found[name] = [perplexity(ladder_cell(arguments, name, seed)) for seed in arguments.seeds]
    means = {name: math.fsum(values) / len(values) for name, values in found.items()}
    details = {name: [round(value, 3) for value in values] for name, values in found.items()}
    seeds, free = tuple(arguments.seeds), arguments.quick
    few, many, dense = means["experts-4"], means["experts-32"], means["dense"]
    yield Figure(
        "moe/perplexity, 32 experts beside 4", many, few, "perplexity", "ratio at most 0.95",
        free or many <= 0.95 * few, seeds=seeds, details=details,
    )  # fmt: skip
    yield Figure(
        "moe/perplexity, 4 experts beside dense", few, dense, "perplexity", "both mixtures below dense",
        free or max(few, many) < dense, seeds=seeds,
    )  # fmt: skip


def balance(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Most over mean load with and without the losses."""
    seed = arguments.seeds[0]
    kept = load(ladder_cell(arguments, "experts-32", seed))
    lost = load(ladder_cell(arguments, "experts-32-unbalanced", seed))
    yield Figure(
        "moe/most over mean load, both losses beside none", kept, lost, "",
        "at most 1.3 with both, at least 2.5 with none (paper: 1.14 and 17.8)",
        arguments.quick or (kept <= 1.3 and lost >= 2.5), seeds=(seed,),
    )  # fmt: skip


def policy(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Routing change and clip share of three ways to train a mixture policy."""
    prefix, quick = ("quick-" if arguments.quick else ""), arguments.quick
    start = arguments.cells / f"{prefix}policy-sft"
    shape = ["--layout", "mixtral", "--layers", 3, "--width", 128, "--heads", 4, "--inner", 128, "--level", 2]
    small = ["--device", "cpu", "--dtype", "float32", "--threads", "1"]
    imitated = ["--steps", 60 if quick else 2000, "--stop-accuracy", 0.4, "--eval-every", 50]
    trained(start, "sft", *shape, *small, *imitated)
    for name, words in POLICY.items():
        own = ["--level", "2", "--prompts", "32", "--group-size", "8", "--minibatches", "4", "--epochs", "1"]
        steps = ["--steps", 10 if quick else 200, "--learning-rate", 2e-4, "--eval-prompts", 500]
        metrics = trained(
            arguments.cells / f"{prefix}policy-{name}", *words, "--model", start, *own, *steps, *small
        )
        lines = [line for line in metrics if "routing/changed" in line]
        changed, clipped = (
            math.fsum(line.get(key, 0.0) for line in lines) / max(1, len(lines))
            for key in ("routing/changed", "clip_ratio/region_mean")
        )
        accuracy = [line["eval/accuracy"] for line in metrics if line.get("eval/final")]
        details = {"clip share": round(clipped, 5), "accuracy": [round(value, 3) for value in accuracy]}
        bar = "printed: the share of sampled experts that the policy being updated would not choose"
        yield Figure(
            f"moe/routing change, {name}",
            changed,
            None,
            "share",
            bar,
            bool(lines),
            seeds=(0,),
            details=details,
        )


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """The parts that were asked for."""
    arguments.seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    for part in PARTS:
        if not arguments.only or part in arguments.only:
            yield from globals()[part](arguments)


def options(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument(
        "--quick", action="store_true", help="a twentieth of the steps, and no bar on what is trained"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some of the parts; the other figures stay")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds of the ladder")
    parser.add_argument("--cells", type=Path, default=HERE / "cells" / "moe", help="where the runs go")


if __name__ == "__main__":
    raise SystemExit(harness.main("moe", measure, options))
