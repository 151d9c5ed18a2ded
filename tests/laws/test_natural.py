"""Laws of the natural gradient, exact in float64, on random MDPs and on the enumerable text policy (V = 3, T = 4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lineal.objectives.step import NaturalGradient, TrustRegion
from lineal.ops.linear import (
    conjugate_gradient,
    dense_matrix,
    gauss_newton_product,
    kl_fisher_product,
    softmax_metric,
)
from lineal.ops.logprob import exact_kl
from lineal.optim.natural import StepReport, natural_gradient_step, trust_region_step

EXACT = 1e-10
seeds = st.integers(0, 2**31)
kinds = st.sampled_from(["mdp", "text"])


@dataclass(frozen=True)
class World:
    """States with their share of the counted steps, an advantage for each action, and features of a policy."""

    share_S: Tensor
    advantage_SV: Tensor
    feature_SVK: Tensor

    def logits(self, theta_K: Tensor) -> Tensor:
        """A policy that is not linear in its parameters."""
        return torch.tanh(self.feature_SVK * theta_K).sum(-1) + self.feature_SVK @ theta_K

    def surrogate(self, theta_K: Tensor) -> Tensor:
        """L(θ) = Σ_s share(s) Σ_a π(a|s) A(s, a)."""
        return (self.share_S[:, None] * self.logits(theta_K).softmax(-1) * self.advantage_SV).sum()

    def kl(self, old_K: Tensor, theta_K: Tensor) -> Tensor:
        return (self.share_S * exact_kl(self.logits(old_K), self.logits(theta_K))).sum()

    def product(self, theta_K: Tensor) -> Callable[[Tensor], Tensor]:
        return kl_fisher_product([lambda: self.kl(theta_K.detach(), theta_K)], [theta_K])


def world(kind: str, seed: int, size: int = 5) -> tuple[World, Tensor]:
    """A world of that kind, and parameters of the old policy."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    theta_K = 0.5 * draw(size)
    if kind == "mdp":
        share_S = draw(7).softmax(0)
        return World(share_S, draw(7, 3), draw(7, 3, size)), theta_K
    # Text: a state is a prefix; its share is the probability to come by, over T steps.
    prefixes = [p for length in range(4) for p in itertools.product(range(3), repeat=length)]
    place = {prefix: index for index, prefix in enumerate(prefixes)}
    feature_SVK = draw(len(prefixes), 3, size)
    text = World(torch.zeros(len(prefixes), dtype=torch.float64), draw(len(prefixes), 3), feature_SVK)
    logp_SV = text.logits(theta_K).log_softmax(-1)
    for prefix, state in place.items():
        steps = [logp_SV[place[prefix[:t]], token] for t, token in enumerate(prefix)]
        text.share_S[state] = torch.stack(steps).sum().exp() / 4 if steps else 0.25
    assert float(text.share_S.sum()) == pytest.approx(1.0, abs=1e-12)
    return text, theta_K


def explicit_fisher(place: World, theta_K: Tensor) -> Tensor:
    """Σ_s share(s) Σ_a π(a|s) ∇log π ∇log π', from the scores themselves."""
    score_SVK = torch.autograd.functional.jacobian(lambda t: place.logits(t).log_softmax(-1), theta_K)
    assert isinstance(score_SVK, Tensor)
    weight_SV = place.share_S[:, None] * place.logits(theta_K).softmax(-1)
    return torch.einsum("sv,svi,svj->ij", weight_SV, score_SVK, score_SVK)


def take_step(
    step: Callable[..., StepReport], place: World, theta_K: Tensor, rule: TrustRegion | NaturalGradient
) -> tuple[Tensor, StepReport]:
    """The change of the parameters that the step makes."""
    moving = theta_K.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(place.surrogate(moving), [moving])

    def evaluate() -> tuple[Tensor, Tensor]:
        return place.surrogate(moving), place.kl(theta_K, moving)

    report = step([moving], gradient, place.product(moving), evaluate, rule)
    return moving.detach() - theta_K, report


@given(kinds, seeds)
def test_the_fisher_product_is_the_explicit_fisher_is_the_hessian_of_the_kl(kind: str, seed: int):
    place, theta_K = world(kind, seed)
    fisher = explicit_fisher(place, theta_K)
    hessian = torch.autograd.functional.hessian(lambda t: place.kl(theta_K, t), theta_K)
    assert isinstance(hessian, Tensor)
    moving = theta_K.clone().requires_grad_()

    def part():
        logits = place.logits(moving)
        return [logits], softmax_metric(logits, place.share_S)

    doubled = dense_matrix(place.product(moving), theta_K)
    gauss_newton = dense_matrix(gauss_newton_product([part], [moving]), theta_K)
    for other in (hessian, doubled, gauss_newton):
        torch.testing.assert_close(other, fisher, rtol=0, atol=EXACT)
    assert float(torch.linalg.eigvalsh(fisher).min()) > -EXACT


@given(kinds, seeds)
def test_the_kl_and_its_gradient_vanish_at_old(kind: str, seed: int):
    place, theta_K = world(kind, seed)
    moving = theta_K.clone().requires_grad_()
    kl = place.kl(theta_K, moving)
    (gradient,) = torch.autograd.grad(kl, [moving])
    assert abs(float(kl.detach())) <= EXACT
    assert float(gradient.abs().max()) <= EXACT


@given(kinds, st.sampled_from([1e-3, 1e-2, 0.1]), seeds)
def test_conjugate_gradient_on_the_fisher_is_the_direct_solution(kind: str, damping: float, seed: int):
    place, theta_K = world(kind, seed)
    product = place.product(theta_K.clone().requires_grad_())
    g = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x, residual = conjugate_gradient(lambda v: product(v) + damping * v, g, iterations=40, tolerance=1e-15)
    matrix = explicit_fisher(place, theta_K) + damping * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, g), rtol=EXACT, atol=EXACT)
    assert residual <= EXACT


@given(kinds, st.sampled_from([1e-4, 1e-2]), seeds)
def test_the_natural_step_has_its_closed_form(kind: str, max_kl: float, seed: int):
    place, theta_K = world(kind, seed)
    moving = theta_K.clone().requires_grad_()
    (g,) = torch.autograd.grad(place.surrogate(moving), [moving])
    x = torch.linalg.solve(explicit_fisher(place, theta_K), g)
    expected = (2 * max_kl / (g @ x)).sqrt() * x
    for rule in (
        NaturalGradient(max_kl, exact=True, damping=0.0),
        NaturalGradient(max_kl, cg_iterations=40, damping=0.0),
    ):
        change, report = take_step(natural_gradient_step, place, theta_K, rule)
        torch.testing.assert_close(change, expected, rtol=1e-8, atol=EXACT)
        assert report.accepted
        assert report.expected_kl == pytest.approx(max_kl)
        assert report.expected_improvement == pytest.approx(float(g @ expected), rel=1e-8)
        assert report.cg_residual <= 1e-7


@given(kinds, seeds)
def test_the_natural_step_does_not_depend_on_linear_coordinates(kind: str, seed: int):
    place, theta_K = world(kind, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    turn_KK = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    turn_KK = torch.linalg.qr(turn_KK)[0] * torch.tensor([0.2, 0.5, 1, 2, 5], dtype=torch.float64)
    rule = NaturalGradient(1e-2, exact=True, damping=0.0)
    change, _ = take_step(natural_gradient_step, place, theta_K, rule)

    class Turned(World):
        def logits(self, theta_K: Tensor) -> Tensor:
            return super().logits(turn_KK @ theta_K)

    turned = Turned(place.share_S, place.advantage_SV, place.feature_SVK)
    other, _ = take_step(natural_gradient_step, turned, torch.linalg.solve(turn_KK, theta_K), rule)
    torch.testing.assert_close(turn_KK @ other, change, rtol=1e-8, atol=EXACT)


@given(kinds, seeds)
def test_the_natural_direction_does_not_depend_on_curved_coordinates(kind: str, seed: int):
    """θ = sinh φ: what one step does to θ is the same to first order, that is through dθ = cosh φ dφ."""
    place, theta_K = world(kind, seed)
    rule = NaturalGradient(1e-2, exact=True, damping=0.0)
    change, _ = take_step(natural_gradient_step, place, theta_K, rule)

    class Curved(World):
        def logits(self, theta_K: Tensor) -> Tensor:
            return super().logits(theta_K.sinh())

    phi_K = theta_K.asinh()
    curved = Curved(place.share_S, place.advantage_SV, place.feature_SVK)
    other, _ = take_step(natural_gradient_step, curved, phi_K, rule)
    torch.testing.assert_close(phi_K.cosh() * other, change, rtol=1e-8, atol=EXACT)


@pytest.mark.parametrize("kind", ["mdp", "text"])
def test_a_plain_gradient_step_does_depend_on_coordinates(kind: str):
    """So that the two tests above say something."""
    place, theta_K = world(kind, 0)
    moving, phi_K = theta_K.clone().requires_grad_(), theta_K.asinh().requires_grad_()
    (g,) = torch.autograd.grad(place.surrogate(moving), [moving])
    (h,) = torch.autograd.grad(place.surrogate(phi_K.sinh()), [phi_K])
    assert not torch.allclose(phi_K.detach().cosh() * h, g, rtol=1e-3)


@given(kinds, seeds)
@settings(max_examples=20)
def test_the_measured_kl_approaches_the_predicted_one_as_the_step_shrinks(kind: str, seed: int):
    place, theta_K = world(kind, seed)
    gaps = []
    for max_kl in (1e-4, 1e-6, 1e-8):
        rule = NaturalGradient(max_kl, exact=True, damping=0.0)
        _, report = take_step(natural_gradient_step, place, theta_K, rule)
        gaps.append(abs(report.kl / report.expected_kl - 1))
        assert report.improvement == pytest.approx(report.expected_improvement, rel=200 * max_kl**0.5)
    # The quadratic form leaves out a third-order term: the relative gap falls like the step's length.
    assert gaps[2] <= 1e-2
    assert gaps[2] <= 0.2 * gaps[0] + 1e-6


@given(kinds, seeds)
def test_trpos_unshrunk_step_is_the_natural_step_with_damping(kind: str, seed: int):
    place, theta_K = world(kind, seed)
    change, report = take_step(
        trust_region_step, place, theta_K, TrustRegion(1e-3, cg_iterations=40, damping=0.1)
    )
    fisher = explicit_fisher(place, theta_K)
    moving = theta_K.clone().requires_grad_()
    (g,) = torch.autograd.grad(place.surrogate(moving), [moving])
    x = torch.linalg.solve(fisher + 0.1 * torch.eye(5, dtype=torch.float64), g)
    # The damped matrix gives the direction, the undamped one the length.
    full = (2e-3 / (x @ fisher @ x)).sqrt() * x
    torch.testing.assert_close(change, report.step_scale * full, rtol=1e-8, atol=EXACT)
    assert report.accepted
    assert report.kl <= 1e-3
    assert report.improvement > 0
    assert report.step_scale == 0.5**report.backtracks
