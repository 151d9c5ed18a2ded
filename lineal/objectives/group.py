"""The group slot: how prompts become completions, and which groups are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lineal.errors import UsageError


@dataclass(frozen=True)
class Group:
    """`size` completions per prompt; keep "all" groups or only "mixed" ones, whose rewards are not all equal.

    keep="mixed" is DAPO's dynamic sampling (Yu et al. 2025, eq. 11): dropped groups are replaced by new
    prompts, for at most `refill` rounds; then the step trains on what it has, and says so.
    """

    size: int = 1
    keep: str = "all"
    refill: int = 8

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(
                f"group_size is {self.size}: a prompt needs at least one completion. Use 1 or more."
            )
        if self.keep not in ("all", "mixed"):
            raise UsageError(
                f"keep is {self.keep!r}: it says which groups are trained on. Use 'all' or 'mixed'."
            )

    def formula(self) -> str:
        """One line that says what is sampled and kept."""
        kept = "only groups with unequal rewards kept" if self.keep == "mixed" else "all kept"
        return f"G = {self.size} completion{'s' if self.size > 1 else ''} per prompt, {kept}"


def mixed_groups(
    reward_B: Float[Tensor, " B"], group_B: Int[Tensor, " B"], groups: int
) -> Bool[Tensor, " P"]:
    """True for each of `groups` groups whose completions have different rewards; False for an absent group.

    These are the groups that DAPO's dynamic sampling keeps: an all-equal one has advantage 0 everywhere.
    """
    member_PB = members(group_B, groups)
    top_P = torch.where(member_PB, reward_B, -torch.inf).amax(1)
    bottom_P = torch.where(member_PB, reward_B, torch.inf).amin(1)
    return top_P > bottom_P


def members(group_B: Int[Tensor, " B"], groups: int) -> Bool[Tensor, "P B"]:
    """member_PB[p, b] is True where completion b answers prompt p."""
    return torch.arange(groups, device=group_B.device)[:, None] == group_B[None, :]


def renumber(group_B: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], int]:
    """The groups that occur, numbered 0..P-1 in their own order, and P."""
    distinct_P, index_B = torch.unique(group_B, return_inverse=True)
    return index_B, distinct_P.shape[0]


def group_sum(x_B: Float[Tensor, " B"], member_PB: Bool[Tensor, "P B"]) -> Float[Tensor, " P"]:
    """Σ of x over each group; a plain reduction, so the order of additions is fixed on every device."""
    return torch.where(member_PB, x_B, torch.zeros((), dtype=x_B.dtype, device=x_B.device)).sum(1)
