"""Decoding speed against Hugging Face `generate` on the same weights, greedy, in one process, taking turns.

A Llama layout of 6 layers and width 256 (4 heads, inner width 688, bytes as vocabulary) is drawn at random, saved by
transformers and loaded by lineal. Both read the same prompts and generate the same number of tokens, in fp32, on the
same number of threads; prompt reading is part of the time. The tokens must be identical.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from harness import Figure, interleaved, main, median

from lineal.generate.engine import generate
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.models.hf import load_model

CASES = ((1, 128, 2.0), (1, 1024, 2.0), (32, 128, 2.0), (32, 1024, 2.0))
"""Batch, new tokens, and the least ratio of tokens per second.

One row is bound by calls and by fetching weights. 32 rows are bound by the same matrix products in both systems while
completions are short; what differs is the cache, which one copies for every token and the other does not, and that
difference grows with the completions.
"""


def build(arguments: argparse.Namespace) -> tuple[Any, Decoder]:
    """The same random weights as a transformers model and as a decoder."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=arguments.kv_heads,
        max_position_embeddings=arguments.prompt_tokens + max(new_tokens for _, new_tokens, _ in CASES),
        # Logits further apart than rounding: greedy choices must not hang on the last bit.
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=None,
    )
    peer = LlamaForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        ours, _ = load_model(folder)
    return peer, ours.eval()


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Tokens per second for each batch size and length, and whether the tokens are the same."""
    torch.set_num_threads(arguments.threads)
    peer, ours = build(arguments)
    for batch, new_tokens, bar in CASES:
        if new_tokens > arguments.longest:
            continue
        prompt_BT = torch.randint(
            256, (batch, arguments.prompt_tokens), generator=torch.Generator().manual_seed(batch)
        )
        pair = Pair(peer, ours, prompt_BT, arguments.peer_cache)
        # Short calls warm both up: threads, memory, and what either prepares once.
        pair.ask_ours(16)
        pair.ask_peer(16)
        asked = {
            "ours": functools.partial(pair.ask_ours, new_tokens),
            "peer": functools.partial(pair.ask_peer, new_tokens),
        }
        seconds = interleaved(asked, arguments.rounds, warm=0)
        same = pair.answers["ours"] == pair.answers["peer"]
        tokens = batch * new_tokens
        rate, peer_rate = tokens / median(seconds["ours"]), tokens / median(seconds["peer"])
        yield Figure(
            f"greedy decoding, 6 layers, width 256, batch {batch}, {new_tokens} new tokens",
            rate,
            peer_rate,
            "tokens/s",
            f">= {bar:g}x transformers generate, tokens identical",
            same and rate >= bar * peer_rate,
            details={"tokens identical": same},
        )


@dataclass
class Pair:
    """Both systems, asked the same; `answers` holds the new tokens of each one's last call."""

    peer: Any
    ours: Decoder
    prompt_BT: torch.Tensor
    peer_cache: str | None
    answers: dict[str, list[list[int]]] = field(default_factory=dict)

    def ask_ours(self, new_tokens: int) -> None:
        """lineal's completions."""
        settings = Sampling(temperature=0, max_new_tokens=new_tokens)
        groups = generate(self.ours, self.prompt_BT.tolist(), settings)
        self.answers["ours"] = [list(group[0].ids) for group in groups]

    def ask_peer(self, new_tokens: int) -> None:
        """transformers' completions."""
        whole_BT = self.peer.generate(
            self.prompt_BT,
            attention_mask=torch.ones_like(self.prompt_BT),
            do_sample=False,
            max_new_tokens=new_tokens,
            pad_token_id=0,
            cache_implementation=self.peer_cache,
        )
        self.answers["peer"] = whole_BT[:, self.prompt_BT.shape[1] :].tolist()


def options(parser: argparse.ArgumentParser) -> None:
    """What can be varied."""
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both")
    parser.add_argument("--rounds", type=int, default=3, help="timed calls of each")
    parser.add_argument("--prompt-tokens", type=int, default=32, help="tokens of each prompt")
    parser.add_argument(
        "--longest", type=int, default=1024, help="leave out cases with more new tokens than this"
    )
    parser.add_argument("--kv-heads", type=int, default=4, help="key-value heads (4 heads in all)")
    parser.add_argument(
        "--peer-cache", default=None, help="transformers' cache_implementation, such as static"
    )


if __name__ == "__main__":
    sys.exit(main("decode", measure, options))
