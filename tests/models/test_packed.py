"""Products with prepared weights against plain ones."""

from __future__ import annotations

import pytest
import torch

from lineal.generate.step import FlatPass, one_token_pass
from lineal.models import packed
from lineal.models.cache import KeyValueCache
from lineal.models.decoder import PRESETS, Decoder
from lineal.models.packed import PACK_AFTER, Product, can_pack

needs_packing = pytest.mark.skipif(not can_pack(), reason="this torch has no packed product")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 4, 32])
@pytest.mark.parametrize("shape", [(640, 256), (256, 640), (24, 16)])
def test_it_is_the_product_however_often_it_is_asked(shape, rows, biased):
    weight, bias = draw(*shape), draw(shape[0], seed=1) if biased else None
    product = Product(weight, bias)
    for call in range(PACK_AFTER + 3):
        x, residual = draw(rows, shape[1], seed=call), draw(rows, shape[0], seed=call + 50)
        kept = residual.clone()
        exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
        torch.testing.assert_close(product(x).double(), exact, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(product(x, residual).double(), exact + residual, rtol=1e-4, atol=1e-3)
        assert torch.equal(residual, kept)
    worth_it = weight.numel() > packed.PACK_ABOVE and rows >= packed.FEW
    assert product.is_packed == (worth_it and can_pack())


def test_float64_is_exact_and_never_packed():
    weight, x = draw(640, 256, dtype=torch.float64), draw(8, 256, dtype=torch.float64)
    product = Product(weight)
    for _ in range(PACK_AFTER + 2):
        torch.testing.assert_close(product(x), x @ weight.T, rtol=1e-12, atol=1e-12)
    assert not product.is_packed


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="no packed products in bfloat16 here")
@pytest.mark.parametrize("rows", [2, 40])
def test_half_products_are_rounded_and_no_more(rows):
    weight, bias = draw(640, 256), draw(640, seed=1)
    product = Product(weight, bias, half=True)
    for call in range(PACK_AFTER + 2):
        x, residual = draw(rows, 256, seed=call), draw(rows, 640, seed=call + 50)
        exact = x.double() @ weight.double().T + bias.double() + residual
        found, scale = product(x, residual), 16.0
        assert found.dtype == torch.float32
        gap = (found.double() - exact).abs().max() / scale
        assert gap < 0.03
    assert product.is_packed and gap > 1e-5, "the last one was packed, and in bfloat16"


@needs_packing
def test_a_prepared_weight_does_not_follow_the_original():
    weight = draw(640, 256)
    product, x = Product(torch.nn.Parameter(weight)), draw(8, 256)
    product.pack()
    before = product(x)
    weight.zero_()
    assert torch.equal(product(x), before)


def test_without_the_operators_it_still_multiplies(monkeypatch):
    monkeypatch.setattr(packed, "can_pack", lambda: False)
    product, x = Product(draw(640, 256)), draw(8, 256)
    first = product(x)
    for _ in range(PACK_AFTER + 2):
        assert torch.equal(product(x), first)
    assert not product.is_packed


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("layout", list(PRESETS))
def test_decoding_is_the_same_before_and_after_packing(layout, rows):
    shape = {"vocab_size": 13, "width": 192, "layers": 2, "heads": 4, "inner": 768, "context": 24}
    decoder = Decoder(PRESETS[layout](**shape)).initialise(0).eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * draw(*parameter.shape, seed=len(name))
    token_BT = torch.randint(0, 13, (rows, 20), generator=torch.Generator().manual_seed(0))
    cache = KeyValueCache(decoder.config, rows, 20)
    read, found = one_token_pass(decoder), []
    assert isinstance(read, FlatPass)
    for t in range(20):
        found.append(read(token_BT[:, t], cache, cache.plan(None, rows, 1)))
        cache.advance(None, rows, 1)
    with torch.no_grad():
        expected = decoder(token_BT)
    torch.testing.assert_close(torch.stack(found, 1), expected, rtol=1e-4, atol=2e-5)
