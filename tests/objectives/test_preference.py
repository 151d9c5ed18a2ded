from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lineal.objectives.preference import bradley_terry, preference_loss, segment_score

scores = st.floats(-20, 20)


def tensor(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@given(scores, scores, st.floats(-5, 5))
def test_probabilities_add_up_and_see_only_the_difference(first, second, shift):
    p = bradley_terry(tensor(first), tensor(second))
    assert (p + bradley_terry(tensor(second), tensor(first))).item() == pytest.approx(1)
    assert bradley_terry(tensor(first + shift), tensor(second + shift)).item() == pytest.approx(
        p.item(), abs=1e-9
    )


def test_it_is_logistic_regression_on_summed_rewards():
    """Scores are sums of r = features · w, so the loss is logistic regression on summed feature differences."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 5, 3, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 6, 5, generator=generator) < 0.7
    label = torch.randint(0, 2, (6,), generator=generator).double()
    w = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    first, second = (segment_score(features[i] @ w, mask[i]) for i in (0, 1))
    loss = preference_loss(first, second, preference=label)
    summed = (features * mask[..., None]).sum(2)
    wanted = F.binary_cross_entropy_with_logits((summed[0] - summed[1]) @ w, label)
    assert (loss - wanted).abs() <= 1e-10
    gradients = [torch.autograd.grad(x, w, retain_graph=True)[0] for x in (loss, wanted)]
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-10


@given(scores, scores)
def test_chosen_and_rejected_is_a_preference_of_one(first, second):
    loss = preference_loss(tensor(first), tensor(second))
    assert loss.item() == pytest.approx(
        preference_loss(tensor(first), tensor(second), preference=tensor(1.0)).item()
    )
    assert loss.item() == pytest.approx(-F.logsigmoid(tensor(first - second)).item())


@given(scores, scores, st.floats(0, 1), st.floats(0.01, 0.5))
def test_random_labels_bound_the_loss(first, second, preference, rate):
    loss = preference_loss(tensor(first), tensor(second), preference=tensor(preference), error_rate=rate)
    p = (1 - rate) * torch.sigmoid(tensor(first - second)).item() + rate / 2
    wanted = -(preference * torch.log(tensor(p)) + (1 - preference) * torch.log(tensor(1 - p)))
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-9)
    assert loss.item() <= -torch.log(tensor(rate / 2)).item() + 1e-9


def test_an_extreme_difference_stays_finite():
    loss = preference_loss(tensor(-1e4), tensor(1e4))
    assert loss.item() == pytest.approx(2e4)


def test_margin_and_weights():
    first, second = tensor(1.0, 2.0), tensor(0.0, 3.0)
    margin = preference_loss(first, second, margin=0.5)
    assert margin.item() == pytest.approx(preference_loss(first - 0.5, second).item())
    only_second = preference_loss(first, second, weight=tensor(0.0, 3.0))
    assert only_second.item() == pytest.approx(preference_loss(first[1:], second[1:]).item())


def test_discounted_segments_count_only_counted_steps():
    reward = torch.tensor([[9.0, 1.0, 9.0, 2.0]], dtype=torch.float64)
    mask = torch.tensor([[False, True, False, True]])
    assert segment_score(reward, mask).item() == 3
    assert segment_score(reward, mask, discount=0.5).item() == 2
