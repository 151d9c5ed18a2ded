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


@dataclass(frozen=True)
class Members:
    """Which completions make up each group, as a table padded to the largest group.

    Sums over it are plain reductions along one axis: their order, so their rounding, is fixed on every device.
    """

    row_PG: Int[Tensor, "P G"]
    present_PG: Bool[Tensor, "P G"]

    @staticmethod
    def of(group_B: Int[Tensor, " B"], groups: int, alive_B: Bool[Tensor, " B"] | None = None) -> Members:
        """The table of groups 0..groups-1; completions that are not alive are left out."""
        # Left-out rows go to a last group of their own, which is cut off.
        home_B = group_B if alive_B is None else torch.where(alive_B, group_B, groups)
        order_B = home_B.argsort(stable=True)
        size_P = torch.bincount(home_B, minlength=groups + 1)[:groups]
        place_G = torch.arange(max(1, int(size_P.max()) if groups else 1), device=group_B.device)
        place_PG = (size_P.cumsum(0) - size_P)[:, None] + place_G
        return Members(order_B[place_PG.clamp(max=len(group_B) - 1)], place_G < size_P[:, None])

    def sum(self, x_B: Float[Tensor, " B"]) -> Float[Tensor, " P"]:
        """Σ of x over each group; 0 over an empty one."""
        return self._take(x_B, 0.0).sum(1)

    def count(self) -> Int[Tensor, " P"]:
        """How many completions each group has."""
        return self.present_PG.sum(1)

    def mixed(self, x_B: Float[Tensor, " B"]) -> Bool[Tensor, " P"]:
        """Whether x differs within each group; False for an empty one."""
        return self._take(x_B, -torch.inf).amax(1) > self._take(x_B, torch.inf).amin(1)

    def _take(self, x_B: Tensor, empty: float) -> Tensor:
        return torch.where(
            self.present_PG, x_B[self.row_PG], torch.full((), empty, dtype=x_B.dtype).to(x_B.device)
        )


def mixed_groups(
    reward_B: Float[Tensor, " B"], group_B: Int[Tensor, " B"], groups: int
) -> Bool[Tensor, " P"]:
    """True for each of `groups` groups whose completions have different rewards; False for an absent group.

    These are the groups that DAPO's dynamic sampling keeps: an all-equal one has advantage 0 everywhere.
    """
    return Members.of(group_B, groups).mixed(reward_B)


def renumber(group_B: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], int]:
    """The groups that occur, numbered 0..P-1 in their own order, and P."""
    distinct_P, index_B = torch.unique(group_B, return_inverse=True)
    return index_B, distinct_P.shape[0]
