"""What a policy's outputs mean as a distribution over actions: choices, several choices at once, or real numbers.

Each kind maps (output_NO, spread_E, action) to log-probability, entropy, exact KL and the Fisher matrix of its own
outputs, without distribution objects: building those is most of a small policy's time. `spread_E` are the parameters
of a Gaussian's covariance, which do not depend on the observation; choices have none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import UsageError
from lineal.ops.logprob import entropy, exact_kl, gaussian_logp

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Choices:
    """One choice of `sizes[0]`, or several independent ones; action_N or action_NC whole numbers."""

    sizes: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """Logits, all choices' one after another."""
        return sum(self.sizes)

    @property
    def spread(self) -> int:
        """No further parameters."""
        return 0

    def _each(self, output_NO: Tensor) -> tuple[Tensor, ...]:
        return output_NO.split(self.sizes, -1) if len(self.sizes) > 1 else (output_NO,)

    def logp(self, output_NO: Tensor, spread_E: Tensor, action: Tensor) -> Float[Tensor, " N"]:
        """log π(action) = Σ over choices."""
        if len(self.sizes) == 1:
            return _taken(output_NO, action)
        parts = zip(self._each(output_NO), action.unbind(-1), strict=True)
        return torch.stack([_taken(logits, chosen) for logits, chosen in parts]).sum(0)

    def logp_slope(
        self, output_NO: Tensor, spread_E: Tensor, action: Tensor, along_N: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N O"], Float[Tensor, " E"]]:
        """The gradient of Σ along · logp in outputs and spread: along · (onehot(action) - p) for each choice."""
        column_N1 = along_N[:, None]
        chosen = action[:, None] if action.ndim == 1 else action
        parts = []
        for index, logits in enumerate(self._each(output_NO)):
            slope = torch.softmax(logits, -1).mul_(-column_N1)
            parts.append(slope.scatter_add_(1, chosen[:, index : index + 1], column_N1))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, -1)), spread_E

    def entropy(self, output_NO: Tensor, spread_E: Tensor) -> Float[Tensor, " N"]:
        """H = Σ over choices."""
        parts = [entropy(logits) for logits in self._each(output_NO)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def entropy_slope(
        self, output_NO: Tensor, spread_E: Tensor, along_N: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N O"], Float[Tensor, " E"]]:
        """The gradient of Σ along · H: -along · p (log p + H) for each choice."""
        parts = []
        for logits in self._each(output_NO):
            logp = torch.log_softmax(logits, -1)
            surprise = logp.exp() * logp
            parts.append((surprise - logp.exp() * surprise.sum(-1, keepdim=True)).mul_(-along_N[:, None]))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, -1)), spread_E

    def kl(
        self, old_NO: Tensor, old_spread_E: Tensor, output_NO: Tensor, spread_E: Tensor
    ) -> Float[Tensor, " N"]:
        """KL(old || new) = Σ over choices."""
        pairs = zip(self._each(old_NO), self._each(output_NO), strict=True)
        parts = [exact_kl(old, new) for old, new in pairs]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def fisher(self, output_NO: Tensor, spread_E: Tensor, tangent_NO: Tensor) -> Float[Tensor, "N O"]:
        """(diag(p) - p p') t for each choice."""
        parts = []
        for logits, along in zip(self._each(output_NO), self._each(tangent_NO), strict=True):
            p = torch.softmax(logits, -1)
            moved = p * along
            parts.append(moved - p * moved.sum(-1, keepdim=True))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _taken(logits_NV: Tensor, action_N: Tensor) -> Tensor:
    """`gather_logp`, by the whole log-softmax: of a handful of choices that is the quicker way."""
    return torch.log_softmax(logits_NV, -1).gather(-1, action_N[:, None])[:, 0]


@dataclass(frozen=True)
class Gaussian:
    """`size` real numbers around the output, with a covariance of their own; action_NA.

    covariance "diagonal": spread_A = log of each standard deviation. "full": spread = log of the diagonal of the
    lower Cholesky factor, then the numbers below it, row by row.
    """

    size: int
    covariance: str = "diagonal"

    def __post_init__(self) -> None:
        if self.covariance not in ("diagonal", "full"):
            raise UsageError(f"covariance is {self.covariance!r}. Use diagonal or full.")

    @property
    def outputs(self) -> int:
        """The mean."""
        return self.size

    @property
    def spread(self) -> int:
        """Parameters of the covariance."""
        return self.size if self.covariance == "diagonal" else self.size * (self.size + 1) // 2

    def factor(self, spread_E: Float[Tensor, " E"]) -> Float[Tensor, "A A"]:
        """The lower Cholesky factor L of the covariance L L'."""
        a = self.size
        factor_AA = torch.diag(spread_E[:a].exp())
        if self.covariance == "full":
            rows, columns = torch.tril_indices(a, a, -1)
            factor_AA = factor_AA.index_put((rows, columns), spread_E[a:])
        return factor_AA

    def logp(self, output_NO: Tensor, spread_E: Tensor, action: Tensor) -> Float[Tensor, " N"]:
        """log N(action; mean, L L')."""
        if self.covariance == "diagonal":
            return gaussian_logp(action, output_NO, log_std=spread_E)
        return gaussian_logp(action, output_NO, scale_tril=self.factor(spread_E))

    def logp_slope(
        self, output_NO: Tensor, spread_E: Tensor, action: Tensor, along_N: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N O"], Float[Tensor, " E"]]:
        """The gradient of Σ along · logp: Σ⁻¹(a - μ) in the mean, z² - 1 in the log-std; a full Σ by autograd."""
        if self.covariance == "full":
            leaves = [output_NO.detach().requires_grad_(), spread_E.detach().requires_grad_()]
            with torch.enable_grad():
                total = (self.logp(leaves[0], leaves[1], action) * along_N).sum()
            to_output_NO, to_spread_E = torch.autograd.grad(total, leaves)
            return to_output_NO, to_spread_E
        shrink_A = torch.exp(-spread_E)
        z_NA = (action - output_NO) * shrink_A
        along_N1 = along_N[:, None]
        return z_NA * shrink_A * along_N1, ((z_NA.square() - 1) * along_N1).sum(0)

    def entropy(self, output_NO: Tensor, spread_E: Tensor) -> Float[Tensor, " N"]:
        """log|L| + A/2 (1 + log 2π), the same for every observation."""
        return (spread_E[: self.size].sum() + self.size * (0.5 + HALF_LOG_2PI)).expand(output_NO.shape[0])

    def entropy_slope(
        self, output_NO: Tensor, spread_E: Tensor, along_N: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N O"], Float[Tensor, " E"]]:
        """The gradient of Σ along · H: Σ along in the log of each deviation, 0 elsewhere."""
        to_spread_E = torch.zeros_like(spread_E)
        to_spread_E[: self.size] = along_N.sum()
        return torch.zeros_like(output_NO), to_spread_E

    def kl(
        self, old_NO: Tensor, old_spread_E: Tensor, output_NO: Tensor, spread_E: Tensor
    ) -> Float[Tensor, " N"]:
        """½ (|L⁻¹L_old|² + |L⁻¹(μ_old - μ)|² - A) + log|L| - log|L_old|."""
        gap_NA = old_NO - output_NO
        if self.covariance == "diagonal":
            shrink_A = torch.exp(-spread_E)
            trace = (old_spread_E.exp() * shrink_A).square().sum()
            distance_N = (gap_NA * shrink_A).square().sum(-1)
        else:
            factor_AA = self.factor(spread_E)
            solve = torch.linalg.solve_triangular
            trace = solve(factor_AA, self.factor(old_spread_E), upper=False).square().sum()
            distance_N = solve(factor_AA, gap_NA.T, upper=False).square().sum(0)
        volume = (spread_E[: self.size] - old_spread_E[: self.size]).sum()
        return 0.5 * (distance_N + trace - self.size) + volume

    def fisher(self, output_NO: Tensor, spread_E: Tensor, tangent_NO: Tensor) -> Float[Tensor, "N O"]:
        """Σ⁻¹ t."""
        if self.covariance == "diagonal":
            return tangent_NO * torch.exp(-2 * spread_E)
        return torch.cholesky_solve(tangent_NO.T, self.factor(spread_E)).T

    def spread_fisher(self, spread_E: Float[Tensor, " E"]) -> Float[Tensor, "E E"]:
        """Fisher matrix of the covariance's parameters, the Hessian of KL at old; the mean's has no part in it."""
        if self.covariance == "diagonal":
            return 2 * torch.eye(self.size, dtype=spread_E.dtype)
        held_E, mean_1A = spread_E.detach(), torch.zeros(1, self.size, dtype=spread_E.dtype)
        hessian = torch.autograd.functional.hessian(
            lambda moved_E: self.kl(mean_1A, held_E, mean_1A, moved_E).sum(), held_E
        )
        assert isinstance(hessian, Tensor)
        return hessian


ActionKind = Choices | Gaussian
