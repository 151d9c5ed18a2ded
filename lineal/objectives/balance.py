"""What keeps the experts of a mixture in use: the importance loss and the load loss (Shazeer et al. 2017, section 4,
appendices A and B).

Both are w CV(v)^2 = w Var(v) / mean(v)^2 with the population variance: 0 when all experts are treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.gating import Gating, Routing


def cv_squared(value_E: Float[Tensor, " E"]) -> Float[Tensor, ""]:
    """CV^2 = Var(v) / mean(v)^2, variance over E (not E - 1)."""
    return value_E.var(correction=0) / value_E.mean().square()


def importance(routing: Routing) -> Float[Tensor, " E"]:
    """Importance(X) = sum over tokens of G(x); with groups sum of G_primary(x)_i G_i(x)_j."""
    flat_M, weight_M = routing.expert_NK.flatten(), routing.weight_NK.flatten()
    zero_E = weight_M.new_zeros(routing.config.count)
    return zero_E.index_add(0, flat_M.clamp_min(0), weight_M)


def chance(gating: Gating) -> Float[Tensor, "N E"]:
    """P(x, i) = Phi(((x W_g)_i - kth_excluding(H(x), k, i)) / softplus((x W_noise)_i)): how likely expert i is among the
    k chosen if its own noise alone is drawn anew.

    kth_excluding is the k-th greatest of the other components of H(x); where there are fewer than k others, P is 1.
    """
    if gating.scale_NE is None:
        raise UsageError(
            "the load loss needs noisy gating: without noise nothing says how near a choice was."
        )
    chosen = gating.chosen_NK.shape[1]
    if chosen >= gating.noisy_NE.shape[1]:
        return torch.ones_like(gating.clean_NE)
    top_NK, index_NK = gating.noisy_NE.topk(chosen + 1, sorted=True)
    inside_NE = torch.zeros_like(gating.noisy_NE, dtype=torch.bool).scatter(1, index_NK[:, :chosen], True)
    # One that is among the k leaves the (k+1)-th as the k-th of the others; for any other one it is the k-th itself.
    kth_NE = torch.where(inside_NE, top_NK[:, chosen:], top_NK[:, chosen - 1 : chosen])
    return torch.special.ndtr((gating.clean_NE - kth_NE) / gating.scale_NE)


Total = Callable[[Tensor], Tensor]
"""Adds a tensor up over the processes that share a batch; gradients flow back to each."""


def smooth_load(routing: Routing, total: Total = lambda x: x) -> Float[Tensor, " E"]:
    """Load(X)_i = sum over tokens of P(x, i); with groups Load_primary(X)_i Load_i(X^(i))_j / |X^(i)|, where X^(i) are the
    tokens sent to group i. Of the tokens of all processes."""
    load_E = total(chance(routing.primary).sum(0))
    if routing.secondary is None or routing.group_M is None:
        return load_E
    config = routing.config
    inner_AB = load_E.new_zeros(config.groups, config.per_group)
    inner_AB = total(inner_AB.index_add(0, routing.group_M, chance(routing.secondary)))
    sent_A = total(torch.bincount(routing.group_M, minlength=config.groups).to(load_E.dtype))
    return (load_E[:, None] * inner_AB / sent_A.clamp_min(1)[:, None]).flatten()


@dataclass(frozen=True)
class Balance:
    """w_importance CV(Importance)^2 + w_load CV(Load)^2, summed over the mixture layers.

    The paper's weights are 0.1 and 0.1. A gate without noise has no smooth load: its load weight must be 0.
    """

    importance: float = 0.1
    load: float = 0.1

    def __post_init__(self) -> None:
        for name in ("importance", "load"):
            weight = getattr(self, name)
            if not 0 <= weight < float("inf"):
                raise UsageError(
                    f"the weight of the {name} loss is {weight:g}: it must be 0 (off) or more, for a negative one would "
                    "reward using few experts."
                )

    def __call__(self, routings: Sequence[Routing], total: Total = lambda x: x) -> Float[Tensor, ""]:
        """The loss of one pass through a model's mixture layers; `total` adds up over the processes."""
        parts = []
        for routing in routings:
            if self.importance:
                parts.append(self.importance * cv_squared(total(importance(routing))))
            if self.load:
                parts.append(self.load * cv_squared(smooth_load(routing, total)))
        return torch.stack(parts).sum() if parts else torch.zeros(())
