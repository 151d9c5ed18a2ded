from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, Independent, MultivariateNormal, Normal, kl_divergence

from lineal.errors import UsageError
from lineal.ops.logprob import (
    entropy,
    exact_kl,
    gather_logp,
    gaussian_logp,
    kl_estimate,
    linear_logp,
    logp_and_entropy,
)

seeds = st.integers(0, 10_000)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seeds)
def test_logp_entropy_and_kl_equal_torch_distributions(seed):
    logits, other = 3 * random(seed, 4, 7), 3 * random(seed + 1, 4, 7)
    action = random(seed, 4, 7).argmax(-1)
    new, old = Categorical(logits=logits), Categorical(logits=other)
    assert torch.allclose(gather_logp(logits, action), new.log_prob(action), atol=1e-12)
    assert torch.allclose(entropy(logits), new.entropy(), atol=1e-12)
    both = logp_and_entropy(logits, action)
    assert torch.allclose(both[0], new.log_prob(action), atol=1e-12)
    assert torch.allclose(both[1], new.entropy(), atol=1e-12)
    assert torch.allclose(exact_kl(other, logits), kl_divergence(old, new), atol=1e-12)


@given(seeds, st.floats(-50, 50))
def test_kl_is_not_negative_and_does_not_see_a_shift_of_logits(seed, shift):
    old, new = random(seed, 6), random(seed + 1, 6)
    assert exact_kl(old, new) >= 0
    assert torch.allclose(exact_kl(old + shift, new), exact_kl(old, new), atol=1e-10)
    assert exact_kl(old, old).abs() <= 1e-14


def test_a_token_that_cannot_be_taken_adds_nothing():
    old = torch.tensor([1.0, 2.0, -torch.inf])
    assert torch.allclose(exact_kl(old, old), torch.zeros(()), atol=1e-7)
    assert torch.allclose(entropy(old), entropy(old[:2]))
    assert torch.isfinite(logp_and_entropy(old, torch.tensor(0))[1])
    assert exact_kl(old[:2], old[:2]) <= 1e-7
    assert exact_kl(torch.tensor([1.0, 2.0, 0.0]), old) == torch.inf


def test_kl_estimates_and_an_unknown_one():
    p, q = torch.tensor([-1.0]), torch.tensor([-1.5])
    assert kl_estimate("k1", p, q).item() == 0.5
    assert kl_estimate("k2", p, q).item() == 0.125
    assert kl_estimate("k3", p, q).item() == pytest.approx(math.exp(-0.5) - 1 + 0.5)
    with pytest.raises(UsageError, match="k1, k2 or k3"):
        kl_estimate("k4", p, q)


@given(seeds)
def test_k2_and_k3_are_not_negative(seed):
    p, q = -random(seed, 9).abs(), -random(seed + 1, 9).abs()
    assert (kl_estimate("k2", p, q) >= 0).all()
    assert (kl_estimate("k3", p, q) >= 0).all()


def test_k3_keeps_its_digits_where_the_policies_are_close():
    """exp(-d) - 1 + d loses every digit in float32 at d = 1e-4; expm1 does not."""
    d = torch.tensor([1e-4])
    assert kl_estimate("k3", d, torch.zeros(1)).item() == pytest.approx(5e-9, rel=0.5)


class TestLinear:
    def case(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = random(0, 11, 4).requires_grad_()
        weight = random(1, 9, 4).requires_grad_()
        bias = random(2, 9).requires_grad_()
        action = torch.arange(11) % 9
        return hidden, weight, bias, action

    @pytest.mark.parametrize("with_bias", [False, True])
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    @pytest.mark.parametrize("chunk", [1, 3, 11, None])
    def test_values_and_gradients_do_not_depend_on_the_chunk(self, chunk, temperature, with_bias):
        hidden, weight, offset, action = self.case()
        bias = offset if with_bias else None
        inputs = [x for x in (hidden, weight, bias) if x is not None]
        slope = random(3, 11)
        logits = (hidden @ weight.T + (0 if bias is None else bias)) / temperature
        wanted = torch.log_softmax(logits, -1).gather(1, action[:, None])[:, 0]
        found = linear_logp(hidden, weight, action, temperature, bias=bias, chunk=chunk)
        assert torch.allclose(found, wanted, atol=1e-12)
        for a, b in zip(
            torch.autograd.grad((found * slope).sum(), inputs),
            torch.autograd.grad((wanted * slope).sum(), inputs),
        ):
            assert torch.allclose(a, b, atol=1e-12)

    def test_numerical_gradient(self):
        hidden, weight, bias, action = self.case()
        assert torch.autograd.gradcheck(
            lambda h, w, b: linear_logp(h, w, action, 0.8, bias=b, chunk=4), (hidden, weight, bias)
        )

    def test_a_frozen_weight_takes_no_gradient(self):
        hidden, weight, _, action = self.case()
        linear_logp(hidden, weight.detach(), action, chunk=2).sum().backward()
        assert hidden.grad is not None

    def test_in_one_piece_it_can_be_differentiated_twice(self):
        hidden, weight, _, action = self.case()
        first = torch.autograd.grad(linear_logp(hidden, weight, action).sum(), weight, create_graph=True)[0]
        assert torch.autograd.grad(first.square().sum(), weight)[0].abs().max() > 0

    def test_in_pieces_a_second_derivative_is_refused_not_wrong(self):
        hidden, weight, _, action = self.case()
        value = linear_logp(hidden, weight, action, chunk=2).sum()
        first = torch.autograd.grad(value, weight, create_graph=True)[0]
        with pytest.raises(RuntimeError):
            torch.autograd.grad(first.square().sum(), weight)

    def test_low_precision_is_summed_in_float32(self):
        hidden, weight, _, action = self.case()
        low = linear_logp(hidden.bfloat16(), weight.bfloat16(), action, chunk=4)
        assert low.dtype == torch.float32
        assert torch.allclose(low.double(), linear_logp(hidden, weight, action), atol=0.1)

    def test_autocast_decides_the_precision_of_the_product(self):
        hidden, weight, action = self.case()[0].float(), self.case()[1].float(), self.case()[3]
        with torch.autocast("cpu", torch.bfloat16):
            whole, pieces = (linear_logp(hidden, weight, action, chunk=c) for c in (11, 4))
        assert torch.allclose(whole, pieces, atol=1e-5)
        assert not torch.allclose(whole, linear_logp(hidden, weight, action), atol=1e-7)


@given(seeds)
def test_gaussian_logp_equals_torch_distributions(seed):
    action, mean, log_std = random(seed, 5, 3), random(seed + 1, 5, 3), random(seed + 2, 3)
    normal = Independent(Normal(mean, log_std.exp()), 1)
    assert torch.allclose(gaussian_logp(action, mean, log_std=log_std), normal.log_prob(action), atol=1e-10)
    tril = torch.tril(random(seed + 3, 3, 3), -1) + torch.diag(log_std.exp())
    full = MultivariateNormal(mean, scale_tril=tril)
    assert torch.allclose(gaussian_logp(action, mean, scale_tril=tril), full.log_prob(action), atol=1e-8)


def test_gaussian_logp_takes_one_scale():
    with pytest.raises(UsageError, match="exactly one"):
        gaussian_logp(random(0, 2, 3), random(1, 2, 3))
