"""Small heads on a model's hidden states."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ValueHead(nn.Module):
    """A linear critic v(h) = w . h + b; it starts at zero, so that the first advantages are the plain returns."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
        """The value of each hidden state."""
        return torch.nn.functional.linear(hidden, self.weight, self.bias).squeeze(-1)


class LinearHead(nn.Module):
    """W dropout(h) + b with W from N(0, 0.02) by a seed and b = 0: classes, choices or a score from a state."""

    def __init__(self, width: int, outputs: int, dropout: float = 0.0, seed: int = 0):
        super().__init__()
        draw = torch.randn(outputs, width, generator=torch.Generator().manual_seed(seed))
        self.weight, self.bias = nn.Parameter(0.02 * draw), nn.Parameter(torch.zeros(outputs))
        self.dropout = dropout

    def forward(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """The scores of each state."""
        hidden = torch.nn.functional.dropout(hidden, self.dropout, self.training)
        return torch.nn.functional.linear(hidden, self.weight, self.bias)
