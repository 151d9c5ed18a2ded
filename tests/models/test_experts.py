"""Experts and their dispatch: against a loop over tokens, in all ways of computing them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lineal.models.capacity import admit, capacity_of, places
from lineal.models.experts import Dispatch, Experts, grouped_product


def experts(count: int = 5, width: int = 6, inner: int = 4, activation: str = "swiglu") -> Experts:
    built = Experts(count, width, inner, activation).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return built


def naive(built: Experts, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor) -> Tensor:
    """One token and one place at a time."""
    rows = []
    for x_D, chosen, weights in zip(x_ND, expert_NK.tolist(), weight_NK):
        total = 0 * x_D
        for e, weight in zip(chosen, weights):
            if e >= 0:
                total = total + weight * (built.down[e] @ built.active(built.up[e] @ x_D))
        rows.append(total)
    return torch.stack(rows)


def case(count: int = 5, refused: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_ND = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    expert_NK = torch.rand(9, count, generator=generator).topk(2).indices
    if refused:
        expert_NK[::3, 1], expert_NK[4] = -1, -1
    # No token of the case goes to expert 2: one that nobody chooses must do no harm.
    expert_NK = torch.where(expert_NK == 2, -1 if refused else (expert_NK.flip(1) + 1) % 2 + 3, expert_NK)
    return x_ND, expert_NK, torch.rand(9, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("activation", ["swiglu", "relu"])
def test_the_loop_is_one_token_at_a_time_and_so_are_its_gradients(activation: str, refused: bool) -> None:
    built = experts(activation=activation)
    x_ND, expert_NK, weight_NK = case(refused=refused)
    inputs = [x_ND.requires_grad_(), weight_NK.requires_grad_(), *built.parameters()]
    found, expected = built(x_ND, expert_NK, weight_NK), naive(built, x_ND, expert_NK, weight_NK)
    torch.testing.assert_close(found, expected)
    seed = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pairs = zip(torch.autograd.grad(found, inputs, seed), torch.autograd.grad(expected, inputs, seed))
    for own, other in pairs:
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("activation", ["swiglu", "relu"])
def test_second_derivatives_pass_through_it(activation: str) -> None:
    built = experts(2, 3, 2, activation)
    x_ND = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expert_NK = torch.tensor([[0, 1], [1, -1], [1, 0], [0, 1]])
    weight_NK = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    inputs = (x_ND.requires_grad_(), weight_NK.requires_grad_(), built.up, built.down)

    def result(x: Tensor, weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
        # The module reads its own parameters, which are these very tensors.
        return built(x, expert_NK, weight)

    torch.autograd.gradgradcheck(result, inputs)


def test_the_composed_way_is_the_loop() -> None:
    built = experts()
    x_ND, expert_NK, weight_NK = case(refused=True)
    dispatch = Dispatch.of(expert_NK, 5)
    x_MD = dispatch.scatter(x_ND)[: int(dispatch.size_E.sum())]
    composed = dispatch.gather(built.compute(x_MD, built.up, built.down, dispatch.size_E), weight_NK)
    torch.testing.assert_close(composed, built(x_ND, expert_NK, weight_NK))


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_torchs_grouped_product_is_the_loop_over_experts(kind: str) -> None:
    grouped = getattr(torch.nn.functional, "grouped_mm", None)
    if grouped is None:
        pytest.skip("this torch has no grouped_mm")
    dtype = getattr(torch, kind)
    x_MD = torch.randn(7, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight_EFD = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    size_E = torch.tensor([4, 0, 3])
    found = grouped(x_MD, weight_EFD.transpose(1, 2), offs=size_E.cumsum(0).to(torch.int32))
    torch.testing.assert_close(grouped_product(x_MD, weight_EFD, size_E), found, rtol=2e-2, atol=2e-2)


def test_autocast_multiplies_in_bfloat16_and_gradients_are_float32() -> None:
    built = experts().float()
    x_ND, expert_NK, weight_NK = case()
    x = x_ND.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = built(x, expert_NK, weight_NK.float())
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert built.up.grad is not None and built.up.grad.dtype == torch.float32
    assert x.grad is not None and x.grad.dtype == torch.float32
    expected = naive(built, x, expert_NK, weight_NK.float())
    assert (found.float() - expected).abs().max() <= 0.05 * expected.abs().max()


def test_rows_come_back_in_their_order() -> None:
    expert_NK = torch.tensor([[2, 0], [-1, 2], [0, 1]])
    dispatch = Dispatch.of(expert_NK, 3)
    assert dispatch.size_E.tolist() == [2, 1, 2]
    assert dispatch.order_M.tolist() == [1, 4, 5, 0, 3, 2]
    assert dispatch.order_M[dispatch.back_M].tolist() == list(range(6))


def test_1024_tokens_with_4_experts_of_256_leave_16_for_each() -> None:
    assert capacity_of(1.0, 1024 * 4, 256) == 16
    assert capacity_of(1.25, 10, 4) == 4


def test_places_are_counted_by_expert() -> None:
    assert places(torch.tensor([1, 0, 1, 1, 0]), 3).tolist() == [0, 0, 1, 2, 1]


def test_a_full_expert_sends_tokens_around_the_layer() -> None:
    wish_NK = torch.tensor([[0, 1], [0, 1], [0, 2]])
    assert admit(wish_NK, 2, 2, 3, "around").tolist() == [[0, 1], [0, 1], [-1, 2]]


def test_a_full_expert_sends_tokens_to_the_next_best_one() -> None:
    wish_NE = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2]])
    # Rounds: 0 and 0 fit, the third is refused; then 1 and 1, and so on until each has two or its list ends.
    assert admit(wish_NE, 2, 2, 3, "next").tolist() == [[0, 1], [0, 1], [2, -1]]


@pytest.mark.parametrize("overflow", ["next", "around"])
def test_no_expert_takes_more_than_its_capacity_nor_a_token_twice(overflow: str) -> None:
    generator = torch.Generator().manual_seed(0)
    # Everybody prefers the low numbers.
    score_NE = torch.rand(64, 8, generator=generator) - 0.2 * torch.arange(8)
    wish_NE = score_NE.argsort(dim=-1, descending=True, stable=True)
    taken_NK = admit(wish_NE, 3, capacity_of(1.0, 64 * 3, 8), 8, overflow)
    load_E = torch.bincount(taken_NK[taken_NK >= 0], minlength=8)
    assert int(load_E.max()) <= 24
    for row in taken_NK.tolist():
        used = [e for e in row if e >= 0]
        assert len(set(used)) == len(used)
    if overflow == "around":
        assert bool(((taken_NK == wish_NE[:, :3]) | (taken_NK == -1)).all())
        assert (taken_NK < 0).any()
    else:
        # Nearly all places are filled, because there is room for them somewhere.
        assert int((taken_NK < 0).sum()) <= 8


def test_without_pressure_nobody_is_refused() -> None:
    wish_NE = torch.rand(32, 6, generator=torch.Generator().manual_seed(2)).argsort(descending=True, dim=-1)
    for overflow in ("next", "around"):
        assert torch.equal(admit(wish_NE, 2, 64, 6, overflow), wish_NE[:, :2])
