"""Dropout from torch's own generator, and attention with its weights thinned out, against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lineal.models.attention import attend_plainly
from lineal.models.dropout import drop


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.95), st.integers(1, 70))
def test_a_seed_decides_what_is_kept_and_what_is_kept_is_scaled(seed: int, p: float, size: int) -> None:
    x = torch.arange(1.0, size + 1, dtype=torch.float64)
    found = []
    for _ in range(2):
        torch.manual_seed(seed)
        found.append(drop(x, p))
    assert found[0].equal(found[1])
    exact = round(p * 65536) / 65536
    kept = found[0] != 0
    torch.testing.assert_close(found[0][kept], x[kept] / (1 - exact), rtol=1e-12, atol=0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_p_and_neighbours_are_independent(p: float) -> None:
    torch.manual_seed(3)
    kept = (drop(torch.ones(400_000), p) != 0).double()
    deviation = (p * (1 - p) / 400_000) ** 0.5
    assert abs(float(kept.mean()) - (1 - p)) < 5 * deviation
    for shift in (1, 2, 3, 4):
        both = float((kept[shift:] * kept[:-shift]).mean())
        assert abs(both - (1 - p) ** 2) < 0.01


def test_what_is_dropped_has_no_gradient_and_nothing_is_drawn_for_zero() -> None:
    x = torch.ones(999, requires_grad=True)
    torch.manual_seed(0)
    y = drop(x, 0.25)
    y.sum().backward()
    assert x.grad is not None and x.grad.equal(y.detach())
    before = torch.get_rng_state()
    assert drop(x, 0.0) is x and torch.get_rng_state().equal(before)


@pytest.mark.parametrize("kind", ["causal", "seen", "added", "none"])
def test_attention_in_two_products_is_torchs(kind: str) -> None:
    made = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 3, 5, 4, generator=made, dtype=torch.float64) for _ in range(3))
    seen = torch.rand(2, 1, 5, 5, generator=made) < 0.5
    seen |= torch.eye(5, dtype=torch.bool)
    added = torch.zeros(2, 1, 5, 5, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    mask = {"seen": seen, "added": added}.get(kind)
    causal = kind == "causal"
    expected = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
    found = attend_plainly(query, key, value, mask, lambda weight: weight, causal)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    thinned = attend_plainly(query, key, value, mask, lambda weight: 0.5 * weight, causal)
    torch.testing.assert_close(thinned, 0.5 * expected, rtol=1e-12, atol=1e-12)
