"""Kinds of actions: densities, entropies, divergences and Fisher matrices beside torch.distributions and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from lineal.errors import UsageError
from lineal.models.actions import ActionKind, Choices, Gaussian

KINDS = [Choices((4,)), Choices((2, 3)), Gaussian(3), Gaussian(3, "full")]


def drawn(kind: ActionKind, seed: int, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, spread and actions."""
    generator = torch.Generator().manual_seed(seed)
    output_NO = torch.randn(rows, kind.outputs, generator=generator, dtype=torch.float64)
    spread_E = 0.4 * torch.randn(kind.spread, generator=generator, dtype=torch.float64)
    if isinstance(kind, Gaussian):
        return output_NO, spread_E, torch.randn(rows, kind.size, generator=generator, dtype=torch.float64)
    columns = [torch.randint(0, n, (rows,), generator=generator) for n in kind.sizes]
    return output_NO, spread_E, columns[0] if len(columns) == 1 else torch.stack(columns, 1)


def reference(kind: ActionKind, output_NO: Tensor, spread_E: Tensor) -> list:
    if isinstance(kind, Gaussian) and kind.covariance == "full":
        return [MultivariateNormal(output_NO, scale_tril=kind.factor(spread_E))]
    if isinstance(kind, Gaussian):
        return [Normal(output_NO[:, i], spread_E[i].exp()) for i in range(kind.size)]
    return [Categorical(logits=logits) for logits in output_NO.split(kind.sizes, -1)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_densities_entropies_and_divergences(kind: ActionKind) -> None:
    output_NO, spread_E, action = drawn(kind, 1)
    old_NO, old_E, _ = drawn(kind, 2)
    theirs, before = reference(kind, output_NO, spread_E), reference(kind, old_NO, old_E)
    columns = [action] if action.ndim == 1 or len(theirs) == 1 else list(action.unbind(1))
    logp_N = torch.stack([one.log_prob(a) for one, a in zip(theirs, columns, strict=True)]).sum(0)
    entropy_N = torch.stack([one.entropy() for one in theirs]).sum(0)
    kl_N = torch.stack([kl_divergence(a, b) for a, b in zip(before, theirs, strict=True)]).sum(0)
    assert torch.allclose(kind.logp(output_NO, spread_E, action), logp_N, atol=1e-12)
    assert torch.allclose(kind.entropy(output_NO, spread_E), entropy_N, atol=1e-12)
    assert torch.allclose(kind.kl(old_NO, old_E, output_NO, spread_E), kl_N, atol=1e-12)
    assert torch.allclose(
        kind.kl(output_NO, spread_E, output_NO, spread_E), torch.zeros(6, dtype=torch.float64), atol=1e-12
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_fisher_matrix_is_the_hessian_of_the_divergence(kind: ActionKind) -> None:
    output_NO, spread_E, _ = drawn(kind, 3, rows=1)
    both = torch.cat([output_NO[0], spread_E])
    size = kind.outputs

    def divergence(moved: Tensor) -> Tensor:
        return kind.kl(output_NO, spread_E, moved[None, :size], moved[size:]).sum()

    hessian = torch.autograd.functional.hessian(divergence, both)
    assert isinstance(hessian, Tensor)
    columns = [kind.fisher(output_NO, spread_E, row[None])[0] for row in torch.eye(size, dtype=torch.float64)]
    assert torch.allclose(torch.stack(columns), hessian[:size, :size], atol=1e-10)
    if isinstance(kind, Gaussian):
        assert torch.allclose(kind.spread_fisher(spread_E), hessian[size:, size:], atol=1e-10)
        assert torch.allclose(hessian[:size, size:], torch.zeros(size, kind.spread, dtype=torch.float64))
        if kind.covariance == "diagonal":
            assert torch.equal(kind.spread_fisher(spread_E), 2 * torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_slope_of_logp_is_autograds(kind: ActionKind) -> None:
    output_NO, spread_E, action = drawn(kind, 5)
    along_N = torch.randn(6, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    leaves = [output_NO.clone().requires_grad_(), spread_E.clone().requires_grad_()]
    total = (kind.logp(leaves[0], leaves[1], action) * along_N).sum()
    wanted = torch.autograd.grad(total, leaves, allow_unused=True)
    to_output_NO, to_spread_E = kind.logp_slope(output_NO, spread_E, action, along_N)
    assert torch.allclose(to_output_NO, wanted[0], atol=1e-12)
    if kind.spread:
        assert torch.allclose(to_spread_E, wanted[1], atol=1e-12)
    total = (kind.entropy(leaves[0], leaves[1]) * along_N).sum()
    wanted = torch.autograd.grad(total, leaves, materialize_grads=True, allow_unused=True)
    to_output_NO, to_spread_E = kind.entropy_slope(output_NO, spread_E, along_N)
    assert torch.allclose(to_output_NO, wanted[0], atol=1e-12)
    if kind.spread:
        assert torch.allclose(to_spread_E, wanted[1], atol=1e-12)


def test_the_fisher_matrix_is_the_mean_outer_product_of_scores() -> None:
    kind = Choices((2, 3))
    output_NO, spread_E, _ = drawn(kind, 4, rows=1)
    total = torch.zeros(5, 5, dtype=torch.float64)
    for a in range(2):
        for b in range(3):
            leaf = output_NO.clone().requires_grad_()
            logp = kind.logp(leaf, spread_E, torch.tensor([[a, b]]))
            (score,) = torch.autograd.grad(logp.sum(), leaf)
            total += logp.exp().detach() * score.T @ score
    rows = torch.stack(
        [kind.fisher(output_NO, spread_E, e[None])[0] for e in torch.eye(5, dtype=torch.float64)]
    )
    assert torch.allclose(rows, total, atol=1e-12)


def test_an_unknown_covariance_is_refused() -> None:
    with pytest.raises(UsageError, match="diagonal or full"):
        Gaussian(2, "banded")
