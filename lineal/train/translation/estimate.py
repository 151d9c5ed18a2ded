"""What a translation run would take: parameters, arithmetic, memory and time, before anything is trained."""

from __future__ import annotations

import time

import numpy as np
import torch

from lineal.models.dropout import Masks
from lineal.models.transformer import Transformer, TransformerConfig
from lineal.ops.smoothing import CHUNK
from lineal.train.device import Shape, choose_device
from lineal.train.progress import show_seconds
from lineal.train.translation.batches import Order, make_batch
from lineal.train.translation.losses import batch_loss
from lineal.train.translation.options import TranslationConfig
from lineal.train.translation.task import Task

TRIAL = 4e10
"""Floating-point operations of the part of a step that is timed."""


def flops(config: TransformerConfig, sources: float, targets: float) -> float:
    """Of one step, forward and backward: 6 per weight and token that it meets; attention's own products are left out.

    sources, targets: tokens of either side. Sentences are short: at 50 tokens and width 512 what is left out is 2 %.
    """
    d, f = config.width, config.inner
    encoder = config.encoder_layers * (4 * d * d + 2 * d * f)
    decoder = config.decoder_layers * (6 * d * d + 2 * d * f)
    across = config.decoder_layers * 2 * d * d
    return 6.0 * (sources * (encoder + across) + targets * (decoder + d * config.vocab_size))


def memory(config: TransformerConfig, size: int, tokens: int) -> tuple[float, float]:
    """MiB of weights, gradients and Adam's moments; and of what one micro-batch keeps for its backward pass, about."""
    kept = (config.encoder_layers * (14 * config.width + 2 * config.inner)) + (
        config.decoder_layers * (24 * config.width + 2 * config.inner)
    )
    return 16 * size / 2**20, 4 * (
        tokens * kept + CHUNK * config.vocab_size + config.vocab_size * config.width
    ) / 2**20


def estimate(config: TranslationConfig, shape: TransformerConfig, task: Task, order: Order) -> list[str]:
    """The lines of a dry run. The time is measured on a part of one step, on the device that the run would take."""
    model = Transformer(shape).initialise(0)
    size = sum(parameter.numel() for parameter in model.parameters())
    batches = order.epoch(0)
    sources, targets = (float(np.sum(n)) / len(batches) for n in (order.source_N, order.target_N))
    work = flops(shape, sources, targets)
    widest = Shape(shape.width, max(shape.inner, shape.vocab_size), config.optimiser.batch_tokens)
    device = choose_device(widest, config.model.device, config.model.dtype, config.model.threads)
    before = torch.get_num_threads()
    device.apply()
    model.to(device.torch_device)
    rate = _rate(model, task, order, device.dtype == "bfloat16")
    torch.set_num_threads(before)
    weights, kept = memory(shape, size, min(config.optimiser.batch_tokens, config.optimiser.token_budget))
    steps, padding = (
        config.run.steps,
        1 - (sources + targets) / (2 * np.mean([_area(order, b) for b in batches])),
    )
    return [
        "minimise mean over target tokens of -[(1 - ε) log p(y_t | y_<t, x) + ε mean_v log p(v | y_<t, x)], "
        f"ε = {config.optimiser.smoothing:g}",
        f"data: {len(task.train):,} pairs, {int(order.source_N.sum()):,} source and {int(order.target_N.sum()):,} target "
        f"tokens; {len(task.valid):,} pairs to validate on",
        f"vocabulary: {shape.vocab_size:,} subwords of both languages ({config.data.subwords})",
        f"model: {size:,} parameters, {shape.encoder_layers} + {shape.decoder_layers} layers of width {shape.width}",
        f"a step: {sources:,.0f} source and {targets:,.0f} target tokens, padding {100 * padding:.1f} %; "
        f"{len(batches):,} steps an epoch",
        f"work: {work / 1e9:,.1f} GFLOP a step, {work * steps / 1e15:,.2f} PFLOP in {steps:,} steps "
        f"({steps / len(batches):.1f} epochs)",
        f"memory, about: weights, gradients and optimiser {weights:,.0f} MiB, activations {kept:,.0f} MiB",
        f"time, about: {work / rate:.2g} s a step, {show_seconds(steps * work / rate)} in all, at the "
        f"{rate / 1e9:,.1f} GFLOP/s just measured; {device.line()}",
    ]  # fmt: skip


def _area(order: Order, rows: np.ndarray) -> float:
    """Tokens of a batch with its padding, mean of both sides."""
    return len(rows) * (int(order.source_N[rows].max()) + int(order.target_N[rows].max())) / 2


def _rate(model: Transformer, task: Task, order: Order, half: bool) -> float:
    """Floating-point operations a second in a forward and backward pass of a part of the first batch."""
    rows = order.batch(0)
    each = flops(model.config, *(float(n[rows].mean()) for n in (order.source_N, order.target_N)))
    rows = rows[: max(1, int(TRIAL / each))]
    batch = make_batch(task.train, rows, task.ids, model.device)
    work = flops(model.config, *(float(n[rows].sum()) for n in (order.source_N, order.target_N)))
    best = float("inf")
    for trial in range(3):
        began = time.perf_counter()
        loss = batch_loss(model, batch, 0.1, half, Masks(trial))
        loss.smoothed.backward()
        float(loss.plain)
        best = min(best, time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return work / best
