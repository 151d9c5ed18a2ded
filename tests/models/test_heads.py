"""The critic's head."""

from __future__ import annotations

import torch

from lineal.models.heads import ValueHead


def test_a_value_per_hidden_state_starting_at_zero():
    head = ValueHead(6).double()
    hidden = torch.randn(2, 3, 6, dtype=torch.float64)
    assert torch.equal(head(hidden), torch.zeros(2, 3, dtype=torch.float64))
    with torch.no_grad():
        head.weight.normal_()
        head.bias.fill_(0.5)
    torch.testing.assert_close(head(hidden), hidden @ head.weight[0] + 0.5)
    assert head(hidden[0, 0]).shape == ()
