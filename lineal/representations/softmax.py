"""The whole softmax of word2vec, in torch: what negative sampling and the tree stand in for, at a cost that grows with V.

    loss = -log p(centre | context),   p(w | c) = exp(x_c . y_w) / sum over all w' of exp(x_c . y_w')

(Mikolov et al., 2013a, eq. 2). For small vocabularies, and for tests.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lineal.representations.steps import Job, windows


def softmax_loss(
    input_RD: Float[Tensor, "R D"],
    output_VD: Float[Tensor, "V D"],
    context: list[list[int]],
    centre_N: Int[Tensor, " N"],
) -> Float[Tensor, ""]:
    """The sum over N predictions of -log p(centre | mean of the input rows that `context` names)."""
    x_ND = torch.stack([input_RD[rows].mean(0) for rows in context])
    return F.cross_entropy(x_ND @ output_VD.T, centre_N, reduction="sum")


def learn(job: Job, ids_N: NDArray[np.int32], first: int, last: int, epoch: int) -> tuple[float, int]:
    """`steps.learn` with this loss: one step of gradient descent for each window, by automatic differentiation."""
    inputs, outputs = (torch.from_numpy(table).requires_grad_() for table in (job.inputs, job.outputs))
    loss, predicted = 0.0, 0
    for found in windows(job, ids_N, first, last, epoch):
        context = [job.rows_of(word).tolist() for word in found.around]
        if job.bag:
            context = [[row for rows in context for row in rows]]
        centre_N = torch.full((len(context),), found.centre)
        value = softmax_loss(inputs, outputs, context, centre_N)
        slopes = torch.autograd.grad(value, (inputs, outputs))
        with torch.no_grad():
            for table, slope in zip((inputs, outputs), slopes):
                table -= found.rate * slope
        loss, predicted = loss + value.item(), predicted + len(context)
    return loss, predicted
