"""The worked numbers of the mixture of experts, and the laws of its gates and of its two losses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.capacity import capacity_of
from lineal.models.gating import ExpertsConfig, Gating, Routes, Routing, choose, weights
from lineal.models.moe import Mixture
from lineal.objectives.balance import Balance, chance, cv_squared, importance, smooth_load
from lineal.train.routing import gating_noise, hard_load


def routing_of(expert_NK: Tensor, weight_NK: Tensor, count: int, gating: Gating | None = None) -> Routing:
    """Choices and weights as a layer would report them."""
    if gating is None:
        empty = torch.zeros(len(expert_NK), count, dtype=weight_NK.dtype)
        gating = Gating(empty, empty, None, expert_NK, weight_NK)
    config = ExpertsConfig(count, expert_NK.shape[1], 4)
    return Routing(0, config, expert_NK, weight_NK, expert_NK, gating)


def test_equal_importance_can_hide_unequal_load():
    """100 tokens x .01 = 2 x .5 = 50 x .02: importance CV^2 0, load CV^2 .62361 (population variance)."""
    tokens, gates = (100, 2, 50), (0.01, 0.5, 0.02)
    expert_NK = torch.cat([torch.full((n, 1), e) for e, n in enumerate(tokens)])
    weight_NK = torch.cat([torch.full((n, 1), g, dtype=torch.float64) for n, g in zip(tokens, gates)])
    routing = routing_of(expert_NK, weight_NK, 3)
    assert importance(routing).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert cv_squared(importance(routing)).item() == pytest.approx(0.0, abs=1e-24)
    assert hard_load(routing).tolist() == [100, 2, 50]
    assert cv_squared(hard_load(routing)).item() == pytest.approx(0.62361, abs=5e-6)


def test_1024_tokens_choosing_4_of_256_experts_are_16_for_each():
    assert capacity_of(1.0, 1024 * 4, 256) == 16


def test_cv_squared_is_population_variance_over_squared_mean():
    value_E = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    assert cv_squared(value_E).item() == pytest.approx(((4 + 1 + 9) / 3) / 9)


def kth_excluding(score_E: list[float], k: int, i: int) -> float:
    """The k-th greatest of all but the i-th, by sorting."""
    return sorted((s for j, s in enumerate(score_E) if j != i), reverse=True)[k - 1]


@given(st.integers(0, 999), st.integers(2, 6), st.data())
def test_the_smooth_load_is_its_formula_written_out(seed: int, count: int, data: st.DataObject):
    k = data.draw(st.integers(1, count - 1))
    made = torch.Generator().manual_seed(seed)
    clean_NE, noise_NE, raw_NE = (
        torch.randn(5, count, generator=made, dtype=torch.float64) for _ in range(3)
    )
    scale_NE = torch.nn.functional.softplus(raw_NE)
    gating, _, _ = choose((clean_NE, clean_NE + noise_NE * scale_NE, scale_NE), k)
    found_NE = chance(gating)
    for n in range(5):
        noisy_E = gating.noisy_NE[n].tolist()
        for i in range(count):
            z = (clean_NE[n, i].item() - kth_excluding(noisy_E, k, i)) / scale_NE[n, i].item()
            expected = 0.5 * math.erfc(-z / math.sqrt(2))
            assert found_NE[n, i].item() == pytest.approx(expected, abs=1e-12)


def test_the_chance_is_how_often_new_noise_would_choose_the_expert():
    made = torch.Generator().manual_seed(0)
    clean_NE = torch.randn(1, 5, generator=made, dtype=torch.float64)
    scale_NE = torch.rand(1, 5, generator=made, dtype=torch.float64) + 0.5
    noisy_NE = clean_NE + torch.randn(1, 5, generator=made, dtype=torch.float64) * scale_NE
    gating, _, _ = choose((clean_NE, noisy_NE, scale_NE), 2)
    draws = 200_000
    for i in range(5):
        again = noisy_NE.expand(draws, 5).clone()
        again[:, i] = (
            clean_NE[0, i] + torch.randn(draws, generator=made, dtype=torch.float64) * scale_NE[0, i]
        )
        share = (again.topk(2).indices == i).any(1).double().mean().item()
        assert chance(gating)[0, i].item() == pytest.approx(share, abs=0.006)


def test_where_all_experts_are_chosen_the_chance_is_one():
    clean_NE = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    gating, _, _ = choose((clean_NE, clean_NE, torch.ones(3, 2)), 2)
    assert chance(gating).tolist() == [[1.0, 1.0]] * 3


def test_the_load_loss_moves_the_gate_towards_balance():
    """A step down its gradient brings an over-used expert's smooth load down."""
    made = torch.Generator().manual_seed(1)
    clean_NE = torch.randn(64, 4, generator=made, dtype=torch.float64)
    clean_NE[:, 0] += 2.0
    clean_NE.requires_grad_()
    scale_NE = torch.ones(64, 4, dtype=torch.float64)
    noise_NE = torch.randn(64, 4, generator=made, dtype=torch.float64)

    def loads(scores: Tensor) -> tuple[Tensor, Tensor]:
        gating, expert_NK, weight_NK = choose((scores, scores + noise_NE, scale_NE), 2)
        routing = routing_of(expert_NK, weight_NK, 4, gating)
        return smooth_load(routing), Balance(0.1, 0.1)([routing])

    load_E, loss = loads(clean_NE)
    (slope_NE,) = torch.autograd.grad(loss, clean_NE)
    after_E, lower = loads(clean_NE.detach() - 20 * slope_NE)
    assert lower < loss
    assert after_E[0] < load_E[0]
    assert load_E.argmax() == 0


def test_the_losses_are_weighted_sums_over_layers():
    made = torch.Generator().manual_seed(2)
    clean_NE, noise_NE = (torch.randn(9, 4, generator=made, dtype=torch.float64) for _ in range(2))
    gating, expert_NK, weight_NK = choose((clean_NE, clean_NE + noise_NE, torch.ones_like(clean_NE)), 2)
    routing = routing_of(expert_NK, weight_NK, 4, gating)
    one, two = cv_squared(importance(routing)), cv_squared(smooth_load(routing))
    assert Balance(0.3, 0.7)([routing, routing]).item() == pytest.approx(2 * (0.3 * one + 0.7 * two).item())
    assert Balance(0.0, 0.0)([routing]).item() == 0.0
    assert Balance(0.3, 0.0)([routing]).item() == pytest.approx(0.3 * one.item())


@pytest.mark.parametrize("weights", [(-0.1, 0.1), (0.1, -1.0), (math.nan, 0.0), (math.inf, 0.0)])
def test_a_negative_weight_is_refused(weights: tuple[float, float]):
    with pytest.raises(UsageError, match=r"must be 0 \(off\) or more"):
        Balance(*weights)


def test_a_load_loss_without_noise_is_refused():
    clean_NE = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    gating, expert_NK, weight_NK = choose((clean_NE, clean_NE, None), 2)
    with pytest.raises(UsageError, match="needs noisy gating"):
        Balance()([routing_of(expert_NK, weight_NK, 4, gating)])


@given(st.integers(0, 999), st.integers(1, 5))
def test_the_weights_are_a_softmax_over_the_k_greatest(seed: int, k: int):
    score_NE = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    _, expert_NK, weight_NK = choose((score_NE, score_NE, None), k)
    kept_NE = torch.full_like(score_NE, -torch.inf).scatter(1, expert_NK, score_NE.gather(1, expert_NK))
    expected_NE = kept_NE.softmax(-1)
    assert torch.allclose(expected_NE.gather(1, expert_NK), weight_NK)
    assert torch.equal(expert_NK.sort().values, score_NE.topk(k).indices.sort().values)
    everyone = weights(score_NE, expert_NK, renormalise=False)
    assert torch.allclose(everyone, score_NE.softmax(-1).gather(1, expert_NK))


def test_a_token_that_nobody_took_weighs_nothing_and_its_gradient_is_zero():
    score_NE = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    weight_NK = weights(score_NE, torch.tensor([[-1, -1], [2, -1]]))
    assert weight_NK.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    (slope,) = torch.autograd.grad(weight_NK.sum(), score_NE)
    assert torch.equal(slope, torch.zeros_like(slope))


def hierarchy(seed: int = 0) -> tuple[Mixture, Tensor]:
    config = ExpertsConfig(12, 2, 5, activation="relu", gate="noisy_top_k", groups=3)
    mixture = Mixture(config, 6).double()
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=made, dtype=torch.float64))
    return mixture, torch.randn(20, 6, generator=made, dtype=torch.float64)


def test_two_levels_multiply_their_gates():
    """y = sum_i sum_j G_primary(x)_i G_i(x)_j E_ij(x), written out; expert (i, j) is number i * b + j."""
    mixture, x_ND = hierarchy()
    assert mixture.inner_gate is not None
    expected = []
    for x_D in x_ND:
        total = torch.zeros(6, dtype=torch.float64)
        primary = (mixture.gate.weight @ x_D).topk(2)
        for weight, i in zip(primary.values.softmax(-1), primary.indices.tolist()):
            inner = (mixture.inner_gate.weight[i] @ x_D).topk(2)
            for share, j in zip(inner.values.softmax(-1), inner.indices.tolist()):
                up, down = mixture.experts.up[4 * i + j], mixture.experts.down[4 * i + j]
                total = total + weight * share * (down @ (up @ x_D).relu())
        expected.append(total)
    assert torch.allclose(mixture(x_ND), torch.stack(expected), atol=1e-12)


def test_the_load_of_two_levels_is_the_papers():
    """Load_H(i, j) = Load_primary(i) Load_i(X^(i))_j / |X^(i)|; importance sums the products of gates."""
    mixture, x_ND = hierarchy()
    routes = Routes(gating_noise(0, 1))
    mixture(x_ND, routes)
    (routing,) = routes.routing
    assert routing.secondary is not None and routing.group_M is not None
    primary_A, inner_ME = chance(routing.primary).sum(0), chance(routing.secondary)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for i in range(3):
        rows = routing.group_M == i
        expected[i] = primary_A[i] * inner_ME[rows].sum(0) / rows.sum()
    assert torch.allclose(smooth_load(routing), expected.flatten())
    expected_E = torch.zeros(12, dtype=torch.float64)
    for experts, gates in zip(routing.expert_NK.tolist(), routing.weight_NK.tolist()):
        for e, gate in zip(experts, gates):
            expected_E[e] += gate
    assert torch.allclose(importance(routing), expected_E)
    assert importance(routing).sum().item() == pytest.approx(20.0)
    # Both levels learn from it.
    slopes = torch.autograd.grad(Balance()([routing]), [mixture.gate.weight, mixture.inner_gate.noise])  # type: ignore[union-attr, list-item]
    assert all(slope.abs().max() > 0 for slope in slopes)


def test_the_noise_is_standard_normal_and_belongs_to_the_token():
    position_N, number_1E = torch.arange(4000), torch.arange(16)[None]
    drawn_NE = gating_noise(3, 7)(1, position_N, number_1E)
    assert drawn_NE.mean().item() == pytest.approx(0.0, abs=0.02)
    assert drawn_NE.var().item() == pytest.approx(1.0, abs=0.02)
    assert (drawn_NE.abs() > 1.96).double().mean().item() == pytest.approx(0.05, abs=0.005)
    assert torch.equal(gating_noise(3, 7)(1, position_N[17:19], number_1E[:, 5:6]), drawn_NE[17:19, 5:6])
    for other in (gating_noise(4, 7)(1, position_N, number_1E), gating_noise(3, 8)(1, position_N, number_1E),
                  gating_noise(3, 7)(2, position_N, number_1E)):  # fmt: skip
        assert torch.corrcoef(torch.stack((drawn_NE.flatten(), other.flatten())))[0, 1].abs() < 0.02
