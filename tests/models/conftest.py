"""Tiny decoders of every family, in float64 unless asked otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lineal.models.decoder import PRESETS, Decoder, DecoderConfig


def tiny_config(layout: str, **options: object) -> DecoderConfig:
    """A two-layer decoder of a layout, with grouped heads where the layout has them."""
    shape = {"vocab_size": 13, "width": 16, "layers": 2, "heads": 4, "inner": 64, "context": 24}
    grouped = {} if "gpt" in layout else {"kv_heads": 2}
    return PRESETS[layout](**{**shape, **grouped, **options})


@pytest.fixture(params=list(PRESETS))
def layout(request: pytest.FixtureRequest) -> str:
    """The name of each layout in turn."""
    return request.param


@pytest.fixture
def build() -> Callable[..., Decoder]:
    """Builds a tiny decoder whose weights are far enough from zero for mistakes to show."""

    def make(layout: str, dtype: torch.dtype = torch.float64, **options: object) -> Decoder:
        decoder = Decoder(tiny_config(layout, **options)).initialise(0).to(dtype).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(dtype)
        return decoder

    return make


def some_tokens(rows: int = 3, width: int = 12, seed: int = 0) -> torch.Tensor:
    """Random ids below 13."""
    return torch.randint(0, 13, (rows, width), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def token_BT() -> torch.Tensor:
    """Three rows of twelve tokens."""
    return some_tokens()
