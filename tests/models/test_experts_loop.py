"""The sorted loop over experts, alone: values and slopes in plain Python, nobody's experts, refused places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.models.experts import Dispatch, Experts
from lineal.models.experts_loop import experts_loop

Rows = list[list[float]]


def drawn(*shape: int, seed: int) -> Tensor:
    """Normal numbers of a seed, which want a gradient."""
    made = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=made, dtype=torch.float64).requires_grad_()


def unused(x_ND: Tensor, weight_NK: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Plain operations that first derivatives have no need of."""
    raise AssertionError("the loop has a gradient of its own")


@dataclass
class Case:
    """Tokens, places and experts of a seed: D = 3, F = 2."""

    expert_NK: Tensor
    gated: bool
    experts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        tokens, places = self.expert_NK.shape
        self.x_ND = drawn(tokens, 3, seed=self.seed)
        self.weight_NK = drawn(tokens, places, seed=self.seed + 1)
        self.up_EFD = drawn(self.experts, 4 if self.gated else 2, 3, seed=self.seed + 2)
        self.down_EDF = drawn(self.experts, 3, 2, seed=self.seed + 3)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All that has a gradient."""
        return self.x_ND, self.weight_NK, self.up_EFD, self.down_EDF

    def loop(self) -> Tensor:
        """What is tested."""
        dispatch = Dispatch.of(self.expert_NK, self.experts)
        matrices = (self.up_EFD, self.down_EDF)
        return experts_loop(self.x_ND, self.weight_NK, matrices, dispatch, self.gated, unused)


def dot(a: list[float], b: list[float]) -> float:
    """sum a_i b_i."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def activation(hidden: list[float], gated: bool) -> tuple[list[float], list[list[float]]]:
    """The activation, and the slope of each of its outputs in each of its inputs."""
    count = len(hidden) // 2 if gated else len(hidden)
    slope = [[0.0] * len(hidden) for _ in range(count)]
    if not gated:
        for f, h in enumerate(hidden):
            slope[f][f] = 1.0 if h > 0 else 0.0
        return [max(h, 0.0) for h in hidden], slope
    found = []
    for f in range(count):
        gate, up = hidden[f], hidden[count + f]
        share = 1 / (1 + math.exp(-gate))
        found.append(gate * share * up)
        slope[f][f] = up * share * (1 + gate * (1 - share))
        slope[f][count + f] = gate * share
    return found, slope


def by_hand(case: Case, seed_ND: Rows) -> tuple[Rows, list]:
    """The result, and the slopes of its product with `seed_ND`: one token, one place, one number at a time."""
    x, weight, up, down = (tensor.tolist() for tensor in case.inputs)
    result: Rows = [[0.0] * 3 for _ in x]
    dx, dweight, dup, ddown = (torch.zeros_like(tensor).tolist() for tensor in case.inputs)
    for n, experts in enumerate(case.expert_NK.tolist()):
        for k, e in enumerate(experts):
            if e < 0:
                continue
            active, slope = activation([dot(row, x[n]) for row in up[e]], case.gated)
            y = [dot(row, active) for row in down[e]]
            dweight[n][k] = dot(seed_ND[n], y)
            grad = [weight[n][k] * s for s in seed_ND[n]]
            dactive = [dot(grad, [row[f] for row in down[e]]) for f in range(len(active))]
            dhidden = [dot(dactive, [row[h] for row in slope]) for h in range(len(up[e]))]
            for d in range(3):
                result[n][d] += weight[n][k] * y[d]
                dx[n][d] += sum(dhidden[h] * up[e][h][d] for h in range(len(dhidden)))
                for f, value in enumerate(active):
                    ddown[e][d][f] += grad[d] * value
                for h, value in enumerate(dhidden):
                    dup[e][h][d] += value * x[n][d]
    return result, [dx, dweight, dup, ddown]


def places(tokens: int, chosen: int, experts: int) -> st.SearchStrategy[Tensor]:
    """Experts of each place, -1 among them."""
    row = st.lists(st.integers(-1, experts - 1), min_size=chosen, max_size=chosen)
    return st.lists(row, min_size=1, max_size=tokens).map(torch.tensor)


@given(places(6, 3, 4), st.booleans(), st.integers(0, 99))
def test_values_and_slopes_are_those_of_plain_python(expert_NK: Tensor, gated: bool, seed: int) -> None:
    case = Case(expert_NK, gated, seed=seed)
    seed_ND = drawn(len(expert_NK), 3, seed=seed + 9).detach()
    found = case.loop()
    expected, slopes = by_hand(case, seed_ND.tolist())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    for own, slope in zip(torch.autograd.grad(found, case.inputs, seed_ND), slopes, strict=True):
        torch.testing.assert_close(own, torch.tensor(slope, dtype=torch.float64))


def test_worked_numbers_of_a_relu() -> None:
    """x = (1, 2): expert 0 has hidden (3, -1) and gives 2 * 3; expert 1 has hidden (0, 4) and gives 5 * 0 - 4."""
    x_ND = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    up = torch.tensor([[[1.0, 1.0], [1.0, -1.0]], [[2.0, -1.0], [0.0, 2.0]]], dtype=torch.float64)
    down = torch.tensor([[[2.0, 7.0], [0.0, 1.0]], [[5.0, -1.0], [1.0, 1.0]]], dtype=torch.float64)
    weight_NK = torch.tensor([[0.5, 0.25]], dtype=torch.float64, requires_grad=True)
    dispatch = Dispatch.of(torch.tensor([[1, 0]]), 2)
    found = experts_loop(x_ND, weight_NK, (up, down), dispatch, False, unused)
    assert found.tolist() == [[0.5 * -4 + 0.25 * 6, 0.5 * 4 + 0.25 * 0]]
    dx, dweight = torch.autograd.grad(found[0, 0], (x_ND, weight_NK))
    assert dweight.tolist() == [[-4.0, 6.0]]
    # A hidden number of 0 has slope 0: only the second of expert 1 and the first of expert 0 count.
    assert dx.tolist() == [[0.25 * 2 * 1, 0.5 * -1 * 2 + 0.25 * 2 * 1]]


def test_a_worked_number_of_swiglu() -> None:
    """gate log 3 has silu 3/4 log 3, times up 4, times down 2."""
    x_ND = torch.tensor([[1.0]], dtype=torch.float64)
    up, down = x_ND.new_tensor([[[math.log(3)], [4.0]]]), x_ND.new_tensor([[[2.0]]])
    weight_NK = x_ND.new_tensor([[0.5]])
    dispatch = Dispatch.of(torch.tensor([[0]]), 1)
    found = experts_loop(x_ND, weight_NK, (up, down), dispatch, True, unused)
    assert found.item() == pytest.approx(3 * math.log(3))


@pytest.mark.parametrize("gated", [True, False])
def test_experts_nobody_chose_have_slopes_of_zero_and_need_not_be_finite(gated: bool) -> None:
    case = Case(torch.tensor([[0, 3], [3, -1], [0, 0]]), gated)
    with torch.no_grad():
        # Positive, so that no ReLU is 0 by chance.
        case.x_ND.abs_(), case.up_EFD.abs_()
        case.up_EFD[1:3], case.down_EDF[1:3] = math.nan, math.inf
    found = case.loop()
    *_, dup, ddown = torch.autograd.grad(found.sum(), case.inputs)
    assert found.isfinite().all()
    for slope in (dup, ddown):
        assert slope[1:3].eq(0).all() and slope[0].ne(0).any() and slope[3].ne(0).any()


@pytest.mark.parametrize("gated", [True, False])
def test_where_every_place_is_refused_nothing_comes_out_and_nothing_learns(gated: bool) -> None:
    case = Case(torch.full((3, 2), -1), gated)
    found = case.loop()
    assert found.tolist() == [[0.0] * 3] * 3
    for slope in torch.autograd.grad(found.sum(), case.inputs):
        assert slope.eq(0).all()


def test_the_weight_of_a_refused_place_does_not_matter() -> None:
    case = Case(torch.tensor([[2, -1], [-1, 1]]), True)
    before = case.loop().detach()
    with torch.no_grad():
        case.weight_NK[0, 1], case.weight_NK[1, 0] = 1e6, -1e6
    assert torch.equal(case.loop(), before)
    (slope_NK,) = torch.autograd.grad(case.loop().sum(), case.weight_NK)
    assert slope_NK[0, 1] == 0 and slope_NK[1, 0] == 0


def test_an_expert_chosen_twice_counts_with_the_sum_of_its_weights() -> None:
    twice, once = Case(torch.tensor([[1, 1], [3, 3]]), True), Case(torch.tensor([[1, -1], [3, -1]]), True)
    with torch.no_grad():
        once.weight_NK[:, 0] = twice.weight_NK.sum(1)
    torch.testing.assert_close(twice.loop(), once.loop())


@given(places(6, 2, 4), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_tokens_is_the_order_of_results(expert_NK: Tensor, gated: bool, random) -> None:
    case = Case(expert_NK, gated)
    order = list(range(len(expert_NK)))
    random.shuffle(order)
    mixed = Case(expert_NK[order], gated)
    mixed.x_ND, mixed.weight_NK = case.x_ND[order], case.weight_NK[order]
    torch.testing.assert_close(mixed.loop(), case.loop()[order])


@pytest.mark.parametrize("gated", [True, False])
def test_nothing_that_was_given_is_changed_and_slopes_can_be_asked_for_again(gated: bool) -> None:
    case = Case(torch.tensor([[0, 2], [-1, 2], [3, 0]]), gated)
    kept = [tensor.detach().clone() for tensor in case.inputs]
    found, seed_ND = case.loop(), drawn(3, 3, seed=7).detach()
    own = seed_ND.clone()
    first = torch.autograd.grad(found, case.inputs, seed_ND, retain_graph=True)
    again = torch.autograd.grad(found, case.inputs, seed_ND)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(case.inputs, kept, strict=True))
    assert torch.equal(seed_ND, own)


def test_second_derivatives_go_through_the_plain_operations() -> None:
    case, asked = Case(torch.tensor([[1]]), False, experts=2), []

    def compose(x_ND: Tensor, weight_NK: Tensor, up: Tensor, down: Tensor) -> Tensor:
        asked.append(x_ND.shape)
        return weight_NK * ((x_ND @ up[1].t()).relu() @ down[1].t())

    dispatch = Dispatch.of(case.expert_NK, 2)
    matrices = (case.up_EFD, case.down_EDF)
    found = experts_loop(case.x_ND, case.weight_NK, matrices, dispatch, False, compose)
    torch.autograd.grad(found.sum(), case.inputs, retain_graph=True)
    assert asked == []
    (slope,) = torch.autograd.grad(found.sum(), case.x_ND, create_graph=True)
    assert asked == [(1, 3)]
    # dx is linear in the weight: its slope there is dx / weight.
    (again,) = torch.autograd.grad(slope.sum(), case.weight_NK)
    assert again.item() == pytest.approx((slope.sum() / case.weight_NK).item())


def test_float64_stays_float64_under_autocast() -> None:
    case = Case(torch.tensor([[0, 1], [2, 3]]), True)
    expected = case.loop()
    with torch.autocast("cpu", torch.bfloat16):
        found = case.loop()
    assert found.dtype == torch.float64 and torch.equal(found, expected)


def test_a_batch_without_tokens_gives_none() -> None:
    experts = Experts(3, 4, 2)
    x_ND = torch.zeros(0, 4, requires_grad=True)
    found_ND = experts(x_ND, torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2))
    assert found_ND.shape == (0, 4)
    found_ND.sum().backward()
    assert x_ND.grad is not None and x_ND.grad.shape == (0, 4)
