from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.ops.masked import masked_mean, masked_sum, masked_var, whiten, whiten_rows

seeds = st.integers(0, 10_000)


def draw(seed: int, rows: int = 4, width: int = 5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return x, torch.rand(rows, width, generator=generator) < 0.6


@given(seeds)
def test_they_equal_torch_on_what_counts(seed):
    x, mask = draw(seed)
    mask[0, :2] = True
    kept = x[mask]
    assert torch.allclose(masked_sum(x, mask), kept.sum())
    assert torch.allclose(masked_mean(x, mask), kept.mean())
    assert torch.allclose(masked_var(x, mask), kept.var())
    assert torch.allclose(masked_var(x, mask, correction=0), kept.var(correction=0))


@given(seeds)
def test_along_an_axis(seed):
    x, mask = draw(seed)
    for row in range(len(x)):
        kept = x[row][mask[row]]
        assert torch.allclose(masked_sum(x, mask, dim=1)[row], kept.sum())
        mean = masked_mean(x, mask, dim=1)[row]
        assert torch.allclose(mean, kept.mean() if len(kept) else torch.zeros((), dtype=x.dtype))


@given(seeds)
def test_whitened_values_have_mean_zero_and_variance_one(seed):
    x, mask = draw(seed)
    mask[0, :3] = True
    white = whiten(3 * x + 7, mask)
    assert masked_mean(white, mask).abs() < 1e-10
    assert abs(masked_var(white, mask) - 1) < 1e-6
    assert white[~mask].abs().sum() == 0
    assert torch.allclose(white, whiten(x, mask), atol=1e-6)


def test_what_does_not_count_is_not_read_nor_given_a_gradient():
    x = torch.tensor([[1.0, torch.nan], [torch.inf, 3.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [False, True]])
    for function in (masked_sum, masked_mean, masked_var):
        value = function(x, mask)
        assert torch.isfinite(value)
        assert torch.equal(torch.isfinite(torch.autograd.grad(value, x)[0]), torch.ones_like(mask))
    assert torch.autograd.grad(masked_sum(x, mask), x)[0].tolist() == [[1, 0], [0, 1]]


def test_nothing_counted_is_zero():
    x, mask = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    assert masked_sum(x, mask) == masked_mean(x, mask) == masked_var(x, mask) == 0
    assert whiten(x, mask).abs().sum() == 0


def test_one_constant_batch_is_whitened_to_zero():
    x, mask = torch.full((2, 3), 0.7), torch.ones(2, 3, dtype=torch.bool)
    assert whiten(x, mask).abs().max() < 1e-6


@given(seeds)
def test_rows_are_whitened_one_by_one(seed):
    x, _ = draw(seed)
    whole = torch.ones(x.shape[1:], dtype=torch.bool)
    assert torch.allclose(whiten_rows(x), torch.stack([whiten(row, whole) for row in x]), atol=1e-12)
    assert (whiten_rows(torch.full((2, 3), 0.3)) == 0).all()
    assert (whiten_rows(x[:, :1]) == 0).all()
