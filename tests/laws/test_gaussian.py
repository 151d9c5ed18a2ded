"""Laws of the Gaussian policy: its score, the determinant that a learned covariance needs, and its Fisher matrix."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import grad
from torch.autograd.functional import jacobian

from lineal.ops.logprob import gaussian_logp

EXACT = 1e-10
seeds = st.integers(0, 2**31)
sizes = st.integers(1, 4)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lower(size: int, seed: int) -> Tensor:
    """A Cholesky factor, its diagonal away from 0."""
    return draw(size, size, seed=seed).tril(-1) + torch.diag(draw(size, seed=seed + 1).abs() + 0.5)


def mean_of(theta: Tensor, state: Tensor) -> Tensor:
    """A curved mean f(θ) of the action; θ is [A, D], the state [D]."""
    return torch.tanh(theta @ state) + (theta * theta) @ state


@given(sizes, st.booleans(), seeds)
def test_the_score_is_the_jacobian_times_the_whitened_deviation(size: int, full: bool, seed: int):
    """∇_θ log N(a; f(θ), Σ) = J' Σ⁻¹ (a - f(θ))."""
    theta, state, action = draw(size, 3, seed=seed), draw(3, seed=seed + 1), draw(size, seed=seed + 2)
    factor = lower(size, seed + 3) if full else torch.diag(draw(size, seed=seed + 3).exp())
    theta.requires_grad_()
    shape = {"scale_tril": factor} if full else {"log_std": factor.diagonal().log()}
    (score,) = grad(gaussian_logp(action, mean_of(theta, state), **shape), [theta])
    jacobian_AK = jacobian(lambda t: mean_of(t, state), theta.detach())
    assert isinstance(jacobian_AK, Tensor)
    deviation = action - mean_of(theta.detach(), state)
    expected = jacobian_AK.reshape(size, -1).T @ torch.linalg.solve(factor @ factor.T, deviation)
    torch.testing.assert_close(score.flatten(), expected, rtol=EXACT, atol=EXACT)


@given(sizes, st.booleans(), seeds)
def test_it_is_the_whole_density(size: int, full: bool, seed: int):
    action, mean = draw(5, size, seed=seed), draw(5, size, seed=seed + 1)
    factor = lower(size, seed + 3) if full else torch.diag(draw(size, seed=seed + 3).exp())
    reference = torch.distributions.MultivariateNormal(mean, scale_tril=factor.expand(5, size, size))
    shape = {"scale_tril": factor} if full else {"log_std": factor.diagonal().log()}
    shape = {name: value.expand(5, *value.shape) for name, value in shape.items()}
    logp = gaussian_logp(action, mean, **shape)
    torch.testing.assert_close(logp, reference.log_prob(action), rtol=EXACT, atol=EXACT)


@given(sizes, seeds)
def test_a_learned_spread_keeps_its_log_determinant(size: int, seed: int):
    """∂/∂log σ = z² - 1. Without log|Σ| it would be z², and the spread would grow without end."""
    action, mean = draw(size, seed=seed), draw(size, seed=seed + 1)
    log_std = draw(size, seed=seed + 2).requires_grad_()
    (score,) = grad(gaussian_logp(action, mean, log_std=log_std), [log_std])
    z = (action - mean) / log_std.detach().exp()
    torch.testing.assert_close(score, z.square() - 1, rtol=EXACT, atol=EXACT)


@given(sizes, seeds)
def test_a_learned_covariance_keeps_its_log_determinant(size: int, seed: int):
    """∂/∂Σ = ½ (Σ⁻¹ d d' Σ⁻¹ - Σ⁻¹), seen through Σ = C C'."""
    action, mean, factor = draw(size, seed=seed), draw(size, seed=seed + 1), lower(size, seed + 2)
    factor.requires_grad_()
    (score,) = grad(gaussian_logp(action, mean, scale_tril=factor), [factor])
    inverse = torch.linalg.inv(factor.detach() @ factor.detach().T)
    pulled = inverse @ (action - mean)
    by_covariance = (torch.outer(pulled, pulled) - inverse) / 2
    expected = (2 * by_covariance @ factor.detach()).tril()
    torch.testing.assert_close(score.tril(), expected, rtol=1e-8, atol=EXACT)


@pytest.mark.parametrize("log_std", [-1.0, 0.0, 0.7])
def test_score_moments_by_quadrature(log_std: float):
    """E[1] = 1, E[score] = 0 and E[score score'] = diag(1/σ², 2), on a grid: exact for a Gaussian's tails."""
    mean = torch.tensor([0.3], dtype=torch.float64).requires_grad_()
    spread = torch.tensor([log_std], dtype=torch.float64).requires_grad_()
    reach = 12 * math.exp(log_std)
    action_N = torch.linspace(0.3 - reach, 0.3 + reach, 601, dtype=torch.float64)
    width = float(action_N[1] - action_N[0])
    scores = [
        torch.stack(grad(gaussian_logp(a[None], mean, log_std=spread), [mean, spread])) for a in action_N
    ]
    score_NK = torch.stack(scores)[:, :, 0]
    logp_N = gaussian_logp(action_N[:, None], mean.expand(601, 1), log_std=spread.expand(601, 1)).detach()
    weight_N = logp_N.exp() * width
    fisher = torch.einsum("n,ni,nj->ij", weight_N, score_NK, score_NK)
    expected = torch.diag(torch.tensor([math.exp(-2 * log_std), 2.0], dtype=torch.float64))
    assert float(weight_N.sum()) == pytest.approx(1.0, abs=EXACT)
    torch.testing.assert_close(
        (weight_N[:, None] * score_NK).sum(0), torch.zeros(2).double(), rtol=0, atol=EXACT
    )
    torch.testing.assert_close(fisher, expected, rtol=EXACT, atol=EXACT)
