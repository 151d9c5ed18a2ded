from __future__ import annotations

import pytest
import torch

from lineal.objectives.ratio import NoRatio, SequenceRatio, SequenceTokenRatio, TokenRatio

MASK = torch.tensor([[True, True, True], [True, False, False]])
LOGP = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, 9.0, 9.0]], dtype=torch.float64)
OLD = torch.tensor([[-1.5, -2.0, -2.0], [-1.0, 5.0, 5.0]], dtype=torch.float64)


@pytest.mark.parametrize("ratio", [NoRatio(), TokenRatio(), SequenceRatio(), SequenceTokenRatio()])
def test_masked_steps_are_zero_with_zero_gradient(ratio):
    logp = LOGP.clone().requires_grad_()
    log_ratio = ratio(logp, OLD, MASK)
    assert log_ratio[~MASK].abs().sum() == 0
    assert torch.autograd.grad(log_ratio.exp().sum(), logp)[0][~MASK].abs().sum() == 0


def test_values():
    assert torch.equal(NoRatio()(LOGP, OLD, MASK)[MASK], LOGP[MASK])
    assert torch.equal(TokenRatio()(LOGP, OLD, MASK)[MASK], (LOGP - OLD)[MASK])
    mean = (0.5 + 0.0 - 1.0) / 3
    for ratio in (SequenceRatio(), SequenceTokenRatio()):
        assert ratio(LOGP, OLD, MASK)[MASK].tolist() == pytest.approx([mean] * 3 + [0.5])


def test_the_sequence_ratio_is_a_geometric_mean():
    ratio = (LOGP - OLD)[0].exp()
    assert SequenceRatio()(LOGP, OLD, MASK)[0, 0].exp().item() == pytest.approx(
        ratio.prod().item() ** (1 / 3)
    )


def test_gradients_of_the_two_sequence_ratios():
    """One spreads a completion's gradient over its tokens; the other gives each token its own."""
    for ratio, wanted in (
        (SequenceRatio(), [[1 / 3] * 3, [1, 0, 0]]),
        (SequenceTokenRatio(), [[1, 0, 0], [1, 0, 0]]),
    ):
        logp = LOGP.clone().requires_grad_()
        found = torch.autograd.grad(ratio(logp, OLD, MASK)[:, 0].sum(), logp)[0]
        assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64))
    total = []
    for ratio in (SequenceRatio(), SequenceTokenRatio()):
        logp = LOGP.clone().requires_grad_()
        # Weighted per sequence, with one advantage each, both have the same gradient.
        weight = MASK / MASK.sum(1, keepdim=True)
        total.append(torch.autograd.grad((weight * ratio(logp, OLD, MASK).exp()).sum(), logp)[0])
    assert torch.allclose(*total)
