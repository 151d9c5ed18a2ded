"""What an objective reads of a rollout: one optimiser batch, or some of its rows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor

from lineal.types import Scores


@dataclass(frozen=True)
class Batch:
    """One optimiser batch, or some of its rows; made by `prepare` and `split`, cut by `rows`.

    mask_BT: True where a step counts.
    advantage_BT: 0 where masked.
    weight_BT: the reduction's weights, of the whole optimiser batch; the objective is Σ weight · surrogate.
    step_weight_BT: 1 / number of counted steps of the whole optimiser batch, for means over steps; 0 where
    masked.
    group_B: index of each row's prompt.
    row_B: which row of the rollout each row is; after `split(..., by_step=True)` the flat index b · T + t.
    old_logp_BT: None when the batch is used once: then it is the scores' own logp, held, and the ratio is
    exactly 1.
    reference_logp_BT: under the frozen reference.
    return_BT, value_BT: what the critic is fitted to, and what it said when the rollout was scored.
    mean_kl: the optimiser batch's mean KL(old || new), for SqrtKL only.
    """

    mask_BT: Bool[Tensor, "B T"]
    advantage_BT: Float[Tensor, "B T"]
    weight_BT: Float[Tensor, "B T"]
    step_weight_BT: Float[Tensor, "B T"]
    group_B: Int[Tensor, " B"]
    row_B: Int[Tensor, " B"]
    old_logp_BT: Float[Tensor, "B T"] | None = None
    reference_logp_BT: Float[Tensor, "B T"] | None = None
    return_BT: Float[Tensor, "B T"] | None = None
    value_BT: Float[Tensor, "B T"] | None = None
    mean_kl: Float[Tensor, ""] | None = None

    def rows(self, index: Int[Tensor, " N"] | slice, width: int | None = None) -> Batch:
        """The given rows, cut to `width` steps; weights stay those of the whole optimiser batch."""
        changed = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name.endswith("_BT"):
                changed[field.name] = value[index] if width is None else value[index, :width]
            elif value is not None and field.name.endswith("_B"):
                changed[field.name] = value[index]
        return replace(self, **changed)

    def old_logp(self, scores: Scores) -> Float[Tensor, "B T"]:
        """log π_old: what was recorded, or the scores' own logp held fixed when the batch is used once."""
        return scores.logp_BT.detach() if self.old_logp_BT is None else self.old_logp_BT
