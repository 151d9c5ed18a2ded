"""Experts spread over processes: rows travel to the process that holds their expert, and their results travel back.

A process holds experts rank * E / W to (rank + 1) * E / W - 1 as the local part of a DTensor. Everything else of the
model is data-parallel, so the experts see the batches of all processes combined (the paper's section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor


class _Exchanged(torch.autograd.Function):
    """Rows sent to each process, rows received from each; the gradient travels the other way."""

    @staticmethod
    def forward(ctx, x_MD: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.got, ctx.group = sent, got, group
        out_RD = x_MD.new_empty((sum(got), *x_MD.shape[1:]))
        dist.all_to_all_single(out_RD, x_MD.contiguous(), got, sent, group=group)
        return out_RD

    @staticmethod
    def backward(ctx, *grad_RD: Tensor):
        return _Exchanged.apply(grad_RD[0], ctx.got, ctx.sent, ctx.group), None, None, None


def exchanged(
    compute: Callable[..., Tensor], x_MD: Tensor, size_E: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    """The experts' results for this process's rows (sorted by expert), wherever the experts are.

    compute: (rows, up, down, rows of each local expert) -> results, on the local slices.
    """
    group = up.device_mesh.get_group()  # type: ignore[attr-defined]
    world, local = dist.get_world_size(group), len(up.to_local())  # type: ignore[attr-defined]
    # How many rows of each of its experts every process sends: [world, local].
    there_WE = torch.empty_like(size_E)
    dist.all_to_all_single(there_WE, size_E.contiguous(), group=group)
    there_WE = there_WE.view(world, local)
    sent = size_E.view(world, local).sum(1).tolist()
    got = there_WE.sum(1).tolist()
    rows_RD = _Exchanged.apply(x_MD, sent, got, group)
    # They come sorted by sender, then expert; the products want them by expert.
    expert_R = torch.arange(local, device=x_MD.device).repeat(world).repeat_interleave(there_WE.flatten())
    order_R = expert_R.argsort(stable=True)
    result_RD = compute(rows_RD.index_select(0, order_R), up.to_local(), down.to_local(), there_WE.sum(0))  # type: ignore[attr-defined]
    return _Exchanged.apply(result_RD.index_select(0, order_R.argsort()), got, sent, group)
