"""Small heads on a decoder's hidden states."""

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
