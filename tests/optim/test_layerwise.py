"""Rates by layer, and layers that begin to learn one after another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lineal.errors import UsageError
from lineal.optim.groups import set_learning_rate
from lineal.optim.layerwise import layer_groups, learning_layers, set_learning
from lineal.optim.schedules import SlantedTriangular


def layers_of(count: int) -> list[dict[str, nn.Parameter]]:
    """As many layers of one parameter."""
    return [{f"layer{i}": nn.Parameter(torch.ones(2))} for i in range(count)]


def test_each_layer_s_rate_is_that_of_the_layer_above_over_the_factor() -> None:
    optimiser = torch.optim.SGD(layer_groups(layers_of(4), 2.6), lr=1.0)
    set_learning_rate(optimiser, 0.01)
    rates = [group["lr"] for group in optimiser.param_groups]
    assert rates == pytest.approx([0.01 / 2.6**3, 0.01 / 2.6**2, 0.01 / 2.6, 0.01])


def test_factor_one_gives_one_rate() -> None:
    assert [group["scale"] for group in layer_groups(layers_of(3), 1.0)] == [1.0, 1.0, 1.0]


def test_a_shared_parameter_belongs_to_the_highest_layer() -> None:
    below, above = layers_of(2)
    groups = layer_groups([below, {**above, **below}], 2.0)
    assert len(groups) == 1 and [name for name, _ in groups[0]["params"]] == ["layer1", "layer0"]


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_no_factor_at_all_is_refused(factor: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        layer_groups(layers_of(2), factor)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("gradual", [[3], [2, 3], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]),
        ("all", [[0, 1, 2, 3]] * 5),
        ("last", [[3]] * 5),
        ("chain", [[3], [0], [1], [2], [0, 1, 2, 3]]),
    ],
)
def test_who_learns_when(name: str, wanted: list[list[int]]) -> None:
    assert [list(learning_layers(name, epoch, 4)) for epoch in range(5)] == wanted


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UsageError, match="sideways"):
        learning_layers("sideways", 0, 3)


def test_frozen_layers_stay_as_they_are() -> None:
    layers = layers_of(3)
    optimiser = torch.optim.AdamW(layer_groups(layers, 2.6), lr=0.1, weight_decay=0.1)
    set_learning(layers, range(2, 3))
    parameters = [p for layer in layers for p in layer.values()]
    assert [p.requires_grad for p in parameters] == [False, False, True]
    (parameters[0] * parameters[1] * parameters[2]).sum().backward()
    optimiser.step()
    assert torch.equal(parameters[0], torch.ones(2)) and not torch.equal(parameters[2], torch.ones(2))


def test_the_slanted_triangle_peaks_at_the_paper_s_rate() -> None:
    schedule = SlantedTriangular(1000, 0.1, 32.0)
    assert 0.01 * schedule(0) == pytest.approx(0.01 / 32)
    assert 0.01 * schedule(100) == pytest.approx(0.01)
    assert 0.01 * schedule(550) == pytest.approx(0.01 * (1 + 0.5 * 31) / 32)
