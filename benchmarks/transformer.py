"""The Transformer on Multi30k: speed beside torch.nn.Transformer, cached beside uncached decoding, and the BLEU of a run.

    LINEAL_TEST_DATA=... python benchmarks/transformer.py --json [--quick] [--minutes 75]

The plain loop is torch.nn.Transformer of the same shape (4 + 4 layers, width 128, inner 256, 4 heads, 10,000 subwords, dropout
0.3) in bfloat16 autocast where we use it, on the same sentences in the same batches, padded, with the same smoothed loss, the
same Adam and as many threads. The BLEU run is a folder under benchmarks/cells: interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import harness
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lineal.generate.beam import BeamSearch
from lineal.generate.translate import Ids, translate
from lineal.models.hf.marian import load_marian
from lineal.models.transformer import Transformer, sinusoid
from lineal.optim.groups import set_learning_rate
from lineal.recipes import transformer, transformer_loop
from lineal.recipes.config import from_json, to_json, with_options
from lineal.train.guard import Guard
from lineal.train.metrics import read_lines
from lineal.train.run import Run, read_record
from lineal.train.translation.batches import Batch, make_batch
from lineal.train.translation.options import TranslationConfig

CELLS = Path(__file__).parent / "cells"
LONG, SOURCES = 50, 64
"""Tokens decoded where caching is measured, and sentences at once."""


def config(folder: Path, **options: object) -> TranslationConfig:
    """The preset on Multi30k, English to German."""
    data = Path(os.environ.get("LINEAL_TEST_DATA", "../shared/data")) / "multi30k"
    asked = with_options(transformer.default(), preset="multi30k")
    return with_options(
        transformer.tuned(asked), source_file=str(data / "train.en.gz"), target_file=str(data / "train.de.gz"),
        valid_source=str(data / "val.en"), valid_target=str(data / "val.de"), test_source=str(data / "test_2016_flickr.en"),
        test_target=str(data / "test_2016_flickr.de"), target_language="de", out=str(folder), quiet=True, **options,
    )  # fmt: skip


class Plain(nn.Module):
    """torch.nn.Transformer between a shared embedding and itself, as its tutorial has it."""

    def __init__(self, like: Transformer) -> None:
        super().__init__()
        shape = like.config
        self.embedding = nn.Embedding(shape.vocab_size, shape.width)
        nn.init.normal_(self.embedding.weight, std=shape.width**-0.5)
        self.body = nn.Transformer(
            shape.width,
            shape.heads,
            shape.encoder_layers,
            shape.decoder_layers,
            shape.inner,
            shape.dropout,
            batch_first=True,
        )
        self.dropout = nn.Dropout(shape.dropout)
        self.register_buffer("position_TD", sinusoid(256, shape.width))
        self.scale = math.sqrt(shape.width)

    def embed(self, token_BT: Tensor) -> Tensor:
        """Scaled embeddings and positions."""
        return self.dropout(
            self.embedding(token_BT) * self.scale + self.get_buffer("position_TD")[: token_BT.shape[1]]
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits of every position, padding included."""
        width = batch.input_BT.shape[1]
        causal = nn.Transformer.generate_square_subsequent_mask(width)
        beyond = None if batch.source_mask is None else batch.source_mask[:, 0, 0]
        hidden = self.body(
            self.embed(batch.source_BS), self.embed(batch.input_BT), tgt_mask=causal, tgt_is_causal=True,
            src_key_padding_mask=beyond, memory_key_padding_mask=beyond,
        )  # fmt: skip
        return F.linear(hidden, self.embedding.weight)


def speeds(folder: Path, rounds: int, chunk: int) -> Iterator[harness.Figure]:
    """Target tokens a second of both loops, taking the same batches in turn; and the share of padding."""
    options = config(folder / "speed")
    with Run.create(folder / "speed", {"recipe": "transformer", "options": to_json(options)}) as run:
        parts = transformer_loop.build(options, run)
        plain, guard, steps = Plain(parts.model).train(), Guard(run.refused), {"ours": 0, "plain": 0}
        optimiser = torch.optim.Adam(plain.parameters(), 1e-3, betas=(0.9, 0.98), eps=1e-9)
        set_learning_rate(parts.optimiser, 1e-3)

        def ours() -> None:
            for _ in range(chunk):
                steps["ours"] += 1
                transformer_loop.train_step(options, parts, steps["ours"], guard)

        def theirs() -> None:
            for _ in range(chunk):
                batch = make_batch(
                    parts.task.train, parts.order.batch(steps["plain"]), parts.task.ids, torch.device("cpu")
                )
                steps["plain"] += 1
                with torch.autocast("cpu", torch.bfloat16, enabled=parts.half):
                    logits = plain(batch)
                target = batch.target_BT.masked_fill(~batch.mask_BT, -100).flatten()
                optimiser.zero_grad()
                F.cross_entropy(logits.float().flatten(0, 1), target, label_smoothing=0.1).backward()
                optimiser.step()

        seconds = harness.interleaved({"ours": ours, "plain": theirs}, rounds)
        order, batches = parts.order, parts.order.epoch(0)
        tokens = float(order.target_N.sum()) / len(batches) * chunk
        area = sum(len(b) * int(n[b].max()) for b in batches for n in (order.source_N, order.target_N))
        padding = 1 - int(order.source_N.sum() + order.target_N.sum()) / area
        rates = {name: tokens / harness.median(spent) for name, spent in seconds.items()}
        yield harness.Figure(
            "transformer/training", rates["ours"], rates["plain"], "target tokens/s", ">= 1.5x torch.nn.Transformer",
            rates["ours"] >= 1.5 * rates["plain"],
            details={"threads": torch.get_num_threads(), "bfloat16": parts.half, "tokens a batch": round(tokens / chunk)},
        )  # fmt: skip
        yield harness.Figure(
            "transformer/padding", 100 * padding, None, "% of places", "< 10", padding < 0.10
        )


def decoding(model: Transformer, rounds: int) -> Iterator[harness.Figure]:
    """Seconds to write 50 tokens for 64 sentences, with and without a cache; the tokens must be the same."""
    made = torch.Generator().manual_seed(0)
    count = model.config.vocab_size
    sources = torch.randint(4, count, (SOURCES, 14), generator=made).tolist()
    # No end token: every hypothesis runs to the full length.
    ids = Ids(model.config.start, count, model.config.pad)
    for beams in (1, 5):
        search = BeamSearch(beams, max_new_tokens=LONG)
        answers: dict[bool, list[tuple[int, ...]]] = {}

        def write(cached: bool) -> None:
            found = translate(model, sources, search, ids, cached=cached)  # noqa: B023
            answers[cached] = [hypothesis.completion.ids for row in found for hypothesis in row]  # noqa: B023

        seconds = harness.interleaved(
            {"cached": lambda: write(True), "uncached": lambda: write(False)}, rounds
        )
        ours, peer = (LONG * SOURCES / harness.median(seconds[name]) for name in ("cached", "uncached"))
        same = answers[True] == answers[False] and all(len(row) == LONG for row in answers[True])
        yield harness.Figure(
            f"transformer/decoding, beam {beams}", ours, peer, "tokens/s", ">= 4x uncached, the same tokens",
            same and ours >= 4 * peer, details={"same tokens": same},
        )  # fmt: skip


def bleu(minutes: float, bar: float | None, name: str, **options: object) -> Iterator[harness.Figure]:
    """BLEU on test2016 after so many minutes of training, however often it was interrupted."""
    folder = CELLS / "transformer" / name
    if not (folder / "final").exists():
        if (folder / "config.json").exists():
            asked, opened = (
                from_json(TranslationConfig, read_record(folder)["config"]["options"]),
                Run.open(folder),
            )
        else:
            asked = config(folder, time_limit=60 * minutes, **options)
            opened = Run.create(
                folder, {"recipe": "transformer", "options": to_json(asked)}, keep_last=asked.run.keep_last
            )
        with opened:
            transformer_loop.run(asked, opened)
    (final,) = [line for line in read_lines(folder / "metrics.jsonl") if line.get("eval/final")]
    spent = sum(line["step_time"] for line in read_lines(folder / "timing.jsonl"))
    shown = (
        "eval/bleu",
        "eval/bleu_tokenised",
        "eval/bleu_tokenised_lower",
        "eval/perplexity",
        "eval/bits_per_byte",
    )
    details = {key: round(final[key], 4) for key in shown} | {
        "steps": final["step"],
        "minutes": round(spent / 60, 1),
    }
    score = final["eval/bleu_tokenised_lower"]
    yield harness.Figure(
        f"transformer/BLEU of test2016 ({name})", score, None, "BLEU, Moses-tokenised, lower case",
        f">= {bar:g}" if bar else "", bar is None or score >= bar, seeds=(0,), details=details,
    )  # fmt: skip


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """Speed, decoding, and a run: a short one without a bar (--quick), else one of --minutes."""
    quick, minutes = arguments.quick, 3.0 if arguments.quick else arguments.minutes
    name = "quick" if quick else f"{minutes:g} minutes"
    with tempfile.TemporaryDirectory() as temporary:
        speed, padding = speeds(Path(temporary), 3 if quick else 9, 4 if quick else 12)
    yield speed
    yield padding
    # The rate falls to 0 over as many steps as fit; a tenth is left for validation and a slower hour.
    steps = arguments.steps or int(0.9 * 60 * minutes * speed.ours / (speed.details or {})["tokens a batch"])
    bar = 38.0 if minutes >= 180 else 35.0 if minutes >= 75 else None
    yield from bleu(
        minutes, bar, name, steps=steps, warmup=min(1000, steps // 4), snapshot_every=max(1, steps // 100)
    )
    yield from decoding(load_marian(CELLS / "transformer" / name / "final"), 2 if quick else 5)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="ten minutes at most: a short run, few rounds")
    parser.add_argument("--minutes", type=float, default=75.0, help="training time of the BLEU run")
    parser.add_argument(
        "--steps", type=int, default=0, help="steps over which the rate falls (0: as many as fit)"
    )


if __name__ == "__main__":
    raise SystemExit(harness.main("transformer", measure, _options))
