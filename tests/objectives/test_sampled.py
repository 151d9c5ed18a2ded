"""The sampled softmax: how it draws, and that it comes to the full one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lineal.objectives.sampled import log_inclusion, log_uniform, sampled_cross_entropy

CLASSES = 12


def test_classes_are_drawn_as_stated() -> None:
    uniform = (torch.arange(200_000).double() + 0.5) / 200_000
    drawn = log_uniform(uniform, CLASSES)
    share = torch.bincount(drawn, minlength=CLASSES) / len(drawn)
    wanted = [(math.log((c + 2) / (c + 1))) / math.log(CLASSES + 1) for c in range(CLASSES)]
    assert share.tolist() == pytest.approx(wanted, abs=1e-4) and sum(wanted) == pytest.approx(1)
    included = log_inclusion(torch.arange(CLASSES), CLASSES, 5).exp()
    assert included.tolist() == pytest.approx([1 - (1 - p) ** 5 for p in wanted])


def test_the_ends_of_the_unit_interval_are_classes() -> None:
    assert log_uniform(torch.tensor([0.0, 1 - 2**-53, 1.0], dtype=torch.float64), CLASSES).tolist() == [
        0,
        11,
        11,
    ]


def parts() -> tuple[torch.Tensor, ...]:
    """Hidden states, right classes, weights and biases."""
    generator = torch.Generator().manual_seed(0)
    draw = [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((6, 4), (CLASSES, 4), (CLASSES,))
    ]
    return draw[0], torch.tensor([0, 3, 11, 5, 5, 1]), draw[1], draw[2]


def test_by_hand_with_one_class_drawn_twice() -> None:
    hidden, target, weight, bias = parts()
    found = sampled_cross_entropy(hidden[:1], target[:1], weight, bias, torch.tensor([4, 4]))
    p = [math.log((c + 2) / (c + 1)) / math.log(CLASSES + 1) for c in (0, 4)]
    z = [
        float(hidden[0] @ weight[c] + bias[c]) - math.log(1 - (1 - q) ** 2)
        for c, q in zip((0, 4), p, strict=True)
    ]
    assert found.item() == pytest.approx(math.log(1 + math.exp(z[1] - z[0])))


def test_a_drawn_class_that_is_the_right_one_is_left_out() -> None:
    hidden, _, weight, bias = parts()
    target = torch.full((6,), 4)
    assert sampled_cross_entropy(hidden, target, weight, bias, torch.tensor([4, 4])).item() == 0


def test_where_all_classes_are_drawn_loss_and_gradient_are_those_of_the_full_softmax() -> None:
    hidden, target, weight, bias = parts()
    weight.requires_grad_()
    sampled = sampled_cross_entropy(hidden, target, weight, bias, torch.arange(CLASSES).repeat(400))
    (theirs,) = torch.autograd.grad(sampled, weight)
    full = F.cross_entropy(hidden @ weight.T + bias, target)
    (ours,) = torch.autograd.grad(full, weight)
    assert sampled.item() == pytest.approx(full.item())
    torch.testing.assert_close(theirs, ours)
