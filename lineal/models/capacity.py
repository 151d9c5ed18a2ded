"""How much an expert may take, and where the tokens go that find it full."""

from __future__ import annotations

import math

import torch
from jaxtyping import Int
from torch import Tensor


def capacity_of(factor: float, choices: int, experts: int) -> int:
    """ceil(factor * choices / experts): tokens that one expert takes when `choices` (k * tokens) are made in all."""
    return math.ceil(factor * choices / experts)


def admit(
    wish_NR: Int[Tensor, "N R"], chosen: int, capacity: int, experts: int, overflow: str = "next"
) -> Int[Tensor, "N K"]:
    """The experts that take each token, at most `capacity` tokens each; -1 where none does.

    wish_NR: experts by falling preference, no row with one twice: the k wanted ones are enough for "around", all of
    them for "next". Tokens ask in rounds, all first wishes before any second one, and within a round in their order.
    "around": the refused place stays empty. "next": the token asks on until k experts took it or its list ends.
    """
    tokens, rounds = wish_NR.shape
    around = overflow == "around"
    taken_NK = wish_NR.new_full((tokens, chosen), -1)
    have_N = wish_NR.new_zeros(tokens)
    used_E = wish_NR.new_zeros(experts)
    for turn in range(min(rounds, chosen) if around else rounds):
        asking_M = (
            torch.arange(tokens, device=wish_NR.device) if around else (have_N < chosen).nonzero()[:, 0]
        )
        if not len(asking_M):
            break
        expert_M = wish_NR[asking_M, turn]
        place_M = places(expert_M, experts) + used_E[expert_M]
        fits_M = place_M < capacity
        row_M, expert_M = asking_M[fits_M], expert_M[fits_M]
        slot = turn if around else have_N[row_M]
        taken_NK[row_M, slot] = expert_M
        have_N[row_M] += 1
        used_E += torch.bincount(expert_M, minlength=experts)
    return taken_NK


def places(expert_M: Int[Tensor, " M"], experts: int) -> Int[Tensor, " M"]:
    """How many before it in the list ask for the same expert."""
    order_M = expert_M.argsort(stable=True)
    count_E = torch.bincount(expert_M, minlength=experts)
    first_E = count_E.cumsum(0) - count_E
    place_M = torch.empty_like(order_M)
    place_M[order_M] = torch.arange(len(order_M), device=order_M.device) - first_E[expert_M[order_M]]
    return place_M
