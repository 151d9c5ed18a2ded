"""Estimates against what is counted: floating-point operations by torch's own counter, memory by its formula."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lineal.models.decoder import Decoder, gpt1_config, llama_config, parameter_count
from lineal.train.estimate import estimate, flops_per_token, memory
from lineal.train.options import ModelOptions


@pytest.mark.parametrize(
    "config",
    [gpt1_config(500, 64, 3, 4, 256, 32), llama_config(300, 48, 2, 4, 192, 32, tied=False)],
    ids=["gpt1", "llama"],
)
def test_operations_are_those_that_torch_counts(config) -> None:
    model = Decoder(config).initialise(0)
    token_BT = torch.randint(config.vocab_size, (4, 32), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model.logits(model(token_BT)).sum().backward()
    counted = counter.get_total_flops() / token_BT.numel()
    # torch counts attention as if nothing were masked: twice as much as a causal pass needs; and it knows no attention
    # kernel's forward pass on some devices at all.
    attention = 6.0 * config.layers * config.heads * config.head_width * 32
    found = flops_per_token(config, 32)
    assert found - attention <= counted * 1.02
    assert counted <= (found + attention) * 1.25


def test_memory_is_four_numbers_of_four_bytes_per_weight() -> None:
    config = gpt1_config(500, 64, 3, 4, 256, 32)
    weights, kept = memory(config, 1024)
    assert weights == pytest.approx(16 * parameter_count(config) / 2**20)
    assert memory(config, 2048)[1] == pytest.approx(2 * kept)


def test_the_lines_of_a_dry_run_name_what_they_say() -> None:
    config = gpt1_config(100, 16, 1, 2, 64, 16)
    lines = estimate(config, 10, 4, 16, 64, ModelOptions(dtype="float32", device="cpu", threads=1))
    assert lines[0].startswith("a step: 4 sequences x 16 tokens = 64 tokens")
    assert "in 10 steps, 640 tokens" in lines[1]
    assert lines[2].startswith("memory, about") and lines[3].startswith("time, about")
