"""Generation beside Hugging Face: each filter's logits, sampling with all filters on, and beam search.

    python benchmarks/generation.py --json            (--quick: shorter completions, fewer rounds)

Filters: the largest difference to transformers' processors over random logits; where it has none (frequency, presence,
repetition as a power), to the formula in NumPy. Speed: a GPT-2 layout of 6 layers and width 256 with bytes as vocabulary,
drawn at random, saved by transformers and loaded here; both systems read the same prompts and generate as many tokens, in
fp32 on the same number of threads, taking turns in one process.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from harness import Figure, interleaved, main, median
from torch import Tensor

from lineal.generate.beam import BeamSearch
from lineal.generate.engine import generate
from lineal.generate.penalties import Memory, shape
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.models.hf import load_model

VOCABULARY, ROWS, HISTORY, TRIALS = 1000, 8, 60, 25
SETTINGS = {
    "temperature": Sampling(temperature=0.7),
    "top_k": Sampling(top_k=50),
    "top_p": Sampling(top_p=0.9),
    "min_p": Sampling(min_p=0.05),
    "repetition, huggingface": Sampling(repetition_penalty=1.3, repetition_mode="huggingface"),
    "no_repeat_ngram": Sampling(no_repeat_ngram=2),
    "repetition, power": Sampling(repetition_penalty=1.3),
    "frequency": Sampling(frequency_penalty=0.4),
    "presence": Sampling(presence_penalty=0.4),
}
ALL = Sampling(
    repetition_penalty=1.1, repetition_mode="huggingface", no_repeat_ngram=4, temperature=0.9, top_k=50, top_p=0.95,
    min_p=0.01,
)  # fmt: skip
"""Every filter that both systems have."""


def references() -> dict[str, Callable[..., Tensor]]:
    """(ids, logits) -> logits of each filter, by transformers where it has it and by its formula where it has not."""
    from transformers.generation import logits_process as process

    def formula(of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Tensor, Tensor], Tensor]:
        def apply(token_BT: Tensor, logits_BV: Tensor) -> Tensor:
            count_BV = np.stack([np.bincount(row, minlength=VOCABULARY) for row in token_BT.numpy()])
            return torch.from_numpy(of(logits_BV.numpy(), count_BV))

        return apply

    return {
        "temperature": process.TemperatureLogitsWarper(0.7),
        "top_k": process.TopKLogitsWarper(50),
        "top_p": process.TopPLogitsWarper(0.9),
        "min_p": process.MinPLogitsWarper(0.05),
        "repetition, huggingface": process.RepetitionPenaltyLogitsProcessor(1.3),
        "no_repeat_ngram": process.NoRepeatNGramLogitsProcessor(2),
        "repetition, power": formula(lambda x, n: x / 1.3**n),
        "frequency": formula(lambda x, n: x - 0.4 * n),
        "presence": formula(lambda x, n: x - 0.4 * (n > 0)),
    }


def distance(name: str, peer: Callable[..., Tensor]) -> float:
    """The largest difference over random logits; infinite where one cuts a token that the other keeps."""
    worst = 0.0
    for trial in range(TRIALS):
        random = torch.Generator().manual_seed(trial)
        logits_BV = 3 * torch.randn(ROWS, VOCABULARY, generator=random, dtype=torch.float64)
        token_BT = torch.randint(VOCABULARY // 20, (ROWS, HISTORY), generator=random)
        memory = Memory(SETTINGS[name], ROWS, VOCABULARY)
        memory.join(0, [tuple(row[:1]) for row in token_BT.tolist()])
        if "power" in name or name in ("frequency", "presence"):
            # These count what was generated, so all of the history was.
            memory.push(token_BT[:, 0], 1)
        for column in range(1, HISTORY):
            memory.push(token_BT[:, column], column + 1)
        ours_BV, theirs_BV = shape(logits_BV, SETTINGS[name], memory), peer(token_BT, logits_BV.clone())
        same_BV = ours_BV == theirs_BV
        worst = max(worst, (ours_BV - theirs_BV)[~same_BV].abs().max().item() if not same_BV.all() else 0.0)
    return worst


def build(arguments: argparse.Namespace) -> tuple[Any, Decoder]:
    """The same random weights as a transformers model and as a decoder."""
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=256, n_embd=256, n_layer=6, n_head=4, n_positions=512)
    # Logits further apart than rounding: which hypothesis is better must not hang on the last bit.
    config.initializer_range = 0.05
    config.bos_token_id = config.eos_token_id = None
    peer = GPT2LMHeadModel(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        ours, _ = load_model(folder)
    return peer, ours.eval()


def prompts_of(rows: int) -> Tensor:
    """Prompts of 32 tokens."""
    return torch.randint(256, (rows, 32), generator=torch.Generator().manual_seed(rows))


def sampled(peer: Any, ours: Decoder, rows: int, arguments: argparse.Namespace) -> Figure:
    """Sampling with all filters: tokens per second."""
    prompt_BT, new = prompts_of(rows), arguments.tokens
    settings = replace(ALL, max_new_tokens=new)
    words = {
        "do_sample": True, "temperature": ALL.temperature, "top_k": ALL.top_k, "top_p": ALL.top_p, "min_p": ALL.min_p,
        "repetition_penalty": ALL.repetition_penalty, "no_repeat_ngram_size": ALL.no_repeat_ngram,
    }  # fmt: skip
    asked = {
        "ours": functools.partial(generate, ours, prompt_BT.tolist(), settings),
        "peer": functools.partial(_peer, peer, prompt_BT, new, **words),
    }
    seconds = interleaved(asked, arguments.rounds)
    rate, other = (rows * new / median(seconds[name]) for name in ("ours", "peer"))
    name = f"sampling with every filter, batch {rows}, {new} new tokens"
    return Figure(name, rate, other, "tokens/s", "> transformers generate", rate > other)


def searched(peer: Any, ours: Decoder, rows: int, arguments: argparse.Namespace) -> Figure:
    """Beam search: tokens per second, and whether the hypotheses are the same."""
    prompt_BT, new = prompts_of(rows), arguments.tokens // 2
    search = BeamSearch(beams=4, max_new_tokens=new, length_penalty=0.6, no_repeat_ngram=3)
    words = {
        "do_sample": False, "num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.6, "no_repeat_ngram_size": 3,
    }  # fmt: skip
    found: dict[str, Any] = {}

    def ask_ours() -> None:
        found["ours"] = [[list(h.completion.ids) for h in g] for g in search(ours, prompt_BT.tolist())]

    def ask_peer() -> None:
        whole_BT = _peer(peer, prompt_BT, new, **words)
        found["peer"] = whole_BT[:, prompt_BT.shape[1] :].view(rows, 4, -1).tolist()

    seconds = interleaved({"ours": ask_ours, "peer": ask_peer}, arguments.rounds)
    rate, other = (rows * new / median(seconds[name]) for name in ("ours", "peer"))
    same = sum(
        a == b for g, h in zip(found["ours"], found["peer"], strict=True) for a, b in zip(g, h, strict=True)
    )
    best = all(g[0] == h[0] for g, h in zip(found["ours"], found["peer"], strict=True))
    bar = "> transformers generate, best hypotheses identical"
    name = f"beam search, 4 beams, 3-grams blocked, batch {rows}, {new} new tokens"
    details = {"hypotheses identical": f"{same} of {4 * rows}"}
    return Figure(name, rate, other, "tokens/s", bar, best and rate > other, details=details)


def _peer(peer: Any, prompt_BT: Tensor, new: int, **words: Any) -> Tensor:
    mask_BT = torch.ones_like(prompt_BT)
    return peer.generate(prompt_BT, attention_mask=mask_BT, max_new_tokens=new, pad_token_id=0, **words)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Parity filter by filter, then both speeds."""
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.tokens, arguments.rounds = min(arguments.tokens, 32), min(arguments.rounds, 2)
    for name, peer in references().items():
        worst = distance(name, peer)
        yield Figure(f"filter {name}: largest difference", worst, None, "logits", "<= 1e-9", worst <= 1e-9)
    peer, ours = build(arguments)
    for rows in (1, 16):
        yield sampled(peer, ours, rows, arguments)
    for rows in (1, 8):
        yield searched(peer, ours, rows, arguments)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be varied."""
    parser.add_argument("--quick", action="store_true", help="32 new tokens, two rounds")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of a sampled completion")


if __name__ == "__main__":
    sys.exit(main("generation", measure, options))
