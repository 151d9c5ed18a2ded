"""Several processes of one run: who they are, what they tell each other, and how they share rows.

torchrun starts them; here they only find each other. Everything that must be equal on all of them (prompts, rewards,
advantages, weights, decisions) is gathered, so that each process prepares the same global batch and takes its own rows
of it. Nothing that travels is a pickle: tensors go as they are, everything else as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from io import TextIOBase
from typing import Any, TextIO

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from lineal.errors import LinealError, UsageError
from lineal.train.device import pick_device
from lineal.train.peers import DONE, FAILED, Peers

TIMEOUT = timedelta(minutes=30)
"""Longest wait of one process for the others; rank 0 may be writing a checkpoint, or a reward may be slow."""
BUCKET = 1 << 24
"""Most numbers that travel in one sum of gradients: the copy that it needs stays small beside the model."""


@dataclass(frozen=True)
class Ranks:
    """This process (`rank`) among `world`; alone, every method gives back what it was given and nothing is sent."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    @property
    def voice(self) -> TextIO | TextIOBase:
        """Where progress is shown: standard error for the first process, nowhere for the others."""
        return sys.stderr if self.first else open(os.devnull, "w")

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all processes; each gets the same bits."""
        if self.world == 1:
            return x
        total = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def add_up(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each named number summed over all processes, which must name the same ones; one message."""
        if self.world == 1 or not sums:
            return dict(sums)
        wide = torch.float32 if next(iter(sums.values())).device.type == "mps" else torch.float64
        packed_N = self.sum(torch.stack([value.detach().to(wide).reshape(()) for value in sums.values()]))
        return dict(zip(sums, packed_N.unbind(0), strict=True))

    def any(self, *flags: bool) -> list[bool]:
        """Each flag as True on all processes when it is True on one of them: decisions that the clock or a signal makes."""
        if self.world == 1:
            return list(flags)
        found_N = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(found_N, dist.ReduceOp.MAX)
        return [bool(flag) for flag in found_N.tolist()]

    def gather(self, x_N: Tensor) -> list[Tensor]:
        """The vector of every process, in their order; they may differ in length."""
        if self.world == 1:
            return [x_N]
        sizes = torch.zeros(self.world, dtype=torch.int64)
        sizes[self.rank] = len(x_N)
        length_W = self.sum(sizes).tolist()
        padded_N = x_N.new_zeros(max(length_W))
        padded_N[: len(x_N)] = x_N
        found = [torch.empty_like(padded_N) for _ in length_W]
        dist.all_gather(found, padded_N)
        return [part[:length] for part, length in zip(found, length_W, strict=True)]

    def gather_json(self, value: Any) -> list[Any]:
        """The JSON value of every process, in their order; numbers arrive exactly as they left."""
        if self.world == 1:
            return [value]
        return [json.loads(bytes(part.numpy())) for part in self.gather(_encoded(value))]

    def tell(self, value: Any) -> Any:
        """The first process's JSON value, on every process; the others' own is ignored."""
        if self.world == 1:
            return value
        size = torch.zeros(1, dtype=torch.int64)
        text_N = _encoded(value if self.first else None)
        if self.first:
            size[0] = len(text_N)
        dist.broadcast(size, 0)
        text_N = text_N if self.first else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(text_N, 0)
        return json.loads(bytes(text_N.numpy()))

    def mine(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's share of some items: every world-th."""
        return items[self.rank :: self.world]


ALONE = Ranks()
"""One process, the default everywhere."""


def _encoded(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def world_size() -> int:
    """How many processes torchrun started; 1 outside of it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """This process's place among those that torchrun started; alone, or inside another `joined`, nothing happens.

    device: "cpu" keeps to gloo; otherwise each process takes the GPU of its local rank, and nccl. Leaving waits for the
    others, unless by an error: then they end too. One that dies ends all of them, and the first left names it.
    """
    if world_size() == 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    with _deadly_signals():
        shared, rank, world = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        # After --max-restarts the store may still hold the addresses of those who died.
        store = PrefixStore(f"lineal/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", shared)
        dist.init_process_group(_backend(device), store=store, rank=rank, world_size=world, timeout=TIMEOUT)
        ranks = Ranks(rank, world)
        here = int(os.environ.get("GROUP_RANK", "0"))
        seats = [tuple(seat) for seat in ranks.gather_json([here, os.getpid()])]
    peers = Peers(rank, seats, lambda other: _word(store, other))
    try:
        yield ranks
    except SystemExit:
        # All of them agreed to stop at this step.
        _leave(ranks, store, peers)
        raise
    except Exception as error:
        if not isinstance(error, LinealError):
            # A broken connection is only the echo of another's end; whose it was, the watch knows in a moment.
            peers.judge()
        with suppress(Exception):
            store.set(_key(rank), FAILED)
        peers.close()
        raise
    _leave(ranks, store, peers)


def _leave(ranks: Ranks, store: Store, peers: Peers) -> None:
    store.set(_key(ranks.rank), DONE)
    ranks.any(True)
    peers.close()
    dist.destroy_process_group()


def _word(store: Store, rank: int) -> str:
    return store.get(_key(rank)).decode() if store.check([_key(rank)]) else ""


def _key(rank: int) -> str:
    return f"left/{rank}"


def _backend(device: str) -> str:
    if device == "mps" or (device == "auto" and pick_device() == "mps"):
        raise UsageError(
            "several processes share no Apple GPU: --device cpu, or one process without torchrun."
        )
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "gloo"
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise UsageError(
            f"process {local} of this machine finds {there} GPUs, and each process needs its own: "
            f"torchrun --nproc-per-node {max(1, there)}, or --device cpu."
        )
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


@contextmanager
def _deadly_signals() -> Iterator[None]:
    """Signals end the process as the system would: while the others are awaited there is no step to stop at."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deal(cost_N: Sequence[int], world: int) -> list[range]:
    """Consecutive items cut into `world` parts of about equal cost: none is off by more than one item's."""
    whole, before = max(1, sum(cost_N)), 0
    ends = [0] * world
    for item, cost in enumerate(cost_N):
        # An item belongs to the part in which its middle lies.
        ends[min(world - 1, world * (2 * before + cost) // (2 * whole))] = item + 1
        before += cost
    parts, start = [], 0
    for end in ends:
        parts.append(range(start, max(start, end)))
        start = parts[-1].stop
    return parts


def sum_gradients(parameters: Iterable[Tensor], ranks: Ranks) -> None:
    """Add up `.grad` over the processes, in place; sharded parameters are left alone, for theirs are summed already.

    A process that did not reach a parameter which another one did counts as zero; one that none of them reached has no
    gradient afterwards either, as in one process.
    """
    if ranks.world == 1:
        return
    own = [parameter for parameter in parameters if not is_sharded(parameter)]
    if not own:
        return
    reached_N = ranks.sum(torch.tensor([int(parameter.grad is not None) for parameter in own]))
    moved = [parameter for parameter, count in zip(own, reached_N.tolist(), strict=True) if count]
    for parameter in moved:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets(parameter.grad for parameter in moved if parameter.grad is not None):
        flat_N = ranks.sum(torch.cat([gradient.reshape(-1) for gradient in bucket]))
        for gradient, part in zip(bucket, flat_N.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def is_sharded(x: Tensor) -> bool:
    """Whether a tensor is spread over the processes (a DTensor)."""
    return hasattr(x, "device_mesh")


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(g.numel() for g in bucket) + gradient.numel() > BUCKET
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
