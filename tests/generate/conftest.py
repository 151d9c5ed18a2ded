"""Tiny models with sharp, distinct opinions, so that a wrong token or probability shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lineal.models.decoder import PRESETS, Decoder

VOCABULARY, CONTEXT = 13, 40
END = 0


def tiny(
    layout: str = "llama", dtype: torch.dtype = torch.float64, seed: int = 0, **options: object
) -> Decoder:
    """A decoder whose weights are far from their small start, norms and biases included."""
    if layout in ("llama", "qwen2", "qwen3"):
        options = {"kv_heads": 2, **options}
    shape = {"vocab_size": VOCABULARY, "width": 24, "layers": 2, "heads": 4, "inner": 96, "context": CONTEXT}
    decoder = Decoder(PRESETS[layout](**{**shape, **options})).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
    return decoder.to(dtype).eval()


@pytest.fixture(scope="session")
def make() -> Callable[..., Decoder]:
    """`tiny`, for tests that vary it."""
    return tiny


@pytest.fixture(scope="session")
def model() -> Decoder:
    """A float64 decoder in the Llama layout."""
    return tiny()
