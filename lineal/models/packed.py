"""Products with a weight that will not change for a while, laid out once for the matrix kernels of a CPU.

Decoding multiplies few rows with every weight of the model, again and again. The ordinary kernel rearranges the
weight on each call; oneDNN can keep it rearranged. Measured on one core (AMD Zen 4, float32, the six layers of a
width-256 model whose weights do not fit the inner caches): 1 row 2.2 -> 1.35 ms, 8 rows 3.3 -> 2.1, 32 rows
7.5 -> 4.85, 512 rows 72 -> 60. A small weight is quicker as it is: each oneDNN call costs about 10 us more.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALLEST = 1 << 17
"""Weights with fewer elements are not packed: a call's fixed cost would outweigh what packing saves."""


class Product:
    """x W' + b (+ residual), reading the weight where it is."""

    def __init__(self, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None = None):
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self._turned = self.weight.t()

    def __call__(
        self, x: Float[Tensor, "B N"], residual: Float[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M"]:
        """One matrix product; the residual is added by the same kernel."""
        if residual is None:
            return F.linear(x, self.weight, self.bias)
        total = torch.addmm(residual, x, self._turned)
        return total if self.bias is None else total.add_(self.bias)

    def packed(self) -> Product:
        """The same product from a rearranged copy of the weight as it is now; itself where that would not pay."""
        weight = self.weight
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and type(weight) is Tensor
        if not plain or weight.numel() < SMALLEST or not can_pack():
            return self
        return PackedProduct(weight, self.bias)


class PackedProduct(Product):
    """x W' + b (+ residual) from a rearranged copy: what later happens to the weight does not reach it."""

    def __init__(self, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None = None):
        super().__init__(weight, bias)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(
        self, x: Float[Tensor, "B N"], residual: Float[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M"]:
        """One matrix product; the residual is added by the same kernel."""
        multiply = torch.ops.mkldnn._linear_pointwise
        if residual is None:
            return multiply(x, self._packed, self.bias, "none", [], "")
        return multiply.binary(x, residual, self._packed, self.bias, "add")


@cache
def can_pack() -> bool:
    """Whether this build of torch has oneDNN's packed product and it computes what it should (asked once)."""
    if not torch.backends.mkldnn.is_available():
        return False
    row = torch.linspace(-1, 1, 48)
    weight, x = torch.outer(row, row.flip(0) + 0.5), torch.stack((row, row.square()))
    try:
        packed = PackedProduct(weight, row)
        found = torch.stack((packed(x), packed(x, x)))
    except (RuntimeError, AttributeError, NotImplementedError):
        # The operators are internal to torch: another version may lack them.
        return False
    expected = F.linear(x, weight, row)
    return torch.allclose(found, torch.stack((expected, expected + x)), rtol=1e-4, atol=1e-5)
