"""Softmax over a sample of a large vocabulary (Jean et al. 2015), the sample being a function of its seed."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def log_uniform(uniform_K: Float[Tensor, " K"], classes: int) -> Int[Tensor, " K"]:
    """Classes drawn from p(c) = log((c + 2) / (c + 1)) / log(classes + 1) by inverting its sum, from numbers in [0, 1).

    It is Zipf's law in words ordered by frequency.
    """
    drawn_K = torch.expm1(uniform_K.double() * math.log(classes + 1)).long()
    return drawn_K.clamp(0, classes - 1)


def log_inclusion(class_N: Int[Tensor, "*N"], classes: int, draws: int) -> Float[Tensor, "*N"]:
    """log(1 - (1 - p(c))^draws): the probability that a class is among so many draws with replacement."""
    probability_N = torch.log1p(1 / (class_N.double() + 1)) / math.log(classes + 1)
    return (-torch.expm1(draws * torch.log1p(-probability_N))).log()


def sampled_cross_entropy(
    hidden_ND: Float[Tensor, "N D"],
    target_N: Int[Tensor, " N"],
    weight_VD: Float[Tensor, "V D"],
    bias_V: Float[Tensor, " V"],
    drawn_K: Int[Tensor, " K"],
) -> Float[Tensor, ""]:
    """Mean of log(e^{z_y} + sum_c e^{z_c}) - z_y with z_c = h w_c + b_c - log q(c), over the right class y and the classes c
    that were drawn, each once.

    q(c) is the probability that c is drawn at all. A drawn class that is the right one is left out. With so many draws that
    all classes are among them it is the cross-entropy over all classes.
    """
    classes, draws = len(weight_VD), len(drawn_K)
    sample_S = drawn_K.unique()
    own_N = (hidden_ND * weight_VD[target_N]).sum(-1) + bias_V[target_N]
    own_N = own_N - log_inclusion(target_N, classes, draws).to(own_N)
    other_NS = torch.addmm(bias_V[sample_S], hidden_ND, weight_VD[sample_S].T)
    other_NS = other_NS - log_inclusion(sample_S, classes, draws).to(own_N)
    other_NS = other_NS.masked_fill(target_N[:, None] == sample_S, -torch.inf)
    return (torch.cat([own_N[:, None], other_NS], 1).logsumexp(1) - own_N).mean()
