"""Pre-training on tiny Shakespeare at nanoGPT's CPU setting: the loss it reaches, and its time beside a plain loop.

    LINEAL_TEST_DATA=... python benchmarks/pretrain.py --json

4 layers, 4 heads, width 128, context 64, batch 12, 2000 steps. The plain loop is eager float32 PyTorch on the same
model with all threads: random windows, cross-entropy, AdamW. Both take their steps in turn, in chunks.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import harness
import torch
import torch.nn.functional as F

from lineal.models.decoder import Decoder
from lineal.recipes import next_token, pretrain
from lineal.recipes.config import LanguageConfig, to_json, with_options
from lineal.train.guard import Guard
from lineal.train.metrics import read_lines
from lineal.train.run import Run

CHUNK = 20


def config(folder: Path, steps: int) -> LanguageConfig:
    """nanoGPT's CPU setting."""
    return with_options(
        pretrain.default(), data=str(harness.shakespeare()), layers=4, heads=4, width=128, inner=352, block=64, batch_size=12, steps=steps,
        out=str(folder), quiet=True, eval_every=0, save_every=1000, seed=1,
    )  # fmt: skip


class Plain:
    """The plain loop: nothing but PyTorch."""

    def __init__(self, like: Decoder, stream_N: torch.Tensor) -> None:
        self.model, self.stream_N = Decoder(like.config).initialise(0).train(), stream_N.long()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.1)

    def step(self) -> None:
        """One step."""
        start_B = torch.randint(len(self.stream_N) - 65, (12,))
        window_BT = torch.stack([self.stream_N[s : s + 65] for s in start_B])
        logits = self.model.logits(self.model(window_BT[:, :-1]))
        loss = F.cross_entropy(logits.flatten(0, 1), window_BT[:, 1:].flatten())
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        loss.item()


def speeds(folder: Path, rounds: int) -> tuple[float, float]:
    """Median seconds of one step, ours and the plain loop's, in turn."""
    options = config(folder / "speed", 2000)
    with Run.create(folder / "speed", {"recipe": "pretrain", "options": to_json(options)}) as run:
        parts = next_token.build(options, run)
        threads, every = torch.get_num_threads(), os.cpu_count() or 1
        assert isinstance(parts.data, next_token.Text) and isinstance(parts.decoder, Decoder)
        plain, guard, done = Plain(parts.decoder, parts.data.train_N), Guard(run.refused), 0

        def ours() -> None:
            nonlocal done
            torch.set_num_threads(threads)
            for _ in range(CHUNK):
                done += 1
                metrics = next_token.train_step(options, parts, done, guard)
                run.log(done, metrics)

        def theirs() -> None:
            torch.set_num_threads(every)
            for _ in range(CHUNK):
                plain.step()

        seconds = harness.interleaved({"ours": ours, "plain": theirs}, rounds)
    return harness.median(seconds["ours"]) / CHUNK, harness.median(seconds["plain"]) / CHUNK


def measure(arguments: argparse.Namespace) -> Iterator[harness.Figure]:
    """The speed, then the loss of a whole run."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours, plain = speeds(folder, arguments.rounds)
        yield harness.Figure(
            "pretrain/steps per second",
            1 / ours,
            1 / plain,
            "steps/s",
            "more than an eager float32 loop",
            ours < plain,
        )
        options, begun = config(folder / "whole", 2000), time.perf_counter()
        with Run.create(folder / "whole", {"recipe": "pretrain", "options": to_json(options)}) as run:
            next_token.run(options, run)
        spent = time.perf_counter() - begun
        (loss,) = [
            line["eval/loss"]
            for line in read_lines(folder / "whole" / "metrics.jsonl")
            if line.get("eval/final")
        ]
        yield harness.Figure(
            "pretrain/held-out loss", loss, None, "nats a character", "<= 1.88", loss <= 1.88, seeds=(1,),
            details={"seconds": round(spent, 1)},
        )  # fmt: skip


if __name__ == "__main__":
    options = lambda parser: parser.add_argument("--rounds", type=int, default=9)  # noqa: E731
    raise SystemExit(harness.main("pretrain", measure, options))
