"""Perceptrons in a flat matrix: what they compute and their gradients, beside autograd's, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.perceptron import Shape, activations, cotangent, entered, start, tangent


def problem(
    activation: str, sizes: tuple[int, ...] = (3, 20, 17, 2), k: int = 2
) -> tuple[Shape, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = Shape(sizes, activation, 2)
    theta_KP = torch.randn(k, shape.count, generator=generator, dtype=torch.float64)
    return shape, theta_KP, torch.randn(50, sizes[0], generator=generator, dtype=torch.float64)


CASES = [("tanh", (3, 20, 17, 2)), ("relu", (3, 20, 17, 2)), ("tanh", (5, 1)), ("tanh", (30, 40, 40, 30))]


@pytest.mark.parametrize(("activation", "sizes"), CASES)
def test_forward_tangent_and_cotangent_equal_autograd(activation: str, sizes: tuple[int, ...]) -> None:
    shape, theta_KP, input_NF = problem(activation, sizes)
    layers = shape.layers(theta_KP)
    inner = entered(layers, input_NF, shape)
    theta_KP = theta_KP.clone().requires_grad_()
    wanted = activations(theta_KP, input_NF, shape)
    assert torch.allclose(inner[-1], wanted[-1], rtol=1e-13, atol=1e-13)

    u_KNO = torch.randn_like(wanted[-1])
    (slope_KP,) = torch.autograd.grad((wanted[-1] * u_KNO).sum(), theta_KP)
    into_KP = torch.full_like(theta_KP, 7.0, requires_grad=False)
    cotangent(layers, u_KNO, inner, shape.layers(into_KP), shape)
    assert torch.allclose(into_KP[:, : -shape.extra], slope_KP[:, : -shape.extra], rtol=1e-11, atol=1e-11)
    assert (shape.tail(into_KP) == 7).all() and (shape.tail(slope_KP) == 0).all()

    v_KP = torch.randn(theta_KP.shape, dtype=torch.float64)
    moved = torch.func.jvp(lambda t: activations(t, input_NF, shape)[-1], (theta_KP.detach(),), (v_KP,))[1]
    found = tangent(layers, shape.layers(v_KP), inner, shape)
    assert torch.allclose(found, moved, rtol=1e-11, atol=1e-11)


def test_a_row_is_a_perceptron_of_its_own() -> None:
    shape, theta_KP, input_NF = problem("tanh")
    both = entered(shape.layers(theta_KP), input_NF, shape)[-1]
    for k in (0, 1):
        alone = entered(shape.layers(theta_KP[k : k + 1]), input_NF, shape)[-1]
        assert torch.allclose(alone[0], both[k], rtol=1e-13)


def test_the_orthogonal_start_has_the_gains_it_says() -> None:
    shape = Shape((6, 32, 32, 3))
    theta_KP = start(shape, (3, 1), (0.01, 1.0), True, torch.Generator().manual_seed(1))
    (first, bias), (second, _), (last, _) = shape.layers(theta_KP)
    eye = torch.eye(32, dtype=torch.float64)
    for k in (0, 1):
        assert torch.allclose(first[k] @ first[k].T, 2 * eye[:6, :6], atol=1e-12)
        assert torch.allclose(second[k] @ second[k].T, 2 * eye, atol=1e-12)
    assert torch.allclose(last[0].T @ last[0], 1e-4 * eye[:3, :3], atol=1e-12)
    assert torch.allclose(last[1, :, :1].T @ last[1, :, :1], eye[:1, :1], atol=1e-12)
    assert (last[1, :, 1:] == 0).all() and (bias == 0).all()


def test_the_other_start_is_torchs_bounds() -> None:
    shape = Shape((16, 50, 2))
    theta_KP = start(shape, (2, 1), (0.01, 1.0), False, torch.Generator().manual_seed(1))
    (first, bias), (last, _) = shape.layers(theta_KP)
    assert 0.2 < float(first.abs().max()) <= 0.25 and 0 < float(bias.abs().max()) <= 0.25
    assert float(last[0].abs().max()) <= 50**-0.5
    assert (last[1, :, 1:] == 0).all()


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="gelu"):
        Shape((2, 2), "gelu")
    with pytest.raises(UsageError, match="at least 1"):
        Shape((2, 0, 1))
