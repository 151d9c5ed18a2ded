"""The objective of a batch, the critic's loss and their metrics: plain sums, so that micro-batches just add up."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.objectives.batch import Batch
from lineal.objectives.definition import Algorithm
from lineal.objectives.penalty import ReferenceKL, old_kl
from lineal.objectives.state import AlgorithmState
from lineal.objectives.value import Critic, squared_error
from lineal.types import Scores


def objective(
    algorithm: Algorithm, scores: Scores, batch: Batch, state: AlgorithmState, *, measured: bool = True
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """What is maximised, Σ weight · surrogate - Σ penalties over the rows given, and its metrics as sums.

    measured: without it there are no metrics, which for a tiny policy take as long as the objective itself.

    Both add up over micro-batches, for the weights are those of the whole optimiser batch. Nothing is read
    back from the device; `summarise` turns summed metrics into means. Raises UsageError when scores lack what
    a penalty needs.
    """
    log_ratio_BT = algorithm.ratio(scores.logp_BT, batch.old_logp(scores), batch.mask_BT)
    total = (batch.weight_BT * algorithm.surrogate(log_ratio_BT, batch.advantage_BT)).sum()
    metrics: dict[str, Tensor] = {}
    if measured:
        with torch.no_grad():
            metrics = measure(algorithm, scores, batch, log_ratio_BT)
            metrics["surrogate"] = total.detach()
    for penalty in algorithm.penalty:
        total = total - penalty(scores, batch, state).sum()
    return total, metrics


def value_loss(
    critic: Critic, scores: Scores, batch: Batch, *, measured: bool = True
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over counted steps of the critic's squared error, to be minimised, before its coefficient; and metrics.

    Both are sums over the rows given and add up over micro-batches, as in `objective`.
    """
    if scores.value_BT is None or batch.return_BT is None or batch.value_BT is None:
        raise UsageError(
            "the critic's loss needs value_BT both in the rollout that was prepared and in the scores; one of "
            "them is missing. Score both with the critic."
        )
    value_BT = torch.where(batch.mask_BT, scores.value_BT, batch.return_BT)
    error_BT = squared_error(value_BT, batch.return_BT, batch.value_BT, critic.clip)
    total = (batch.step_weight_BT * error_BT).sum()
    if not measured:
        return total, {}
    with torch.no_grad():
        residual_BT = batch.return_BT - value_BT
        metrics = {
            "value_loss": total.detach(),
            "value_steps": batch.mask_BT.sum(),
            "residual": residual_BT.sum(),
            "residual_square": residual_BT.square().sum(),
            "return": batch.return_BT.sum(),
            "return_square": batch.return_BT.square().sum(),
        }
    return total, metrics


def measure(
    algorithm: Algorithm, scores: Scores, batch: Batch, log_ratio_BT: Float[Tensor, "B T"]
) -> dict[str, Tensor]:
    """Sums over the rows: steps, completions, ratios, clipped steps, KL to the old policy, entropy, reference KL.

    trajectory_ratio is the raw product of token ratios over each completion, which no algorithm here
    optimises; its logarithm is cut at 60 so that the sum stays finite.
    """
    mask_BT = batch.mask_BT
    metrics = {"steps": mask_BT.sum(), "completions": mask_BT.any(1).sum()}
    if algorithm.ratio.uses_old:
        metrics |= _ratio_sums(algorithm, scores, batch, log_ratio_BT, metrics)
    if scores.entropy_BT is not None:
        metrics["entropy"] = torch.where(mask_BT, scores.entropy_BT, 0.0).sum()
    for penalty in algorithm.penalty:
        if isinstance(penalty, ReferenceKL) and not penalty.in_reward:
            metrics["reference_kl"] = penalty.estimate(scores, batch).sum()
    return metrics


def _ratio_sums(
    algorithm: Algorithm, scores: Scores, batch: Batch, log_ratio_BT: Tensor, counts: dict[str, Tensor]
) -> dict[str, Tensor]:
    mask_BT, zero = batch.mask_BT, torch.zeros((), dtype=log_ratio_BT.dtype, device=log_ratio_BT.device)
    if batch.old_logp_BT is None:
        # Used once: every ratio is 1 by construction, and small models feel each operation that says so.
        ones = {
            "ratio": counts["steps"].to(zero.dtype),
            "trajectory_ratio": counts["completions"].to(zero.dtype),
        }
        return ones | {"clip_low": zero, "clip_high": zero, "kl": zero}
    low_BT, high_BT = algorithm.surrogate.clipped(log_ratio_BT, batch.advantage_BT)
    token_BT = torch.where(mask_BT, scores.logp_BT - batch.old_logp_BT, zero)
    # A row or a step that does not count has log-ratio 0, so it adds exactly 1 to a sum of ratios.
    absent_steps, absent_rows = mask_BT.numel() - counts["steps"], mask_BT.shape[0] - counts["completions"]
    return {
        "ratio": log_ratio_BT.exp().sum() - absent_steps,
        "trajectory_ratio": token_BT.sum(1).clamp(max=60.0).exp().sum() - absent_rows,
        "clip_low": (low_BT & mask_BT).sum(),
        "clip_high": (high_BT & mask_BT).sum(),
        "kl": old_kl("k3" if scores.kl_BT is None else "exact", scores, batch).sum(),
    }
