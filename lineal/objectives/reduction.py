"""The reduction slot: a function from the mask to weights, so that a loss is a plain sum of weight ·
surrogate.

Weights are computed once for a whole optimiser batch; any cut of it into micro-batches, any padding, packing,
order or number of processes then gives the same sum, by construction. Rows without a counted step are absent:
they weigh nothing and are not counted, so padding by rows changes nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.formula import short
from lineal.objectives.group import Members, renumber


class Reduction:
    """Base of the reduction slot.

    by_sequence: each completion has the same total weight within its prompt. grouped: weights depend on prompts, so a
    row must be one whole completion. whole_rows: weights depend on rows, which must not be cut into steps. legend: what
    its letters are, for print.
    """

    by_sequence = False
    grouped = True
    whole_rows = True
    legend = "P prompts"

    def __call__(
        self, mask_BT: Bool[Tensor, "B T"], group_B: Int[Tensor, " B"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T"]:
        """The weight of each step of one optimiser batch; 0 where masked."""
        raise NotImplementedError

    def formula(self, whole_sequence: bool = False) -> str:
        """The sums in front of the surrogate, for print."""
        raise NotImplementedError


@dataclass(frozen=True)
class PerSequence(Reduction):
    """mean over prompts of 1/G Σ_i 1/|y_i| Σ_t  (GRPO, eq. 3; GSPO, eq. 5)."""

    by_sequence = True

    def __call__(
        self, mask_BT: Bool[Tensor, "B T"], group_B: Int[Tensor, " B"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T"]:
        """1 / (P G |y|)."""
        length_B, size_B, prompts = _counts(mask_BT, group_B, dtype)
        return mask_BT * (1 / (prompts * size_B * length_B))[:, None]

    def formula(self, whole_sequence: bool = False) -> str:
        """The sums, for print."""
        return "1/P Σₚ 1/G Σᵢ" if whole_sequence else "1/P Σₚ 1/G Σᵢ 1/|yᵢ| Σₜ"


@dataclass(frozen=True)
class PerToken(Reduction):
    """Mean over all counted steps of the optimiser batch  (PPO, TRPO; the code of DAPO's authors)."""

    grouped = False
    whole_rows = False
    legend = "N counted steps"

    def __call__(
        self, mask_BT: Bool[Tensor, "B T"], group_B: Int[Tensor, " B"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T"]:
        """1 / Σ|y|."""
        return mask_BT.to(dtype) / mask_BT.sum().clamp(min=1)

    def formula(self, whole_sequence: bool = False) -> str:
        """The sums, for print."""
        return "1/N Σₜ"


@dataclass(frozen=True)
class PerPromptToken(Reduction):
    """mean over prompts of 1/Σ_i|y_i| Σ_i Σ_t  (DAPO, eq. 12)."""

    def __call__(
        self, mask_BT: Bool[Tensor, "B T"], group_B: Int[Tensor, " B"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T"]:
        """1 / (P Σ_i |y_i|), the sum over the completion's own prompt."""
        index_B, groups = renumber(group_B)
        tokens_P = Members.of(index_B, groups).sum(mask_BT.sum(1).to(dtype))
        prompts = (tokens_P > 0).sum().clamp(min=1)
        return mask_BT * (1 / (prompts * tokens_P.clamp(min=1)))[index_B][:, None]

    def formula(self, whole_sequence: bool = False) -> str:
        """The sums, for print."""
        return "1/P Σₚ 1/Σᵢ|yᵢ| Σᵢ Σₜ"


@dataclass(frozen=True)
class PerBudget(Reduction):
    """mean over prompts of 1/G Σ_i 1/L Σ_t with a constant L, fixed for the run  (Dr. GRPO, and its code).

    `tokens` is L; None stands for max_new_tokens, which `complete` fills in; 1 gives the paper's formula.
    """

    tokens: int | float | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and not self.tokens > 0:
            raise UsageError(
                f"the budget is {self.tokens} tokens: it divides the objective. Use a number above 0."
            )

    def __call__(
        self, mask_BT: Bool[Tensor, "B T"], group_B: Int[Tensor, " B"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T"]:
        """1 / (P G L)."""
        if self.tokens is None:
            raise UsageError(
                "PerBudget has no number of tokens yet, so its constant is unknown. "
                "Call complete(algorithm, max_new_tokens), or give PerBudget(tokens)."
            )
        _, size_B, prompts = _counts(mask_BT, group_B, dtype)
        return mask_BT * (1 / (prompts * size_B * self.tokens))[:, None]

    def formula(self, whole_sequence: bool = False) -> str:
        """The sums, for print."""
        if self.tokens == 1:
            return "1/P Σₚ 1/G Σᵢ Σₜ"
        return f"1/P Σₚ 1/G Σᵢ 1/{'max_new_tokens' if self.tokens is None else short(self.tokens)} Σₜ"


@dataclass(frozen=True)
class PlainSum(Reduction):
    """Mean over completions (rows) of Σ_t  (REINFORCE; PPO's 'sum over each completion' form)."""

    grouped = False
    legend = "B completions"

    def __call__(
        self, mask_BT: Bool[Tensor, "B T"], group_B: Int[Tensor, " B"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T"]:
        """1 / B, over completions that have a counted step."""
        return mask_BT.to(dtype) / mask_BT.any(1).sum().clamp(min=1)

    def formula(self, whole_sequence: bool = False) -> str:
        """The sums, for print."""
        return "1/B Σᵢ Σₜ"


def _counts(mask_BT: Tensor, group_B: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """|y| and G of each completion (at least 1, so that an absent row divides nothing by zero), and P."""
    index_B, groups = renumber(group_B)
    length_B = mask_BT.sum(1).to(dtype)
    size_P = Members.of(index_B, groups).sum((length_B > 0).to(dtype))
    return length_B.clamp(min=1), size_P.clamp(min=1)[index_B], (size_P > 0).sum().clamp(min=1)
