"""Averaged SGD against plain arithmetic, and the rule that starts the averaging."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lineal.errors import UsageError
from lineal.optim.averaged import AveragedSGD, no_longer_improves
from lineal.train.optimizer import load_optimizer, optimizer_tensors


def take(optimiser: AveragedSGD, parameter: nn.Parameter, gradient: float) -> None:
    """A step with a given gradient."""
    parameter.grad = torch.full_like(parameter, gradient)
    optimiser.step()


def test_it_is_sgd_until_the_average_begins() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    other = nn.Parameter(parameter.detach().clone())
    ours, theirs = AveragedSGD([parameter], 0.1, 0.01), torch.optim.SGD([other], lr=0.1, weight_decay=0.01)
    for gradient in (1.0, -2.0, 0.5):
        take(ours, parameter, gradient)
        other.grad = torch.full_like(other, gradient)
        theirs.step()
    torch.testing.assert_close(parameter, other)
    ours.exchange()
    torch.testing.assert_close(parameter, other)


def test_the_average_is_the_mean_of_the_weights_since_it_began() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimiser = AveragedSGD([parameter], 0.5)
    take(optimiser, parameter, 1.0)
    optimiser.start_average()
    seen = []
    for gradient in (1.0, 3.0, -2.0):
        take(optimiser, parameter, gradient)
        seen.append(parameter.item())
    now = parameter.item()
    optimiser.exchange()
    assert parameter.item() == pytest.approx(sum(seen) / 3)
    optimiser.exchange()
    assert parameter.item() == now


def test_its_state_survives_a_checkpoint() -> None:
    first, second = (nn.Parameter(torch.tensor([1.0])) for _ in range(2))
    one, two = AveragedSGD([("w", first)], 0.5), AveragedSGD([("w", second)], 0.5)
    one.start_average()
    take(one, first, 1.0)
    tensors, state = optimizer_tensors(one, {"w": first})
    load_optimizer(two, tensors, state, {"w": second})
    with torch.no_grad():
        second.copy_(first)
    for optimiser, parameter in ((one, first), (two, second)):
        take(optimiser, parameter, 2.0)
        optimiser.exchange()
    assert two.averaging and first.item() == second.item()


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ([5, 4, 3, 2], False),
        ([5, 4, 3, 3.5], False),
        ([3, 4, 4, 3.5], True),
        ([5, 3, 4, 3.5], False),
        ([5, 3, 4, 3.5, 3.2], True),
        ([3, 4], False),
    ],
)
def test_the_trigger_looks_past_the_newest_evaluations(losses: list[float], wanted: bool) -> None:
    """Patience 2: the newest against the best of those more than two evaluations old."""
    assert no_longer_improves(losses, 2) is wanted


def test_no_patience_is_refused() -> None:
    with pytest.raises(UsageError, match="patience"):
        no_longer_improves([1.0], 0)
