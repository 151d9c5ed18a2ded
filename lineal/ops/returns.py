"""Returns and advantages along time, in one backward pass over the steps.

A position that does not count is skipped, not passed over in time: the step before it is followed by the next
counted one. Nothing flows from one episode (`segment_BT`) into the one before it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def reverse_scan(x_BT: Float[Tensor, "B T"], carry_BT: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """y_t = x_t + carry_t · y_{t+1}, from the last step to the first; O(T), one small operation per step."""
    if x_BT.shape[1] == 0:
        return x_BT
    total_B = torch.zeros_like(x_BT[:, 0])
    totals = []
    for x_B, carry_B in zip(reversed(x_BT.unbind(1)), reversed(carry_BT.unbind(1)), strict=True):
        total_B = torch.addcmul(x_B, carry_B, total_B)
        totals.append(total_B)
    return torch.stack(totals[::-1], dim=1)


def next_counted(mask_BT: Bool[Tensor, "B T"]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Index of the first counted step after each step, and whether there is one (index 0 where none)."""
    length = mask_BT.shape[1]
    place_T = torch.arange(length, device=mask_BT.device)
    place_BT = torch.where(mask_BT, place_T, length)
    from_here_BT = place_BT.flip(1).cummin(1).values.flip(1) if length else place_BT
    after_BT = torch.cat([from_here_BT[:, 1:], torch.full_like(place_BT[:, :1], length)], dim=1)
    exists_BT = after_BT < length
    return torch.where(exists_BT, after_BT, 0), exists_BT


def continues(
    mask_BT: Bool[Tensor, "B T"],
    segment_BT: Int[Tensor, "B T"] | None = None,
    ended_BT: Bool[Tensor, "B T"] | None = None,
) -> Bool[Tensor, "B T"]:
    """True where the next counted step of the row belongs to the same episode."""
    after_BT, same_BT = next_counted(mask_BT)
    if segment_BT is not None:
        same_BT = same_BT & (segment_BT.gather(1, after_BT) == segment_BT)
    return same_BT if ended_BT is None else same_BT & ~ended_BT


def discounted(
    reward_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    discount: float,
    segment_BT: Int[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """Discounted reward-to-go G_t = Σ_{k>=t} discount^(k-t) r_k within the episode; 0 where masked."""
    zero = torch.zeros((), dtype=reward_BT.dtype, device=reward_BT.device)
    return torch.where(
        mask_BT, _scan(torch.where(mask_BT, reward_BT, zero), mask_BT, discount, segment_BT), zero
    )


def full_return(
    reward_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    discount: float,
    segment_BT: Int[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """The whole episode's return Σ_k discount^k r_k, the same at each of its steps; 0 where masked."""
    to_go_BT = discounted(reward_BT, mask_BT, discount, segment_BT)
    segment_BT = torch.zeros_like(mask_BT, dtype=torch.int64) if segment_BT is None else segment_BT
    seen_BT = torch.cumsum(mask_BT, dim=1)
    continues_BT = continues(mask_BT, segment_BT)
    after_BT, exists_BT = next_counted(mask_BT)
    start_BT = mask_BT & (seen_BT == 1)
    # A step that follows one that does not continue starts an episode too.
    begins_BT = torch.zeros_like(mask_BT, dtype=torch.int64)
    begins_BT.scatter_add_(1, after_BT, (mask_BT & exists_BT & ~continues_BT).long())
    start_BT = start_BT | (mask_BT & (begins_BT > 0))
    total_BS = torch.zeros_like(to_go_BT).scatter_add_(1, segment_BT, torch.where(start_BT, to_go_BT, 0.0))
    return torch.where(mask_BT, total_BS.gather(1, segment_BT), 0.0)


def gae(
    reward_BT: Float[Tensor, "B T"],
    value_BT: Float[Tensor, "B T"],
    mask_BT: Bool[Tensor, "B T"],
    discount: float,
    trace_decay: float,
    *,
    next_value_BT: Float[Tensor, "B T"] | None = None,
    ended_BT: Bool[Tensor, "B T"] | None = None,
    segment_BT: Int[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """Generalised advantage estimation, A_t = Σ_k (discount·trace_decay)^k δ_{t+k}  (Schulman et al. 2016,
    eq. 16).

    δ_t = r_t + discount · V(s_{t+1}) - V(s_t). `next_value_BT` is V after each step and before any reset,
    already 0 where the episode terminated, so a truncated environment bootstraps. Without it (text)
    V(s_{t+1}) is the value of the episode's next counted step, and 0 after its last: a capped text has its
    outcome reward and needs no bootstrap. `ended_BT` marks steps that end an episode. trace_decay 0 is the TD
    error; 1 is return minus value.
    """
    going_BT = continues(mask_BT, segment_BT, ended_BT)
    if next_value_BT is None:
        after_BT, _ = next_counted(mask_BT)
        next_value_BT = torch.where(going_BT, value_BT.gather(1, after_BT), torch.zeros_like(value_BT))
    delta_BT = torch.where(
        mask_BT, reward_BT + discount * next_value_BT - value_BT, torch.zeros_like(value_BT)
    )
    carry_BT = torch.where(mask_BT, going_BT.to(value_BT.dtype) * (discount * trace_decay), 1.0)
    return torch.where(mask_BT, reverse_scan(delta_BT, carry_BT), torch.zeros_like(value_BT))


def _scan(x_BT: Tensor, mask_BT: Tensor, factor: float, segment_BT: Tensor | None) -> Tensor:
    carry_BT = torch.where(mask_BT, continues(mask_BT, segment_BT).to(x_BT.dtype) * factor, 1.0)
    return reverse_scan(x_BT, carry_BT)
