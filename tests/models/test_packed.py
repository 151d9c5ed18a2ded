"""Packed products against plain ones."""

from __future__ import annotations

import pytest
import torch

from lineal.models import packed
from lineal.models.packed import PackedProduct, Product, can_pack

needs_packing = pytest.mark.skipif(not can_pack(), reason="this torch has no packed product")


def example(rows: int, dtype: torch.dtype = torch.float32, biased: bool = True) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    shapes = [(640, 256), (640,), (rows, 256), (rows, 640)]
    weight, bias, x, residual = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return weight, bias if biased else None, x, residual  # type: ignore[return-value]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 7, 32])
@pytest.mark.parametrize("pack", [False, pytest.param(True, marks=needs_packing)])
def test_it_is_the_product(pack, rows, biased):
    weight, bias, x, residual = example(rows, biased=biased)
    product = Product(weight, bias)
    if pack:
        product = product.packed()
        assert isinstance(product, PackedProduct)
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    torch.testing.assert_close(product(x).double(), exact, rtol=1e-4, atol=1e-3)
    kept = residual.clone()
    torch.testing.assert_close(product(x, residual).double(), exact + residual, rtol=1e-4, atol=1e-3)
    assert torch.equal(residual, kept)


@needs_packing
def test_a_packed_copy_does_not_follow_its_weight():
    weight, _, x, _ = example(3)
    plain = Product(torch.nn.Parameter(weight))
    copy = plain.packed()
    before = copy(x)
    weight.zero_()
    assert not plain(x).any()
    assert torch.equal(copy(x), before)


def test_what_would_not_gain_stays_as_it_is():
    for weight in (torch.ones(8, 8), torch.ones(640, 256, dtype=torch.float64)):
        product = Product(weight)
        assert product.packed() is product


def test_without_the_operators_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(packed, "can_pack", lambda: False)
    product = Product(torch.ones(640, 256))
    assert product.packed() is product
