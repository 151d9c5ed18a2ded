"""Fitting the reward ensemble to the labels: Bradley-Terry on summed rewards, a bootstrap and an L2 term per member."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lineal.errors import NonFiniteError
from lineal.models.reward import Ensemble
from lineal.objectives.preference import preference_losses
from lineal.train.optimizer import load_optimizer, optimizer_tensors
from lineal.train.preferences.comparisons import Comparisons

BAND = (1.1, 1.5)
"""Validation loss over training loss, between which the L2 coefficient is left alone."""
L2_RANGE = (1e-7, 1.0)


@dataclass(frozen=True)
class FitOptions:
    """How the ensemble is fitted.

    error_rate: share of answers taken to be random. learning_rate: Adam's. batch: pairs per update. l2: coefficient at
    the start. adapt: factor by which it moves after each epoch. band: where it stays.
    """

    error_rate: float = 0.1
    learning_rate: float = 1e-3
    batch: int = 64
    l2: float = 1e-4
    adapt: float = 1.5
    band: tuple[float, float] = BAND


@dataclass
class Fitted:
    """What a fit goes on from: the ensemble, its optimiser, and each member's L2 coefficient."""

    ensemble: Ensemble
    optimiser: torch.optim.Optimizer
    l2_M: Float[Tensor, " M"]
    epochs: int = 0

    @classmethod
    def start(cls, ensemble: Ensemble, options: FitOptions) -> Fitted:
        """Before the first fit."""
        optimiser = torch.optim.Adam(ensemble.parameters(), lr=options.learning_rate, fused=True)
        return cls(ensemble, optimiser, torch.full((ensemble.members,), options.l2))

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint keeps of it: tensors by name, and JSON values."""
        tensors, plain = optimizer_tensors(self.optimiser, dict(self.ensemble.named_parameters()))
        tensors |= {f"model/{name}": x for name, x in self.ensemble.state_dict().items()}
        return tensors | {"l2": self.l2_M}, {"optimiser": plain, "epochs": self.epochs}

    def load(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Go on from what `tensors` gave."""
        prefix = "model/"
        model = {name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}
        self.ensemble.load_state_dict(model)
        load_optimizer(self.optimiser, tensors, state["optimiser"], dict(self.ensemble.named_parameters()))
        self.l2_M.copy_(tensors["l2"])
        self.epochs = int(state["epochs"])


@dataclass(frozen=True)
class Judgement:
    """How each member does on the labels it drew and on those it holds out; nan where it holds out none.

    Losses are mean Bradley-Terry losses without the L2 term; accuracies count decided labels only.
    """

    training_loss_M: Float[Tensor, " M"]
    validation_loss_M: Float[Tensor, " M"]
    training_accuracy_M: Float[Tensor, " M"]
    validation_accuracy_M: Float[Tensor, " M"]

    @property
    def ratio_M(self) -> Float[Tensor, " M"]:
        """Validation loss over training loss."""
        return self.validation_loss_M / self.training_loss_M

    def metrics(self) -> dict[str, float]:
        """Means over the members, for the log."""
        names = ("training_loss", "validation_loss", "training_accuracy", "validation_accuracy", "ratio")
        return {f"reward_model/{name}": float(getattr(self, f"{name}_M").nanmean()) for name in names}


def scores(
    ensemble: Ensemble,
    data: Comparisons,
    place_P: Int[Tensor, " P"],
    weight_MP: Float[Tensor, "M P"] | None = None,
) -> Float[Tensor, "M P"]:
    """Summed reward of the segments at these places, by each member: Σ_t r_m(o_t, a_t), undiscounted.

    weight_MP: how often each member drew them, for members whose layers look at the whole batch.
    """
    feature_PTF, mask_PT = data.feature_STF[place_P], data.mask_ST[place_P]
    drawn_MN = None if weight_MP is None else (weight_MP[..., None] * mask_PT).flatten(1)
    reward_MPT = ensemble(feature_PTF.flatten(0, 1), drawn_MN).unflatten(1, tuple(mask_PT.shape))
    return (reward_MPT * mask_PT).sum(-1)


@torch.no_grad()
def all_gaps(ensemble: Ensemble, data: Comparisons) -> Float[Tensor, "M N"]:
    """Summed reward of the first less that of the second segment of every label, by each member; some segments at a time."""
    most = max(1, ensemble.at_once // data.mask_ST.shape[1])
    parts = torch.arange(len(data.feature_STF)).split(most)
    score_MS = torch.cat([scores(ensemble, data, part) for part in parts], 1)
    return score_MS[:, data.first_N] - score_MS[:, data.second_N]


def losses(ensemble: Ensemble, data: Comparisons, index_B: Int[Tensor, " B"], error_rate: float) -> Tensor:
    """Bradley-Terry loss of each member on each of these labels, [M, B]; one forward for all of it."""
    place_P = torch.cat([data.first_N[index_B], data.second_N[index_B]])
    both_MP = scores(ensemble, data, place_P, data.weight_MN[:, index_B].repeat(1, 2))
    first_MB, second_MB = both_MP.chunk(2, dim=1)
    preference_MB = data.preference_N[index_B].expand_as(first_MB)
    return preference_losses(first_MB, second_MB, preference_MB, error_rate=error_rate)


def fit(fitted: Fitted, data: Comparisons, options: FitOptions, epochs: int, seed: int = 0) -> Judgement:
    """Train every member for some epochs on its bootstrap sample, moving its L2 coefficient after each.

    Member m minimises Σ_n c_mn loss_n / Σ_n c_mn + l2_m |weights_m|², with c_mn how often it drew label n. l2_m grows
    while its validation loss is above band[1] of its training loss, and shrinks below band[0] (Christiano et al. 2017,
    section 2.2.3). Labels held out cost nothing extra: they are in the same forward with weight 0. Returns the judgement
    after the last epoch. Raises NonFiniteError, the weights then as before the epoch, when a loss is not finite.
    """
    ensemble, count = fitted.ensemble, len(data.preference_N)
    mean_M = data.weight_MN.mean(1, keepdim=True).clamp(min=1e-12)
    for _ in range(epochs):
        before = {name: x.clone() for name, x in ensemble.state_dict().items()}
        order = torch.Generator().manual_seed((seed * 1_000_003 + fitted.epochs) % 2**63)
        loss_MN = torch.empty_like(data.weight_MN)
        ensemble.train()
        ensemble.reseed(seed * 1_000_003 + fitted.epochs)
        for index_B in torch.randperm(count, generator=order).split(options.batch):
            loss_MB = losses(ensemble, data, index_B, options.error_rate)
            weight_MB = data.weight_MN[:, index_B] / (mean_M * len(index_B))
            fitted.optimiser.zero_grad(set_to_none=True)
            (weight_MB * loss_MB).sum().backward()
            _shrink(fitted)
            fitted.optimiser.step()
            loss_MN[:, index_B] = loss_MB.detach()
        ensemble.eval()
        if not bool(loss_MN.isfinite().all()):
            ensemble.load_state_dict(before)
            raise NonFiniteError(
                "the reward model's loss is not finite, so its weights were left as before this epoch. Look for "
                "observations that are not finite, or lower --reward-learning-rate."
            )
        fitted.epochs += 1
        # As they were before each update: equally old for both, and free.
        ratio_M = _mean(loss_MN, (data.weight_MN == 0).to(loss_MN.dtype)) / _mean(loss_MN, data.weight_MN)
        adapt(fitted, ratio_M, options)
    return judge(ensemble, data, options.error_rate)


@torch.no_grad()
def _shrink(fitted: Fitted) -> None:
    """Add the gradient of l2_m |weights_m|²; biases are free."""
    for weight in fitted.ensemble.weights:
        assert weight.grad is not None
        weight.grad += 2 * fitted.l2_M.view(-1, *[1] * (weight.ndim - 1)) * weight


@torch.no_grad()
def adapt(fitted: Fitted, ratio_M: Float[Tensor, " M"], options: FitOptions) -> None:
    """Move each member's L2 coefficient towards keeping validation over training loss in the band; nan leaves it."""
    low, high = options.band
    fitted.l2_M[ratio_M > high] *= options.adapt
    fitted.l2_M[ratio_M < low] /= options.adapt
    fitted.l2_M.clamp_(*L2_RANGE)


@torch.no_grad()
def judge(ensemble: Ensemble, data: Comparisons, error_rate: float) -> Judgement:
    """Each member on what it drew and on what it holds out."""
    gap_MN = all_gaps(ensemble, data)
    loss_MN = preference_losses(
        gap_MN, torch.zeros_like(gap_MN), data.preference_N.expand_as(gap_MN), error_rate=error_rate
    )
    decided_N = data.preference_N != 0.5
    right_MN = ((gap_MN > 0) == (data.preference_N > 0.5)).to(gap_MN.dtype)
    drawn_MN, held_MN = data.weight_MN, (data.weight_MN == 0).to(gap_MN.dtype)
    return Judgement(
        _mean(loss_MN, drawn_MN),
        _mean(loss_MN, held_MN),
        _mean(right_MN, drawn_MN * decided_N),
        _mean(right_MN, held_MN * decided_N),
    )


def _mean(value_MN: Tensor, weight_MN: Tensor) -> Tensor:
    total_M = weight_MN.sum(1)
    return torch.where(total_M > 0, (value_MN * weight_MN).sum(1) / total_M, math.nan)


def overfits(judgement: Judgement) -> bool:
    """It knows its own labels by heart and is hardly better than chance on the others."""
    numbers = judgement.metrics()
    known, new = (numbers[f"reward_model/{kind}_accuracy"] for kind in ("training", "validation"))
    return known > 0.97 and new < 0.6


@torch.no_grad()
def held_out_probability(ensemble: Ensemble, data: Comparisons, error_rate: float) -> Float[Tensor, " N"]:
    """P(1 > 2) of each label, averaged over the members that hold it out; nan where every member drew it."""
    gap_MN = all_gaps(ensemble, data)
    probability_MN = (1 - error_rate) * F.sigmoid(gap_MN) + error_rate / 2
    held_MN = (data.weight_MN == 0).to(gap_MN.dtype)
    total_N = held_MN.sum(0)
    return torch.where(total_N > 0, (probability_MN * held_MN).sum(0) / total_N, math.nan)
