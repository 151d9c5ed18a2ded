"""Steps along the natural gradient: TRPO's, with its line search, and the plain one.

The caller owns the policy. It gives the flat gradient of the surrogate L, a product with the Fisher matrix
(`kl_fisher_product` or `gauss_newton_product` over micro-batches) and `evaluate`, which measures L and the
mean KL(old || new) at the parameters as they stand. So nothing here knows a model, and memory is the
caller's to bound. Build a new product for each step: graphs that were kept belong to the parameters before
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import LinealError, UsageError
from lineal.objectives.step import NaturalGradient, TrustRegion
from lineal.ops.linear import (
    Product,
    conjugate_gradient,
    dense_matrix,
    flatten,
    gauss_newton_product,
    kl_fisher_product,
    unflatten_like,
)

__all__ = [
    "StepReport",
    "Evaluate",
    "Reduce",
    "trust_region_step",
    "natural_gradient_step",
    "sum_of_parts",
    "kl_fisher_product",
    "gauss_newton_product",
]

Evaluate = Callable[[], tuple[Tensor | float, Tensor | float]]
"""() -> (surrogate, mean KL(old || new)) at the parameters as they stand; called without gradients."""
Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over processes, for instance by all-reduce; every process must get the same bits."""

LARGEST_DENSE = 4096
"""Most parameters that an exact natural gradient builds its Fisher matrix for."""


@dataclass(frozen=True)
class StepReport:
    """What a step did; where it was refused, the parameters are bitwise what they were.

    accepted: the step was kept. reason: why it was not ("" when it was).
    step_scale: share of the full step sqrt(2 max_kl / x'Fx) x that was tried last; 0 when none was.
    expected_kl, kl: of the step tried last, ½ Δ'FΔ and the measured mean KL(old || new).
    expected_improvement, improvement: of the same step, g'Δ and the measured L(new) - L(old).
    cg_residual: ‖g - (F + damping I) x‖ / ‖g‖, from a product of its own. backtracks: shrinkings tried.
    """

    accepted: bool
    step_scale: float
    expected_kl: float
    kl: float
    expected_improvement: float
    improvement: float
    cg_residual: float
    backtracks: int
    reason: str = ""


def trust_region_step(
    parameters: Sequence[Tensor],
    gradient: Float[Tensor, " N"] | Sequence[Tensor],
    fisher_product: Product,
    evaluate: Evaluate,
    settings: TrustRegion,
    *,
    reduce: Reduce | None = None,
) -> StepReport:
    """TRPO's step: maximise L subject to mean KL(old || new) <= max_kl  (Schulman et al. 2015, appendix C).

    (F + damping I) x = g by conjugate gradient; full step sqrt(2 max_kl / x'Fx) x with the undamped F; then
    shrunk by `backtrack`, at most `max_backtracks` times, until the measured KL is at most max_kl **and**
    L(new) > L(old). Else, also where anything is not finite or `evaluate` raises, the parameters are
    bitwise what they were.

    parameters: those that move; g, F and x are over these alone. gradient: of L (uphill), complete; a
    vector or one tensor per parameter. fisher_product: v -> F v, undamped.
    reduce: with several processes, adds up their shares of products and values; the gradient comes already
    added. Departs from the paper in damping F, as the authors' code does.
    """
    chosen = _movable(parameters)
    plan = _plan(chosen, gradient, _reduced(fisher_product, reduce), settings)
    if plan.reason:
        return plan.refused()
    return _search(chosen, plan, _measure(chosen, evaluate, reduce), settings)


def natural_gradient_step(
    parameters: Sequence[Tensor],
    gradient: Float[Tensor, " N"] | Sequence[Tensor],
    fisher_product: Product,
    evaluate: Evaluate,
    settings: NaturalGradient,
    *,
    reduce: Reduce | None = None,
) -> StepReport:
    """The natural gradient step sqrt(2 max_kl / x'Fx) x, x = (F + damping I)⁻¹ g, without line search
    (Kakade 2001).

    `exact` builds F and solves (least norm where it is singular); otherwise x is conjugate gradient's,
    truncated. With damping 0 the step is sqrt(2 max_kl / g'F⁻¹g) F⁻¹g, whatever the policy's
    parameterisation. Arguments as for `trust_region_step`; `evaluate` only fills the report, but a value
    that is not finite refuses the step. Raises UsageError for an exact step over more than `LARGEST_DENSE`
    parameters.
    """
    chosen = _movable(parameters)
    plan = _plan(chosen, gradient, _reduced(fisher_product, reduce), settings)
    if plan.reason:
        return plan.refused()
    return _search(chosen, plan, _measure(chosen, evaluate, reduce), settings)


def sum_of_parts(parts: Sequence[Callable[[], tuple[Tensor, Tensor]]]) -> Evaluate:
    """An `evaluate` from micro-batches, whose shares of the surrogate and of the mean KL add up."""

    def evaluate() -> tuple[Tensor | float, Tensor | float]:
        pairs = [torch.stack(part()) for part in parts]
        surrogate, kl = torch.stack(pairs).sum(0).unbind(0)
        return surrogate, kl

    return evaluate


@dataclass(frozen=True)
class _Plan:
    """The full step and what it should do; or the reason why there is none."""

    step: Tensor
    gain: float
    cg_residual: float
    reason: str = ""

    def refused(self) -> StepReport:
        nan = math.nan
        return StepReport(False, 0.0, nan, nan, nan, nan, self.cg_residual, 0, self.reason)


def _plan(
    chosen: list[Tensor],
    gradient: Tensor | Sequence[Tensor],
    product: Product,
    settings: TrustRegion | NaturalGradient,
) -> _Plan:
    g = _vector(chosen, gradient)
    size = float(g.norm())
    if not math.isfinite(size) or size == 0:
        return _Plan(g, math.nan, math.nan, f"the gradient's norm is {size}")
    x = _solve(product, g, settings)
    image = product(x)
    residual = float((g - image - settings.damping * x).norm()) / size
    curvature = float(torch.dot(x, image))
    if not 0 < curvature < math.inf:
        return _Plan(x, math.nan, residual, f"the curvature x'Fx of the direction is {curvature}")
    step = x * math.sqrt(2 * settings.max_kl / curvature)
    gain = float(torch.dot(g, step))
    if not math.isfinite(gain) or not bool(torch.isfinite(step).all()):
        return _Plan(step, gain, residual, "the step is not finite")
    return _Plan(step, gain, residual)


def _solve(product: Product, g: Tensor, settings: TrustRegion | NaturalGradient) -> Tensor:
    def damped(vector: Tensor) -> Tensor:
        return product(vector).add(vector, alpha=settings.damping)

    if not (isinstance(settings, NaturalGradient) and settings.exact):
        return conjugate_gradient(damped, g, settings.cg_iterations)[0]
    if len(g) > LARGEST_DENSE:
        raise UsageError(
            f"an exact natural gradient over {len(g)} parameters needs a matrix of {len(g)}² numbers "
            f"(at most {LARGEST_DENSE}²): use exact=False, or name fewer parameters."
        )
    matrix = dense_matrix(damped, g)
    if not bool(torch.isfinite(matrix).all()):
        return torch.full_like(g, math.nan)
    return torch.linalg.pinv(matrix, hermitian=True) @ g


def _search(
    chosen: list[Tensor],
    plan: _Plan,
    measure: Callable[[], list[float]],
    settings: TrustRegion | NaturalGradient,
) -> StepReport:
    start, start_kl = measure()
    if not (math.isfinite(start) and math.isfinite(start_kl)):
        return _Plan(
            plan.step, 0.0, plan.cg_residual, f"before the step, L is {start}, KL {start_kl}"
        ).refused()
    searches = isinstance(settings, TrustRegion)
    shrink, tries = (settings.backtrack, settings.max_backtracks) if searches else (1.0, 0)
    saved = [parameter.detach().clone() for parameter in chosen]
    pieces = unflatten_like(plan.step, chosen)
    accepted, backtracks, scale, value, kl = False, 0, 1.0, math.nan, math.nan
    try:
        for backtracks in range(tries + 1):
            scale = shrink**backtracks
            _move(chosen, saved, pieces, scale)
            value, kl = measure()
            accepted = math.isfinite(value) and math.isfinite(kl)
            if searches:
                accepted = accepted and kl <= settings.max_kl and value > start
            if accepted:
                break
    finally:
        # Also on an exception: no one may find the policy half-way.
        if not accepted:
            _move(chosen, saved)
    reason = "" if accepted else _why(value - start, kl, settings)
    expected = scale**2 * settings.max_kl
    gain = scale * plan.gain
    return StepReport(
        accepted, scale, expected, kl, gain, value - start, plan.cg_residual, backtracks, reason
    )


def _why(improvement: float, kl: float, settings: TrustRegion | NaturalGradient) -> str:
    if not (math.isfinite(improvement) and math.isfinite(kl)):
        return f"the last step tried changes L by {improvement} at a KL of {kl}"
    if kl > settings.max_kl:
        return f"the last step tried still has a KL of {kl:.3g}, above {settings.max_kl:g}"
    return f"the last step tried changes L by {improvement:.3g}, which is no improvement"


@torch.no_grad()
def _move(
    chosen: list[Tensor], saved: list[Tensor], pieces: Sequence[Tensor] = (), scale: float = 0.0
) -> None:
    for index, (parameter, old) in enumerate(zip(chosen, saved)):
        parameter.copy_(torch.add(old, pieces[index], alpha=scale) if pieces else old)


def _measure(chosen: list[Tensor], evaluate: Evaluate, reduce: Reduce | None) -> Callable[[], list[float]]:
    device = chosen[0].device
    dtype = torch.float32 if device.type == "mps" else torch.float64

    def measure() -> list[float]:
        with torch.no_grad():
            surrogate, kl = evaluate()
        pair = torch.tensor([float(surrogate), float(kl)], dtype=dtype, device=device)
        return (pair if reduce is None else reduce(pair)).tolist()

    return measure


def _reduced(fisher_product: Product, reduce: Reduce | None) -> Product:
    if reduce is None:
        return fisher_product
    return lambda vector: reduce(fisher_product(vector))


def _vector(chosen: list[Tensor], gradient: Tensor | Sequence[Tensor]) -> Tensor:
    vector = gradient if isinstance(gradient, Tensor) else flatten(gradient)
    count = sum(parameter.numel() for parameter in chosen)
    if vector.shape != (count,):
        raise LinealError(
            f"the gradient has shape {tuple(vector.shape)}, the parameters that move hold {count} numbers: "
            "take the gradient over exactly these parameters, in this order."
        )
    return vector.detach() if vector.dtype in (torch.float32, torch.float64) else vector.detach().float()


def _movable(parameters: Sequence[Tensor]) -> list[Tensor]:
    chosen = list(parameters)
    if not chosen:
        raise UsageError("a natural-gradient step was given no parameters: name some that the model has.")
    if any(hasattr(parameter, "device_mesh") for parameter in chosen):
        raise UsageError(
            "the parameters are sharded (fully_shard), through which there are no second derivatives: "
            "replicate the model on every process, or name a subset of parameters that is not sharded."
        )
    return chosen
