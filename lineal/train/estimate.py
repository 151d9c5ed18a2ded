"""What training a decoder would take: arithmetic, memory and time, before anything is trained."""

from __future__ import annotations

import time

import torch

from lineal.models.decoder import Decoder, DecoderConfig, parameter_count
from lineal.ops.smoothing import smoothed_loss
from lineal.train.device import Shape, choose_device
from lineal.train.progress import show_seconds

TRIAL_TOKENS = 1024
"""Tokens of the pass that is timed."""


def flops_per_token(config: DecoderConfig, block: int) -> float:
    """Of a forward and backward pass: 6 per weight that a token meets, and 12 L D T/2 for causal attention."""
    embedding = config.vocab_size * config.width * (1 if config.tied else 2)
    positions = config.context * config.width if config.position == "learned" else 0
    weights = parameter_count(config) - embedding - positions
    output = config.vocab_size * config.width
    return 6.0 * (weights + output) + 6.0 * config.layers * config.heads * config.head_width * block


def memory(config: DecoderConfig, tokens: int) -> tuple[float, float]:
    """MiB of weights, gradients and Adam's moments; and of what one micro-batch keeps for its backward pass, about."""
    per_token = config.layers * (14 * config.width + 2 * config.inner) + 2 * config.vocab_size
    return 16 * parameter_count(config) / 2**20, 4 * tokens * per_token / 2**20


def estimate(config: DecoderConfig, steps: int, batch: int, block: int, budget: int, options) -> list[str]:
    """Lines of a dry run on work, memory and time; the time is measured, on the device that the run would take.

    budget: most tokens of a micro-batch. options: the recipe's ModelOptions.
    """
    tokens, work = batch * block, flops_per_token(config, block)
    weights, kept = memory(config, min(tokens, max(block, budget)))
    device = choose_device(
        Shape(config.width, config.inner, tokens), options.device, options.dtype, options.threads
    )
    before = torch.get_num_threads()
    device.apply()
    half = torch.bfloat16 if device.dtype == "bfloat16" else None
    rate = _tokens_per_second(config, block, device.torch_device, half)
    torch.set_num_threads(before)
    return [
        f"a step: {batch} sequences x {block} tokens = {tokens:,} tokens, {work * tokens / 1e9:,.1f} GFLOP",
        f"work: {work * tokens * steps / 1e15:,.3g} PFLOP in {steps:,} steps, {tokens * steps:,} tokens",
        f"memory, about: weights, gradients and optimiser {weights:,.0f} MiB, activations {kept:,.0f} MiB",
        f"time, about: {show_seconds(tokens * steps / rate)} at the {rate:,.0f} tokens/s just measured; {device.line()}",
    ]


def _tokens_per_second(
    config: DecoderConfig, block: int, device: torch.device, half: torch.dtype | None
) -> float:
    model = Decoder(config).initialise(0).to(device).train()
    rows = max(1, TRIAL_TOKENS // block)
    token_BT = torch.zeros(rows, block, dtype=torch.int64, device=device)
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        with torch.autocast(device.type, half, enabled=half is not None):
            hidden_ND = model(token_BT).flatten(0, 1)
        loss, _, _ = smoothed_loss(hidden_ND, model.head_weight, token_BT.flatten(), half=half is not None)
        loss.backward()
        float(loss.detach())
        best = min(best, time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return rows * block / best
