"""One policy spread over several processes (FSDP2): parameters, gradients and optimiser each held in parts.

The sampler, the scoring passes without gradients and the held-out figures use a whole copy, refreshed once per step,
so that decoding sends nothing. Second derivatives do not pass through sharded parameters: natural steps are replicated.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models.decoder import Decoder
from lineal.models.experts import Experts
from lineal.models.lstm import RecurrentModel
from lineal.train.console import note
from lineal.train.distributed import Ranks, is_sharded

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

M = TypeVar("M", bound=nn.Module)


def spread(
    module: M, ranks: Ranks, asked: bool, second_derivatives: bool = False, experts: bool = False
) -> M | None:
    """Shard a module over the processes where that is asked for and possible; returns its whole, frozen copy.

    experts: each process computes with its own part of the experts, and tokens travel to them (`shard`).

    None: the module stays as it is, whole in each process. That is so alone, and where second derivatives are needed,
    which do not pass through sharded parameters (one line says so).
    """
    if ranks.world == 1 or not asked:
        return None
    if second_derivatives:
        note(
            f"a natural step needs second derivatives, which do not pass through sharded parameters: each of the "
            f"{ranks.world} processes holds the whole model"
        )
        return None
    twin = copy.deepcopy(module).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    shard(module, ranks, experts)
    return twin


def shard(module: nn.Module, ranks: Ranks, experts: bool = False) -> None:
    """Spread a module over all processes, in place: each block of a decoder by itself, then what is left of it.

    experts: those of mixtures are dealt to the processes for good, instead of being gathered for every pass.
    Gradients come out summed over the processes, not averaged: the weights of a loss belong to the whole batch.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    # A value head returns a view, and nothing here writes into it.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(next(module.parameters()).device.type, (ranks.world,))
    dealt = deal_experts(module, mesh) if experts else set()
    roots = [part for part in module.modules() if isinstance(part, Decoder | RecurrentModel)]
    for decoder in roots:
        for block in decoder.blocks if isinstance(decoder, Decoder) else ():
            fully_shard(block, mesh=mesh, ignored_params=dealt)
        fully_shard(decoder, mesh=mesh, ignored_params=dealt)
    inside = {id(parameter) for decoder in roots for parameter in decoder.parameters()}
    for part in module.children():
        if any(id(parameter) not in inside for parameter in part.parameters()):
            fully_shard(part, mesh=mesh)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            # One division fewer, and gloo has no premultiplied sum.
            part.set_force_sum_reduction_for_comms(True)


def deal_experts(module: nn.Module, mesh: DeviceMesh) -> set[nn.Parameter]:
    """Give each process its part of every mixture's experts, in place; returns the parameters."""
    from torch.distributed.tensor import Shard, distribute_tensor

    dealt = set()
    for part in module.modules():
        if isinstance(part, Experts):
            if part.count % mesh.size():
                raise UsageError(
                    f"{part.count} experts cannot be dealt evenly to {mesh.size()} processes: start as many as divide them."
                )
            for name in ("up", "down"):
                whole_EFD = getattr(part, name).detach()
                own = nn.Parameter(distribute_tensor(whole_EFD, mesh, [Shard(0)], src_data_rank=None))
                setattr(part, name, own)
                dealt.add(own)
    return dealt


def settle(module: nn.Module) -> None:
    """Give back what a forward pass left unsharded, so that the module's parameters are its shards again."""
    for part in module.modules():
        give_back = getattr(part, "reshard", None)
        if give_back is not None:
            give_back()


@torch.no_grad()
def refresh(twin: nn.Module | None, module: nn.Module) -> None:
    """Copy a module's parameters into its copy, if it has one; where it is sharded every process must call it."""
    if twin is None:
        return
    settle(module)
    for mine, theirs in zip(twin.parameters(), module.parameters(), strict=True):
        mine.copy_(whole(theirs))


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all its parts, where it is sharded (then every process must ask); else itself."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def alike(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process holds, spread as `like` is; else itself."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    placed = tensor.to(like.device)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]


def gathered(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Tensors made whole one by one, on the first process's CPU; the others keep nothing."""
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        complete = whole(tensor.detach())
        if ranks.first:
            kept[name] = complete.cpu() if is_sharded(tensor) else complete
    return kept


def spread_state(optimiser: torch.optim.Optimizer) -> None:
    """Spread the whole tensors of an optimiser's state as the parameters they belong to."""
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.dim():
                values[name] = alike(value, parameter)
