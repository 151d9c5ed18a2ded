"""The bricks, each against its formula written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.models.layers import (
    GeluMLP,
    LayerNorm,
    RMSNorm,
    RopeScaling,
    Rotary,
    SwiGLU,
    build_norm,
    rotate,
)


def rotary(width: int = 8, context: int = 32, scaling: RopeScaling | None = None) -> Rotary:
    return Rotary(width, context, 10_000.0, scaling).double()


def test_rotation_turns_pairs_by_the_position_times_their_frequency():
    x = torch.randn(1, 6, 1, 8, dtype=torch.float64)
    turned = rotate(x, *rotary().between(0, 6))
    for t in range(6):
        for i in range(4):
            angle = t * 10_000.0 ** (-2 * i / 8)
            a, b = float(x[0, t, 0, i]), float(x[0, t, 0, i + 4])
            assert float(turned[0, t, 0, i]) == pytest.approx(
                a * math.cos(angle) - b * math.sin(angle), abs=1e-6
            )
            assert float(turned[0, t, 0, i + 4]) == pytest.approx(
                b * math.cos(angle) + a * math.sin(angle), abs=1e-6
            )


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 11))
def test_products_of_rotated_vectors_depend_on_distance_only(i, j, shift):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=generator, dtype=torch.float64)
    table = rotary()

    def product(a: int, b: int) -> float:
        left = rotate(query, *table.between(a, a + 1))
        return float((left * rotate(key, *table.between(b, b + 1))).sum())

    assert product(i, j) == pytest.approx(product(i + shift, j + shift), abs=1e-5)


def test_rotation_in_place_equals_rotation():
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    cos_sin = rotary().between(2, 7)
    expected = rotate(x, *cos_sin)
    whole = torch.cat((x, x), 2)
    rotate(whole[:, :, :3], *cos_sin, out=whole[:, :, :3])
    assert torch.equal(whole[:, :, :3], expected)
    assert torch.equal(whole[:, :, 3:], x)


def test_tables_by_index_are_tables_by_range():
    table = rotary()
    cos, sin = table.at(torch.tensor([[2, 3], [0, 5]]))
    assert cos.shape == (2, 2, 1, 8)
    assert torch.equal(cos[0, :, 0], table.between(2, 4)[0][:, 0])
    assert torch.equal(sin[1, 1, 0], table.between(5, 6)[1][0, 0])


def test_tables_are_in_no_checkpoint():
    assert not rotary().state_dict()


def test_tables_survive_an_empty_allocation():
    with torch.device("meta"):
        empty = Rotary(8, 32, 10_000.0)
    filled = empty.to_empty(device="cpu")
    assert torch.equal(filled.cos_SD, Rotary(8, 32, 10_000.0).cos_SD)


def test_linear_scaling_divides_every_frequency():
    near = rotary(context=64, scaling=RopeScaling("linear", 4.0))
    torch.testing.assert_close(near.cos_SD[40], rotary().cos_SD[10], rtol=0, atol=1e-5)


def test_llama3_scaling_keeps_fast_frequencies_and_stretches_slow_ones():
    frequency = 10_000.0 ** (-torch.arange(0, 64, 2) / 64)
    scaled = RopeScaling("llama3", 8.0, 1.0, 4.0, 256)(frequency)
    wavelength = 2 * math.pi / frequency
    assert torch.equal(scaled[wavelength < 64], frequency[wavelength < 64])
    torch.testing.assert_close(scaled[wavelength > 256], frequency[wavelength > 256] / 8)
    middle = (wavelength >= 64) & (wavelength <= 256)
    assert middle.any()
    assert ((scaled <= frequency) & (scaled >= frequency / 8))[middle].all()


def test_norms_are_their_formulas():
    x = torch.randn(3, 7, dtype=torch.float64)
    rms, layer = RMSNorm(7, 1e-3).double(), LayerNorm(7, 1e-3).double()
    for module in (rms, layer):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * rms.weight
    torch.testing.assert_close(rms(x), expected)
    centred = x - x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True, correction=0)
    torch.testing.assert_close(layer(x), centred / (variance + 1e-3).sqrt() * layer.weight + layer.bias)
    assert isinstance(build_norm("rms", 7, 1e-3), RMSNorm)
    assert isinstance(build_norm("layer", 7, 1e-3), LayerNorm)


def test_feed_forward_layers_are_their_formulas():
    x = torch.randn(3, 4, dtype=torch.float64)
    swiglu = SwiGLU(4, 6, bias=True).double()
    gate, up = (x @ swiglu.gate_up.weight.T + swiglu.gate_up.bias).split(6, -1)
    expected = (gate / (1 + (-gate).exp()) * up) @ swiglu.down.weight.T + swiglu.down.bias
    torch.testing.assert_close(swiglu(x), expected)
    mlp = GeluMLP(4, 6, bias=True).double()
    inner = x @ mlp.up.weight.T + mlp.up.bias
    cubic = math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)
    expected = (0.5 * inner * (1 + cubic.tanh())) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(mlp(x), expected)
