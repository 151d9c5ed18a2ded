"""The experts' work on a CPU in one piece: forward and backward by a loop over experts, written into memory once.

`Experts.compute` between `Dispatch.scatter` and `gather` is the definition; this is the same arithmetic without what
autograd keeps and copies between its steps. A test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from lineal.models.experts import Dispatch

Compose = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x_ND, weight_NK, up, down) -> result, by steps that autograd can follow twice."""


class _Loop(torch.autograd.Function):
    """`experts_loop`, and its gradient; second derivatives go through `compose`."""

    @staticmethod
    def forward(ctx, x_ND, weight_NK, up_EFD, down_EDF, dispatch, gated, compose):
        order_M, back_M, sizes = dispatch.order_M, dispatch.back_M, dispatch.sizes
        kind, rows = _kind(x_ND), sum(sizes)
        with _plainly(x_ND):
            rows_MD = x_ND.to(kind).index_select(0, order_M[:rows] // weight_NK.shape[1])
            hidden_MF = rows_MD.new_empty(rows, up_EFD.shape[1])
            y_MD = rows_MD.new_empty(len(order_M), rows_MD.shape[1])
            y_MD[rows:].zero_()
            own = _owned(sizes, up_EFD, down_EDF, kind)
            for part, _, up, down in own:
                torch.mm(rows_MD[part], up.t(), out=hidden_MF[part])
                torch.mm(_active(hidden_MF[part], gated), down.t(), out=y_MD[part])
            y_NKD = y_MD.index_select(0, back_M).view(*weight_NK.shape, x_ND.shape[1])
            y_ND = _weighted(y_NKD, weight_NK)
        ctx.save_for_backward(x_ND, weight_NK, up_EFD, down_EDF, order_M, back_M, rows_MD, hidden_MF, y_NKD)
        ctx.sizes, ctx.gated, ctx.own, ctx.compose = sizes, gated, own, compose
        return y_ND

    @staticmethod
    def backward(ctx, *grads: Tensor):
        inputs = ctx.saved_tensors[:4]
        if torch.is_grad_enabled():
            return *_twice(ctx, inputs, grads[0]), *(None,) * 3
        x_ND, weight_NK, up_EFD, down_EDF, order_M, back_M, rows_MD, hidden_MF, y_NKD = ctx.saved_tensors
        rows, kind = len(rows_MD), rows_MD.dtype
        with _plainly(rows_MD):
            grad_ND = grads[0].to(kind)
            dweight_NK = torch.bmm(y_NKD, grad_ND[:, :, None])[:, :, 0].to(weight_NK.dtype)
            sorted_M1 = weight_NK.to(kind).reshape(-1, 1).index_select(0, order_M[:rows])
            grad_MD = grad_ND.index_select(0, order_M[:rows] // weight_NK.shape[1]).mul_(sorted_M1)
            dx_MD = rows_MD.new_empty(len(order_M), rows_MD.shape[1])
            dx_MD[rows:].zero_()
            dup, ddown = torch.empty_like(up_EFD), torch.empty_like(down_EDF)
            for e in (e for e, size in enumerate(ctx.sizes) if not size):
                dup[e].zero_()
                ddown[e].zero_()
            for part, e, up, down in ctx.own:
                grad, hidden = grad_MD[part], hidden_MF[part]
                dactive = torch.mm(grad, down)
                active, dhidden = _activated(hidden, dactive, ctx.gated)
                _product(grad.t(), active, ddown[e])
                _product(dhidden.t(), rows_MD[part], dup[e])
                torch.mm(dhidden, up, out=dx_MD[part])
            dx_ND = dx_MD.index_select(0, back_M).view(*weight_NK.shape, x_ND.shape[1]).sum(1)
        return dx_ND.to(x_ND.dtype), dweight_NK, dup, ddown, *(None,) * 3


def experts_loop(
    x_ND: Tensor,
    weight_NK: Tensor,
    matrices: tuple[Tensor, Tensor],
    dispatch: Dispatch,
    gated: bool,
    compose: Compose,
) -> Tensor:
    """sum over places of weight * down(act(up x)); `compose` says the same in plain operations, for second derivatives.

    matrices: up [E, F, D] and down [E, D, F]. gated: swiglu, else ReLU.
    """
    return _Loop.apply(x_ND, weight_NK, *matrices, dispatch, gated, compose)  # type: ignore[return-value]


def _weighted(y_NKD: Tensor, weight_NK: Tensor) -> Tensor:
    return torch.bmm(weight_NK.to(y_NKD.dtype)[:, None], y_NKD)[:, 0]


def _kind(x: Tensor) -> torch.dtype:
    on = torch.is_autocast_enabled(x.device.type)
    return torch.get_autocast_dtype(x.device.type) if on and x.dtype != torch.float64 else x.dtype


def _plainly(x: Tensor) -> AbstractContextManager:
    return torch.autocast(x.device.type, enabled=False)


def _owned(
    sizes: list[int], up_EFD: Tensor, down_EDF: Tensor, kind: torch.dtype
) -> list[tuple[slice, int, Tensor, Tensor]]:
    """For each expert that has rows: which, its number, and its matrices in the type of the products."""
    found, start = [], 0
    for e, size in enumerate(sizes):
        if size:
            found.append((slice(start, start + size), e, up_EFD[e].to(kind), down_EDF[e].to(kind)))
        start += size
    return found


def _active(hidden: Tensor, gated: bool) -> Tensor:
    """The activation; of a ReLU in place, for its sign is all that its gradient needs."""
    if not gated:
        return hidden.relu_()
    gate, up = hidden.chunk(2, -1)
    return F.silu(gate).mul_(up)


def _activated(hidden: Tensor, dactive: Tensor, gated: bool) -> tuple[Tensor, Tensor]:
    """The activation again, and the gradient of what went into it; `dactive` is used up."""
    if not gated:
        return hidden, torch.ops.aten.threshold_backward(dactive, hidden, 0)
    gate, up = hidden.chunk(2, -1)
    smooth = F.silu(gate)
    dhidden = torch.empty_like(hidden)
    dgate, dup = dhidden.chunk(2, -1)
    torch.mul(dactive, smooth, out=dup)
    dgate.copy_(torch.ops.aten.silu_backward(dactive.mul_(up), gate))
    return smooth.mul_(up), dhidden


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(torch.mm(a, b))


def _twice(ctx, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [tensor for tensor, need in zip(inputs, ctx.needs_input_grad) if need]
    result = ctx.compose(*inputs)
    found = iter(torch.autograd.grad(result, wanted, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in ctx.needs_input_grad[:4])
