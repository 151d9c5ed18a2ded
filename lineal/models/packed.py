"""Products with a weight that stands still for a while, laid out for the few rows of a decoding step on a CPU.

Decoding multiplies few rows with every weight of the model, again and again, so fetching and rearranging weights is
most of the work. Measured on one core (AMD Zen 4, float32, six layers of width 256, whose weights do not fit the
inner caches), all products of a step: 1 row as stored 2.2 ms, transposed 1.4, packed by oneDNN 1.35; 8 rows 3.3,
3.2, 2.1; 32 rows 7.5, 6.5, 4.9; 512 rows 72, 68, 60. With two threads and four layers, transposed and packed: 1 row 0.43
and 0.43 ms, 2 rows 0.72 and 0.43, 32 rows 2.5 and 1.5, 64 rows 4.0 and 2.7. A small weight is quicker unpacked: a call of
the packed product costs about 10 us more.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

PACK_ABOVE = 1 << 15
"""Elements; a smaller weight gains less from packing than each call of the packed product costs more."""

FEW = 2
"""Rows below which a transposed copy is as quick as a packed one."""

PACK_AFTER = 2
"""Calls before a weight is packed. Packing costs what four products of 64 rows gain by it, so the shortest work, a token
or two, never pays for it."""


class Product:
    """x W' + b (+ residual) for a weight and bias as they are now; good until they change.

    A weight with more outputs than inputs is copied transposed at once, a large one packed after some calls. half: it is
    packed in bfloat16, which a processor with such products multiplies 1.4 to 1.7 times as fast from 32 rows on; the result
    is float32 again, rounded as under autocast.
    """

    def __init__(
        self, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None = None, half: bool = False
    ):
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        wide = weight.shape[0] > weight.shape[1] and weight.device.type == "cpu"
        self._turned = self.weight.t().contiguous() if wide else self.weight.t()
        self._packed: Tensor | None = None
        suits = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() > PACK_ABOVE
        self._kind = torch.bfloat16 if half and can_pack(torch.bfloat16) else torch.float32
        self._calls_left = PACK_AFTER if suits and can_pack() else -1

    @property
    def turned(self) -> Tensor:
        """The weight as inputs by outputs: a copy if it is wide, else a view."""
        return self._turned

    @property
    def is_packed(self) -> bool:
        """Whether calls with many rows use a packed copy."""
        return self._packed is not None

    def pack(self) -> None:
        """Make the packed copy, which calls with `FEW` rows or more use from now on."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.to(self._kind))

    def __call__(
        self, x: Float[Tensor, "B N"], residual: Float[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M"]:
        """One matrix product; the residual is added by the same kernel."""
        if x.shape[0] >= FEW and self._calls_left >= 0:
            if self._packed is not None:
                if self._kind == torch.float32:
                    return _packed_product(x, self._packed, self.bias, residual)
                product = _packed_product(x.bfloat16(), self._packed, None, None).float()
                for term in (self.bias, residual):
                    product = product if term is None else product.add_(term)
                return product
            self._calls_left -= 1
            if self._calls_left == 0:
                self.pack()
        if residual is None:
            return torch.mm(x, self._turned) if self.bias is None else torch.addmm(self.bias, x, self._turned)
        total = torch.addmm(residual, x, self._turned)
        return total if self.bias is None else total.add_(self.bias)


def _packed_product(x: Tensor, packed: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    if residual is None:
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return torch.ops.mkldnn._linear_pointwise.binary(x, residual, packed, bias, "add")


@cache
def can_pack(kind: torch.dtype = torch.float32) -> bool:
    """Whether this build of torch has oneDNN's packed product and it computes what it should (asked once)."""
    if not torch.backends.mkldnn.is_available():
        return False
    row = torch.linspace(-1, 1, 48)
    weight, x = torch.outer(row, row.flip(0) + 0.5), torch.stack((row, row.square()))
    if kind == torch.bfloat16:
        return _multiplies_halves(weight, x)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        found = torch.stack([_packed_product(x, packed, row, residual) for residual in (None, x)])
    except (RuntimeError, AttributeError, NotImplementedError):
        # The operators are internal to torch: another version may lack them.
        return False
    expected = F.linear(x, weight, row)
    return torch.allclose(found, torch.stack((expected, expected + x)), rtol=1e-4, atol=1e-5)


def _multiplies_halves(weight: Tensor, x: Tensor) -> bool:
    # Elsewhere bfloat16 is emulated, and slower than float32.
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16())
        found = _packed_product(x.bfloat16(), packed, None, None)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found.float(), F.linear(x, weight), rtol=0.05, atol=0.05)
