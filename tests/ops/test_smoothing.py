"""The chunked loss and its gradient against torch's own, whole and in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lineal.ops import smoothing
from lineal.ops.smoothing import smoothed_loss


def problem(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weights, bias and targets of a vocabulary of 23."""
    made = torch.Generator().manual_seed(0)
    shapes = (count, 16), (23, 16), (23,)
    hidden, weight, bias = (torch.randn(s, generator=made, dtype=dtype).requires_grad_() for s in shapes)
    return hidden, weight, bias, torch.randint(23, (count,), generator=made)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("count", [1, 40, 64, 65, 200])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_cross_entropy(
    epsilon: float, count: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smoothing, "CHUNK", 64)
    hidden, weight, bias, target = problem(count)
    given = (hidden, weight, bias) if biased else (hidden, weight)
    logits = F.linear(*given)
    expected = F.cross_entropy(logits, target, label_smoothing=epsilon, reduction="sum")
    loss, plain, hits = smoothed_loss(hidden, weight, target, epsilon, bias if biased else None)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(
        plain, F.cross_entropy(logits, target, reduction="sum"), atol=1e-10, rtol=1e-12
    )
    assert hits == (logits.argmax(1) == target).sum()
    for one, other in zip(
        torch.autograd.grad(3 * loss, given), torch.autograd.grad(3 * expected, given), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-10)
    with torch.no_grad():
        alone, _, _ = smoothed_loss(hidden, weight, target, epsilon, bias if biased else None)
    torch.testing.assert_close(alone, expected, atol=1e-10, rtol=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_rows_have_shares(epsilon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothing, "CHUNK", 16)
    hidden, weight, bias, target = problem(40)
    share = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    each = F.cross_entropy(F.linear(hidden, weight, bias), target, label_smoothing=epsilon, reduction="none")
    expected = (share * each).sum()
    loss, plain, hits = smoothed_loss(hidden, weight, target, epsilon, bias, share_N=share)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-12)
    whole = smoothed_loss(hidden, weight, target, epsilon, bias)
    assert plain.equal(whole[1]) and hits.equal(whole[2])
    given = hidden, weight, bias
    for one, other in zip(
        torch.autograd.grad(loss, given), torch.autograd.grad(expected, given), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-10)


def test_logits_of_a_thousand_do_not_overflow() -> None:
    hidden, weight, _, target = problem(30, torch.float32)
    with torch.no_grad():
        hidden *= 300
    loss, plain, _ = smoothed_loss(hidden, weight, target, 0.1)
    logits = F.linear(hidden, weight)
    assert logits.abs().max() > 1000
    torch.testing.assert_close(
        loss, F.cross_entropy(logits, target, label_smoothing=0.1, reduction="sum"), rtol=1e-5, atol=0
    )
    assert plain.isfinite() and all(g.isfinite().all() for g in torch.autograd.grad(loss, (hidden, weight)))


def test_half_precision_is_near_and_its_sums_are_not_rounded() -> None:
    hidden, weight, _, target = problem(700, torch.float32)
    exact, plain, _ = smoothed_loss(hidden, weight, target, 0.1)
    loss, half, _ = smoothed_loss(hidden, weight, target, 0.1, half=True)
    assert loss.dtype == half.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=2e-3, atol=0)
    torch.testing.assert_close(half, plain, rtol=2e-3, atol=0)
    for one, other in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(exact, (hidden, weight)), strict=True
    ):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.01 * other.norm()


def test_nothing_wider_than_a_chunk_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole point: of 4,000 rows only 64 have logits at a time."""
    monkeypatch.setattr(smoothing, "CHUNK", 64)
    hidden, weight, _, target = problem(4000)
    real, most = torch.Tensor.new_empty, 0

    def counted(self: Tensor, *size: int, **options: object) -> Tensor:
        nonlocal most
        made = real(self, *size, **options)  # type: ignore[call-overload]
        most = max(most, made.numel())
        return made

    monkeypatch.setattr(torch.Tensor, "new_empty", counted)
    loss, _, _ = smoothed_loss(hidden, weight, target, 0.1)
    saved = loss.grad_fn
    assert most == 64 * 23
    assert saved is not None and not [t for t in getattr(saved, "saved_tensors", ()) if t.numel() > 4000 * 16]
