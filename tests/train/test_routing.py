"""How fast experts learn beside everything else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lineal.models.moe import ExpertsConfig
from lineal.optim.groups import adamw, set_learning_rate
from lineal.train.routing import expert_scale


@pytest.mark.parametrize(
    ("experts", "share"),
    [
        (ExpertsConfig(32, 4), math.sqrt(4 / 32)),
        (ExpertsConfig(4, 4), 1.0),
        (ExpertsConfig(64, 2, groups=8), math.sqrt(4 / 64)),
        (ExpertsConfig(8, gate="softmax"), 1.0),
    ],
    ids=["flat", "all chosen", "two levels", "softmax"],
)
def test_by_default_experts_learn_at_the_root_of_their_share_of_tokens(experts, share):
    scale = expert_scale(experts, None)
    assert scale("layers.1.experts.up") == pytest.approx(share, rel=1e-12)
    assert scale("layers.1.router.weight") == scale("lookup.weight") == 1.0


@pytest.mark.parametrize("asked", [None, 1.0, 0.25])
def test_the_first_step_of_each_weight_is_its_rate(asked):
    weights = {
        "block.experts.up": nn.Parameter(torch.zeros(2, 3)),
        "block.experts.bias": nn.Parameter(torch.zeros(3)),
        "lookup.weight": nn.Parameter(torch.zeros(2, 3)),
    }
    # Without eps Adam's first step is the rate, whatever the gradient.
    optimiser = adamw(weights, 1.0, eps=0.0, scale=expert_scale(ExpertsConfig(16, 4), asked))
    set_learning_rate(optimiser, 0.1)
    torch.stack([weight.sum() * 7 for weight in weights.values()]).sum().backward()
    optimiser.step()
    share = 0.5 if asked is None else asked
    for name, weight in weights.items():
        expected = torch.full_like(weight, -0.1 * (share if ".experts." in name else 1.0))
        torch.testing.assert_close(weight.detach(), expected)
