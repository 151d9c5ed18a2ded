"""Many small feed-forward networks, each applied to the rows that were sent to it.

Rows are brought into the order of their experts by one permutation, every expert multiplies its own slice, and the
same permutation brings the results back: no padding, no row computed that nobody asked for. On a CPU a loop over
`weight.unbind(0)` is quickest (`weight[i]` would cost a gradient of the whole size per expert: 2-3 times slower), on
a GPU `grouped_mm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.models.experts_loop import experts_loop


class _Permuted(torch.autograd.Function):
    """x[order]; its gradient is g[back], a copy too, where torch would add rows up one by one."""

    @staticmethod
    def forward(x_MD: Tensor, order_M: Tensor, back_M: Tensor) -> Tensor:
        return x_MD.index_select(0, order_M)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, order_M, back_M = inputs
        ctx.save_for_backward(order_M, back_M)

    @staticmethod
    def backward(ctx, *grad_MD: Tensor):
        order_M, back_M = ctx.saved_tensors
        return _Permuted.apply(grad_MD[0], back_M, order_M), None, None


@dataclass(frozen=True)
class Dispatch:
    """Where the rows of N tokens with K places each go, sorted by expert; places that nobody took come last.

    order_M: the place (token * K + place) of each sorted row. back_M: the sorted row of each place. size_E: rows of
    each expert. copies: K.
    """

    order_M: Int[Tensor, " M"]
    back_M: Int[Tensor, " M"]
    size_E: Int[Tensor, " E"]
    copies: int

    @staticmethod
    def of(expert_NK: Int[Tensor, "N K"], experts: int) -> Dispatch:
        """The order of places by expert; -1 (taken by none) goes to the end."""
        flat_M = expert_NK.flatten()
        flat_M = torch.where(flat_M < 0, experts, flat_M)
        order_M = flat_M.argsort(stable=True)
        back_M = torch.empty_like(order_M)
        back_M[order_M] = torch.arange(len(order_M), device=order_M.device)
        size_E = torch.bincount(flat_M, minlength=experts + 1)[:experts]
        return Dispatch(order_M, back_M, size_E, expert_NK.shape[1])

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each expert, on the host."""
        return self.size_E.tolist()

    def scatter(self, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "M D"]:
        """Each token's row at each of its places, sorted by expert."""
        return _Permuted.apply(x_ND.repeat_interleave(self.copies, 0), self.order_M, self.back_M)

    def gather(self, y_MD: Float[Tensor, "R D"], weight_NK: Float[Tensor, "N K"]) -> Float[Tensor, "N D"]:
        """sum over places of weight * result; the rows past those given (places nobody took) count as 0."""
        short = len(self.order_M) - len(y_MD)
        if short:
            y_MD = torch.cat((y_MD, y_MD.new_zeros(short, y_MD.shape[1])))
        y_NKD = _Permuted.apply(y_MD, self.back_M, self.order_M).unflatten(0, (-1, self.copies))
        return (y_NKD * weight_NK.to(y_MD.dtype)[..., None]).sum(1)


def grouped_product(
    x_MD: Float[Tensor, "M D"],
    weight_EFD: Float[Tensor, "E F D"],
    size_E: Int[Tensor, " E"],
) -> Float[Tensor, "M F"]:
    """x W_e' for the rows of each expert, which lie one after another."""
    if x_MD.is_cuda and has_grouped(x_MD.device.index or 0) and _fits(x_MD, weight_EFD):
        kind = _kind(x_MD)
        ends_E = size_E.cumsum(0).to(torch.int32)
        return F.grouped_mm(x_MD.to(kind), weight_EFD.to(kind).transpose(1, 2), offs=ends_E)
    parts = zip(x_MD.split(size_E.tolist()), weight_EFD.unbind(0))
    return _stacked([F.linear(part, own) for part, own in parts if len(part)], x_MD, weight_EFD.shape[1])


def _stacked(parts: list[Tensor], x_MD: Tensor, width: int) -> Tensor:
    return torch.cat(parts) if parts else x_MD.new_zeros(0, width)


def _kind(x: Tensor) -> torch.dtype:
    # grouped_mm does not follow autocast by itself.
    on = torch.is_autocast_enabled(x.device.type)
    return torch.get_autocast_dtype(x.device.type) if on else x.dtype


def _fits(x_MD: Tensor, weight_EFD: Tensor) -> bool:
    """grouped_mm is for bfloat16, and reads rows of whole 16 bytes."""
    whole = all(size % 8 == 0 for size in weight_EFD.shape[1:])
    return _kind(x_MD) == torch.bfloat16 and whole and len(x_MD) > 0


@cache
def has_grouped(device: int = 0) -> bool:
    """Whether this torch has `grouped_mm` and this GPU can run it (asked once)."""
    if not hasattr(F, "grouped_mm") or not torch.cuda.is_available():
        return False
    place = torch.device("cuda", device)
    x_MD = torch.ones(16, 16, dtype=torch.bfloat16, device=place)
    weight_EDF = torch.ones(2, 16, 16, dtype=torch.bfloat16, device=place).transpose(1, 2)
    try:
        found = F.grouped_mm(x_MD, weight_EDF, offs=torch.tensor([4, 16], dtype=torch.int32, device=place))
    except (RuntimeError, NotImplementedError):
        return False
    return bool((found == 16).all())


class Experts(nn.Module):
    """E feed-forward networks of one hidden layer, without biases: down(relu(up x)), or with swiglu
    down(silu(gate x) * up x), gate and up as one matrix.

    up [E, F, D] ([E, 2 F, D] with swiglu: the gate's rows first), down [E, D, F], as transformers 5 holds them.
    Where several processes share the experts (`share`), each holds a slice of them, and rows travel to them and back.
    """

    def __init__(self, count: int, width: int, inner: int, activation: str = "swiglu"):
        super().__init__()
        self.count, self.gated = count, activation == "swiglu"
        self.up = nn.Parameter(torch.zeros(count, inner * (2 if self.gated else 1), width))
        self.down = nn.Parameter(torch.zeros(count, width, inner))

    def forward(
        self, x_ND: Float[Tensor, "N D"], expert_NK: Int[Tensor, "N K"], weight_NK: Float[Tensor, "N K"]
    ) -> Float[Tensor, "N D"]:
        """sum over places k of weight[k] * expert[k](x); -1 in the place of an expert adds nothing."""
        dispatch = Dispatch.of(expert_NK, self.count)
        if x_ND.is_cuda or is_shared(self.up):
            return self._composed(dispatch, x_ND, weight_NK, self.up, self.down)
        compose = partial(self._composed, dispatch)
        return experts_loop(x_ND, weight_NK, (self.up, self.down), dispatch, self.gated, compose)

    def _composed(
        self, dispatch: Dispatch, x_ND: Tensor, weight_NK: Tensor, up_EFD: Tensor, down_EDF: Tensor
    ) -> Tensor:
        x_MD = dispatch.scatter(x_ND)[: sum(dispatch.sizes)]
        if not is_shared(up_EFD):
            return dispatch.gather(self.compute(x_MD, up_EFD, down_EDF, dispatch.size_E), weight_NK)
        from lineal.models.parallel import exchanged

        return dispatch.gather(exchanged(self.compute, x_MD, dispatch.size_E, up_EFD, down_EDF), weight_NK)

    def compute(self, x_MD: Tensor, up_EFD: Tensor, down_EDF: Tensor, size_E: Tensor) -> Tensor:
        """The results of rows that lie one expert after another."""
        if x_MD.is_cuda:
            return grouped_product(self.active(grouped_product(x_MD, up_EFD, size_E)), down_EDF, size_E)
        parts = zip(x_MD.split(size_E.tolist()), up_EFD.unbind(0), down_EDF.unbind(0))
        # An expert that nobody chose costs nothing: one token of a decoding step meets few of them.
        results = [F.linear(self.active(F.linear(part, up)), down) for part, up, down in parts if len(part)]
        return _stacked(results, x_MD, x_MD.shape[1])

    def active(self, hidden: Tensor) -> Tensor:
        """The activation between the two products."""
        if not self.gated:
            return F.relu(hidden)
        gate, up = hidden.chunk(2, -1)
        return F.silu(gate) * up


def is_shared(parameter: Tensor) -> bool:
    """Whether several processes hold a slice of it each (a DTensor)."""
    return hasattr(parameter, "device_mesh")
