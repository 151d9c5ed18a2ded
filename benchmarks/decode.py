"""Decoding speed against Hugging Face `generate` on the same weights, greedy, in one process, taking turns.

A Llama layout of 6 layers and width 256 (4 heads, inner width 688, bytes as vocabulary) is drawn at random, saved by
transformers and loaded by lineal. Both read the same prompts and generate the same number of tokens, in fp32, on the
same number of threads; prompt reading is part of the time. The tokens must be identical.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from harness import Figure, interleaved, main, median

from lineal.generate.engine import generate
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.models.hf import load_model

BAR = 2.0


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
        max_position_embeddings=arguments.prompt_tokens + arguments.new_tokens,
        bos_token_id=None,
        eos_token_id=None,
    )
    peer = LlamaForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        ours, _ = load_model(folder)
    return peer, ours.eval()


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Tokens per second at each batch size, and whether the tokens are the same."""
    torch.set_num_threads(arguments.threads)
    peer, ours = build(arguments)
    settings = Sampling(temperature=0, max_new_tokens=arguments.new_tokens)
    for batch in (1, 32):
        generator = torch.Generator().manual_seed(batch)
        prompt_BT = torch.randint(256, (batch, arguments.prompt_tokens), generator=generator)
        prompts, answers = prompt_BT.tolist(), {}

        def ask_ours(prompts: list[list[int]] = prompts, answers: dict[str, Any] = answers) -> None:
            answers["ours"] = [list(group[0].ids) for group in generate(ours, prompts, settings)]

        def ask_peer(prompt_BT: torch.Tensor = prompt_BT, answers: dict[str, Any] = answers) -> None:
            mask_BT = torch.ones_like(prompt_BT)
            whole_BT = peer.generate(
                prompt_BT,
                attention_mask=mask_BT,
                do_sample=False,
                max_new_tokens=arguments.new_tokens,
                pad_token_id=0,
                cache_implementation=arguments.peer_cache,
            )
            answers["peer"] = whole_BT[:, prompt_BT.shape[1] :].tolist()

        seconds = interleaved({"ours": ask_ours, "peer": ask_peer}, arguments.rounds)
        same = answers["ours"] == answers["peer"]
        tokens = batch * arguments.new_tokens
        rate, peer_rate = tokens / median(seconds["ours"]), tokens / median(seconds["peer"])
        yield Figure(
            f"greedy decoding, 6 layers, width 256, batch {batch}",
            rate,
            peer_rate,
            "tokens/s",
            f">= {BAR:g}x transformers generate, tokens identical",
            rate >= BAR * peer_rate and same,
        )
        yield Figure(f"tokens identical, batch {batch}", float(same), bar="all", ok=same)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be varied."""
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each")
    parser.add_argument("--prompt-tokens", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens generated for each prompt")
    parser.add_argument("--kv-heads", type=int, default=4, help="key-value heads (4 heads in all)")
    parser.add_argument(
        "--peer-cache", default=None, help="transformers' cache_implementation, such as static"
    )


if __name__ == "__main__":
    sys.exit(main("decode", measure, options))
