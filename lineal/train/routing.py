"""Mixtures of experts in training: their noise as a function of (seed, step, token), and what they did as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lineal.generate.random import row_key, uniform_int
from lineal.models.gating import ExpertsConfig, Noise, Routes, Routing
from lineal.objectives.balance import Balance, Total, cv_squared, importance
from lineal.optim.groups import Scale
from lineal.train.distributed import Ranks

GATING = 1 << 41
"""Sets the keys of gating noise apart from those of samples."""
OUTPUTS = 1 << 22
"""More than the outputs of any gate: token t's number for output e is t * OUTPUTS + e."""


def gating_noise(seed: int, step: int) -> Noise:
    """Standard normal numbers for (layer, token, output of the gate), the same whoever shares the batch.

    Phi^-1((u + 1/2) / 2^52) of the counter-based uniform integer u, so that no generator state exists.
    """

    def normal(layer: int, position_N: Tensor, number_NE: Tensor) -> Tensor:
        # What follows needs float64, which Apple's GPUs lack.
        place = position_N.cpu() if position_N.device.type == "mps" else position_N
        key = torch.tensor(row_key(seed, step, GATING + layer), device=place.device)
        uniform_NE = uniform_int(key, place[:, None] * OUTPUTS + number_NE.to(place.device))
        share_NE = (uniform_NE.double() + 0.5) / (1 << 52)
        return torch.special.ndtri(share_NE).float().to(position_N.device)

    return normal


def expert_scale(experts: ExpertsConfig, asked: float | None) -> Scale:
    """The learning rate of experts as a share of the others', by a parameter's name.

    asked: the share; None: sqrt(active / count). An expert's gradient is of so many times fewer tokens, and Adam's rate goes with
    the root of the batch (Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms").
    """
    share = math.sqrt(experts.active / experts.count) if asked is None else asked
    return lambda name: share if ".experts." in name else 1.0


class _Sum(torch.autograd.Function):
    """The sum over processes; the gradient of each is the sum of all of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum(x)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        return ctx.ranks.sum(grads[0]), None


def total_of(ranks: Ranks, counts: bool = True) -> Total:
    """Adds up over processes, gradients included; a process whose rows do not count (a filler) adds nothing."""
    if ranks.world == 1:
        return lambda x: x
    return lambda x: _Sum.apply(x if counts else 0 * x, ranks)


def together_of(ranks: Ranks, counts: bool = True) -> Callable[[Tensor], tuple[Tensor, slice | None]] | None:
    """Gives the rows of all processes, and where one's own stand; a filler gives none of its own."""
    if ranks.world == 1:
        return None

    def gather(rows_NC: Tensor) -> tuple[Tensor, slice | None]:
        own_NC = rows_NC if counts else rows_NC[:0]
        parts = [part.view(-1, rows_NC.shape[1]) for part in ranks.gather(own_NC.flatten())]
        first = sum(len(part) for part in parts[: ranks.rank])
        return torch.cat(parts), slice(first, first + len(own_NC)) if counts else None

    return gather


@dataclass
class RoutingSums:
    """What mixture layers did with the tokens of a step, summed: [mixture layers, experts]."""

    importance_LE: Tensor | None = None
    load_LE: Tensor | None = None
    wanted: float = 0.0
    refused: float = 0.0
    balance: float = 0.0

    def add(self, routings: list[Routing]) -> None:
        """One micro-batch of this process."""
        if not routings:
            return
        with torch.no_grad():
            own_LE = torch.stack([importance(routing) for routing in routings])
            load_LE = torch.stack([hard_load(routing) for routing in routings])
        self.importance_LE = own_LE if self.importance_LE is None else self.importance_LE + own_LE
        self.load_LE = load_LE if self.load_LE is None else self.load_LE + load_LE
        self.wanted += sum(routing.expert_NK.numel() for routing in routings)
        self.refused += sum(float((routing.expert_NK < 0).sum()) for routing in routings)

    def metrics(self, ranks: Ranks) -> dict[str, float]:
        """Means over the layers: CV^2 of importance and of load, most over mean load, and the share of places refused."""
        if self.importance_LE is None or self.load_LE is None:
            return {}
        importance_LE, load_LE = ranks.sum(self.importance_LE), ranks.sum(self.load_LE)
        wanted, refused = ranks.sum(torch.tensor([self.wanted, self.refused], dtype=torch.float64)).tolist()
        most_L = load_LE.amax(1) / load_LE.mean(1)
        return {
            "routing/importance_cv2": float(torch.stack([cv_squared(x) for x in importance_LE]).mean()),
            "routing/load_cv2": float(torch.stack([cv_squared(x) for x in load_LE]).mean()),
            "routing/max_over_mean": float(most_L.mean()),
            "routing/dropped": refused / wanted,
            "balance_loss": self.balance,
        }


def hard_load(routing: Routing) -> Tensor:
    """Tokens that each expert took [E]."""
    taken_M = routing.expert_NK[routing.expert_NK >= 0]
    return torch.bincount(taken_M, minlength=routing.config.count).to(routing.weight_NK.dtype)


@dataclass
class Balanced:
    """The part of a step's loss that keeps experts in use, and the step's statistics.

    losses: the two weights. seed, step: of the noise. Made anew for every step.
    """

    losses: Balance
    seed: int
    step: int
    sums: RoutingSums = field(default_factory=RoutingSums)

    def routes(
        self, rows: Sequence[int], block: int, device: torch.device, ranks: Ranks, counts: bool = True
    ) -> Routes:
        """What a pass over some rows of the step's batch tells the mixture layers: rows * block + place is a token's
        number. counts: False for a filler, whose tokens take no expert's room."""
        row_B = torch.tensor(list(rows), device=device)
        position_N = (row_B[:, None] * block + torch.arange(block, device=device)).flatten()
        noise, together = gating_noise(self.seed, self.step), together_of(ranks, counts)
        return Routes(noise, limited=True, position_N=position_N, together=together)

    def loss(self, routes: Routes, ranks: Ranks, share: float, counts: bool = True) -> Tensor:
        """This process's part of `share` times the balance loss of what passed; the parts of all processes add up."""
        whole = self.losses(routes.routing, total_of(ranks, counts)) * share
        if counts:
            self.sums.add(routes.routing)
        self.sums.balance += float(whole.detach())
        return whole / ranks.world
