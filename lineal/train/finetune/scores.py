"""How well classes or scores are told: accuracy, scores per class, who is taken for whom, and calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

BINS = 10
"""Bins of confidence, of equal width."""


@dataclass(frozen=True)
class ClassScores:
    """Of one class: precision TP/(TP+FP), recall TP/(TP+FN), F1 = 2PR/(P+R), each 0 where undefined; and its rows."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """Of predicted probabilities against the right classes.

    accuracy; macro_f1: mean F1 over classes; loss: mean -log p(right class), in nats. confusion_CC[i][j]: rows of class i
    taken for class j. brier: mean squared distance of the probabilities from the one-hot truth (0 to 2).
    calibration_error: sum over bins of (share of rows) |accuracy - confidence|  (Naeini et al. 2015; Guo et al. 2017).
    bins: (mean confidence, accuracy, rows) of each bin of confidence that has any.
    """

    accuracy: float
    macro_f1: float
    loss: float
    brier: float
    calibration_error: float
    classes: tuple[ClassScores, ...]
    confusion_CC: tuple[tuple[int, ...], ...]
    bins: tuple[tuple[float, float, int], ...]

    def metrics(self) -> dict[str, float]:
        """As they go into metrics.jsonl."""
        names = ("accuracy", "macro_f1", "loss", "brier", "calibration_error")
        return {f"eval/{name}": getattr(self, name) for name in names}

    def record(self) -> dict[str, Any]:
        """As the report reads them."""
        return {"kind": "scores", **asdict(self)}


def scores(
    probability_NC: Float[Tensor, "N C"], target_N: Int[Tensor, " N"], labels: Sequence[str]
) -> Scores:
    """The scores of N predictions over C classes."""
    count, classes = probability_NC.shape
    wide_NC = probability_NC.double()
    confidence_N, said_N = wide_NC.max(-1)
    right_N = (said_N == target_N).double()
    confusion_CC = torch.zeros(classes, classes, dtype=torch.int64)
    confusion_CC.view(-1).scatter_add_(0, target_N * classes + said_N, torch.ones_like(target_N))
    own_N = wide_NC.gather(1, target_N[:, None])[:, 0]
    truth_NC = torch.nn.functional.one_hot(target_N, classes)
    each = tuple(_of_class(label, i, confusion_CC) for i, label in enumerate(labels))
    bins = _bins(confidence_N, right_N)
    return Scores(
        accuracy=right_N.mean().item(),
        macro_f1=math.fsum(c.f1 for c in each) / classes,
        loss=-own_N.clamp(min=1e-300).log().mean().item(),
        brier=(wide_NC - truth_NC).square().sum(-1).mean().item(),
        calibration_error=math.fsum(n * abs(a - c) for c, a, n in bins) / count,
        classes=each,
        confusion_CC=tuple(map(tuple, confusion_CC.tolist())),
        bins=bins,
    )


def _of_class(label: str, i: int, confusion_CC: Tensor) -> ClassScores:
    hits, said, true = int(confusion_CC[i, i]), int(confusion_CC[:, i].sum()), int(confusion_CC[i].sum())
    precision, recall = hits / said if said else 0.0, hits / true if true else 0.0
    f1 = 2 * hits / (said + true) if said + true else 0.0
    return ClassScores(label, precision, recall, f1, true)


def _bins(confidence_N: Tensor, right_N: Tensor) -> tuple[tuple[float, float, int], ...]:
    place_N = (confidence_N * BINS).long().clamp(max=BINS - 1)
    found = []
    for b in range(BINS):
        inside_N = place_N == b
        if inside_N.any():
            rows = int(inside_N.sum())
            found.append((confidence_N[inside_N].mean().item(), right_N[inside_N].mean().item(), rows))
    return tuple(found)


@dataclass(frozen=True)
class Agreement:
    """Of predicted scores with the right ones: Pearson's and Spearman's correlation, and the mean squared error."""

    pearson: float
    spearman: float
    squared_error: float

    def metrics(self) -> dict[str, float]:
        """As they go into metrics.jsonl."""
        return {f"eval/{name}": value for name, value in asdict(self).items()}


def agreement(predicted_N: Float[Tensor, " N"], target_N: Float[Tensor, " N"]) -> Agreement:
    """How well N predicted scores agree with the right ones."""
    p_N, t_N = predicted_N.double(), target_N.double()
    spearman = _correlation(_ranks(p_N), _ranks(t_N))
    return Agreement(_correlation(p_N, t_N), spearman, (p_N - t_N).square().mean().item())


def _correlation(a_N: Tensor, b_N: Tensor) -> float:
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    scale = (a_N.square().sum() * b_N.square().sum()).sqrt().item()
    return (a_N * b_N).sum().item() / scale if scale else math.nan


def _ranks(x_N: Tensor) -> Tensor:
    """Ranks from 1; equals share the mean of theirs."""
    _, inverse_N, count_U = x_N.unique(return_inverse=True, return_counts=True)
    last_U = count_U.cumsum(0).double()
    return (last_U - (count_U - 1) / 2)[inverse_N]
