from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from lineal.objectives.language import next_token_loss


def case(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(7, 4, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randint(0, 7, (3, 5), generator=generator)
    mask = torch.rand(3, 5, generator=generator) < 0.6
    return hidden, weight, target, mask


def test_it_is_cross_entropy_over_what_counts():
    hidden, weight, target, mask = case()
    logits = hidden @ weight.T
    assert torch.allclose(
        next_token_loss(hidden, weight, target), F.cross_entropy(logits.flatten(0, 1), target.flatten())
    )
    wanted = F.cross_entropy(logits[mask], target[mask])
    for chunk in (None, 2):
        loss = next_token_loss(hidden, weight, target, mask, chunk=chunk)
        assert torch.allclose(loss, wanted)
        for a, b in zip(
            torch.autograd.grad(loss, (hidden, weight)),
            torch.autograd.grad(wanted, (hidden, weight), retain_graph=True),
        ):
            assert torch.allclose(a, b)


def test_micro_batches_with_the_batch_s_count_add_up():
    hidden, weight, target, mask = case(1)
    whole = next_token_loss(hidden, weight, target, mask)
    count = mask.sum()
    parts = [
        next_token_loss(hidden[r], weight, target[r], mask[r], count=count)
        for r in (slice(0, 1), slice(1, 3))
    ]
    assert torch.allclose(parts[0] + parts[1], whole)


def test_masked_positions_are_not_read():
    hidden, weight, target, mask = case(2)
    dirty = torch.where(mask[..., None], hidden, torch.nan).detach().requires_grad_()
    loss = next_token_loss(dirty, weight, target, mask)
    assert torch.allclose(loss, next_token_loss(hidden, weight, target, mask))
    gradient = torch.autograd.grad(loss, dirty)[0]
    assert gradient[~mask].abs().sum() == 0


def test_uniform_prediction_costs_log_v_and_nothing_counted_costs_nothing():
    hidden, weight, target, mask = case(3)
    uniform = next_token_loss(hidden, torch.zeros_like(weight), target)
    assert abs(uniform.item() - math.log(7)) < 1e-12
    assert next_token_loss(hidden, weight, target, torch.zeros_like(mask)) == 0
